-- Version 5: what templates of watched hosts brought so far, and where the content is that later visits found unchanged.
-- names: '' for the template itself (fetched, check_at: the counts of core/url_templates.py, written every few pages),
-- else a combination of parameters that was fetched under it.
CREATE TABLE trap_count (
  host     INTEGER NOT NULL REFERENCES host (id),
  template TEXT    NOT NULL,
  names    TEXT    NOT NULL,
  kind     TEXT    NOT NULL,
  fetched  INTEGER NOT NULL,
  check_at INTEGER NOT NULL,
  PRIMARY KEY (host, template, names)
) WITHOUT ROWID;
-- NULL where the record at warc_file, warc_offset holds the content itself; else that one is a revisit record, or an
-- error's, and this is where the content is that visit.digest speaks of.
ALTER TABLE visit ADD COLUMN content_file INTEGER;
ALTER TABLE visit ADD COLUMN content_offset INTEGER;
