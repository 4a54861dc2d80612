-- Version 6: version 2 of the rules for what counts as the same URL (core/url.py). meta.key_rules is the version
-- that the keys of this store follow; rekey.py brings them up, and what stands in first_mark was forgotten before.
INSERT INTO meta (name, value) VALUES ('key_rules', '1');
-- Of hosts that were taken down whole nothing is needed: they are closed by name.
CREATE TABLE first_mark (
  host INTEGER NOT NULL REFERENCES host (id),
  hash INTEGER NOT NULL,                -- by version 1 of the rules
  PRIMARY KEY (host, hash)
) WITHOUT ROWID;
INSERT INTO first_mark (host, hash)
SELECT host, hash FROM url
WHERE state = 'forgotten'
  AND host NOT IN (SELECT h.id FROM host AS h CROSS JOIN forgotten_host AS f ON f.host = h.host);
