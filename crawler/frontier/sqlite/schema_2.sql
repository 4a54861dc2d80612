-- Version 2: revisits, kinds of task, history of robots.txt, traps, blocks, takedowns. What version 1 has is in schema.sql.
-- A step is one transaction (database.py); once it is on main it is never edited: what comes next is schema_3.sql.

-- What the task is for: sitemap, feed, probe; NULL is a page (a byte a row instead of five). A URL of another kind is
-- another row: its hash is core.url.kind_key_of, so that a page with the same address is still found.
ALTER TABLE url ADD COLUMN kind TEXT;
-- state 'forgotten': a takedown. The row stays as the mark that keeps the URL from ever being stored again: `target` is
-- empty, `hash` is all that is left of it.

-- Those that newer rules (robots.txt or scope) may bring back, in the order of url_queued, for sweeps in slices. Which
-- rule denied it is visit.last_error (deny_reason), visit.last_rule and visit.rules_version.
CREATE INDEX url_denied ON url (host, priority, depth, id) WHERE state = 'denied';

-- visit.next_at of a url that is not queued is when it is due: 'waiting' is tried again, 'done' or 'gave_up' is visited
-- again (a revisit: attempts start over, url.state is 'queued' again, visit.visits > 0). NULL: never by itself.
ALTER TABLE visit ADD COLUMN visits INTEGER NOT NULL DEFAULT 0;  -- that ended in 'done' or 'gave_up'; > 0: a revisit
ALTER TABLE visit ADD COLUMN changed_at REAL;       -- end of the last visit that found other content
ALTER TABLE visit ADD COLUMN gone_count INTEGER;    -- 404 or 410 in a row
-- In-links as known when the url was last settled, an estimate. Links to a known url write nothing: each would change
-- a page of its own on the disk. The settlement of the url itself brings the number.
ALTER TABLE visit ADD COLUMN in_links INTEGER;
ALTER TABLE visit ADD COLUMN simhash INTEGER;       -- signed 64 bits; near-duplicates within a template
ALTER TABLE visit ADD COLUMN rules_version INTEGER; -- of the rules that judged it last, as the engine counts them
-- visit.change_a and change_t (version 1) are the change-rate estimate: changes seen, time observed.

UPDATE visit SET visits = 1 WHERE url IN (SELECT id FROM url WHERE state IN ('done', 'gave_up'));
-- For requeue by error and reports; pages that went well are not in it.
CREATE INDEX visit_error ON visit (last_error) WHERE last_error IS NOT NULL;

-- What sitemaps say of a url. A table of its own: most urls are in no sitemap, and it is written in rowid order.
CREATE TABLE sitemap_hint (
  url      INTEGER PRIMARY KEY REFERENCES url (id),
  priority REAL,                        -- 0.0 to 1.0, as the sitemap says
  lastmod  REAL,                        -- UTC epoch seconds
  seen_at  REAL NOT NULL                -- when a sitemap last said so
);

-- What each robots.txt said, a row for each time it said something else (verdicts rules and allow), the current one
-- included; the newest few of each host are kept. An answer that is unreachable is no version.
CREATE TABLE robots_version (
  id          INTEGER PRIMARY KEY,
  host        INTEGER NOT NULL REFERENCES host (id),
  fetched_at  REAL NOT NULL,            -- first seen
  status_code INTEGER,
  verdict     TEXT NOT NULL,
  digest      TEXT NOT NULL,            -- of verdict and body: sha256, hexadecimal
  body        BLOB
);
CREATE INDEX robots_version_host ON robots_version (host, id);

-- Per URL template of a host (core/traps.py says what a template is): what visiting it brought.
CREATE TABLE template (
  host      INTEGER NOT NULL REFERENCES host (id),
  template  TEXT    NOT NULL,
  found     INTEGER NOT NULL DEFAULT 0, -- urls stored
  fetched   INTEGER NOT NULL DEFAULT 0,
  novel     INTEGER NOT NULL DEFAULT 0, -- brought content not seen on this host
  known     INTEGER NOT NULL DEFAULT 0, -- duplicates and near-duplicates
  soft_404  INTEGER NOT NULL DEFAULT 0,
  last_at   REAL,
  PRIMARY KEY (host, template)
) WITHOUT ROWID;

-- Templates that yield nothing new: not fetched while released_at is NULL.
CREATE TABLE quarantine (
  host        INTEGER NOT NULL REFERENCES host (id),
  template    TEXT NOT NULL,
  reason      TEXT NOT NULL,            -- a deny_reason
  evidence    TEXT NOT NULL,            -- JSON object, for a person
  since_at    REAL NOT NULL,
  released_at REAL,                     -- by command; it may be quarantined again with new evidence
  PRIMARY KEY (host, template)
) WITHOUT ROWID;

-- Learned pace of a politeness key (adaptive delay), so that a restart does not forget it.
CREATE TABLE pace (
  key        TEXT PRIMARY KEY,
  response_s REAL NOT NULL,             -- smoothed response time
  updated_at REAL NOT NULL
) WITHOUT ROWID;

-- Hosts and domains that an operator blocked: no request is made. A domain covers its subdomains.
CREATE TABLE blocked (
  name   TEXT PRIMARY KEY,              -- as in Origin.host
  kind   TEXT NOT NULL,                 -- host, domain
  at     REAL NOT NULL,
  reason TEXT NOT NULL
) WITHOUT ROWID;

-- Hosts whose URLs were all taken down: none is ever stored again, under any scheme or port.
CREATE TABLE forgotten_host (
  host TEXT PRIMARY KEY,
  at   REAL NOT NULL
) WITHOUT ROWID;

-- Records that a takedown wants removed from the WARC files. The file is named, not referred to: it may be gone.
CREATE TABLE takedown (
  id          INTEGER PRIMARY KEY,
  url         TEXT NOT NULL,
  warc_file   TEXT NOT NULL,
  warc_offset INTEGER NOT NULL,
  at          REAL NOT NULL,
  UNIQUE (warc_file, warc_offset)
);
