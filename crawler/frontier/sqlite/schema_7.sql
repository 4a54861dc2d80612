-- Version 7: which pages/ file holds the last line of a URL, so that what a lost file held can be fetched again.

ALTER TABLE visit ADD COLUMN pages_file INTEGER;    -- sink_file.id
