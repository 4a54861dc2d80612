-- Version 9: why robots.txt could not be read the last time, an error_type; NULL where it could, or was answered with a
-- status that says so.
ALTER TABLE robots ADD COLUMN error TEXT;
