-- Version 8: pages of URL templates are compared by a sample that is in the store, and suspects are a state of their own.
-- What versions before kept out as quarantined, or for too many combinations of parameters, is judged anew.
INSERT INTO meta SELECT DISTINCT 'unswept:' || url.host, '1'
  FROM visit CROSS JOIN url ON url.id = visit.url
  WHERE visit.last_error IN ('trap_quarantine', 'trap_combinations')
  ON CONFLICT (name) DO UPDATE SET value = max(1, CAST(value AS INTEGER)) + 1;
DROP TABLE quarantine;
DROP TABLE trap_count;

-- One in so many HTML pages (core/url_templates.py): hashes of its words, 32 bits each.
CREATE TABLE sampled_page (
  url   INTEGER PRIMARY KEY REFERENCES url (id),
  host  INTEGER NOT NULL REFERENCES host (id),
  words BLOB    NOT NULL
);
CREATE INDEX sampled_page_host ON sampled_page (host);

CREATE TABLE url_template (
  host        INTEGER NOT NULL REFERENCES host (id),
  template    TEXT    NOT NULL,
  pages       INTEGER NOT NULL DEFAULT 0,  -- HTML pages settled since its first verdict
  spent       INTEGER NOT NULL DEFAULT 0,  -- suspects that made it grow with more of the same
  good        INTEGER NOT NULL DEFAULT 0,  -- suspects that brought something new
  since_at    REAL,                        -- first suspected
  released_at REAL,                        -- by command: fetched for good
  PRIMARY KEY (host, template)
) WITHOUT ROWID;

-- The urls in state 'suspect', with the template that makes them so.
CREATE TABLE suspect (
  url      INTEGER PRIMARY KEY REFERENCES url (id),
  host     INTEGER NOT NULL,
  template TEXT    NOT NULL
);
CREATE INDEX suspect_template ON suspect (host, template, url);
