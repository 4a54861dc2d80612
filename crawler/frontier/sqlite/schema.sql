-- Version 1; schema_2.sql adds to it. Times are UTC epoch seconds (REAL). States and sources are the words of core/enums.py.
-- URLs are append-ordered: rows are written in rowid order and the key index is the only random one (docs/ARCHITECTURE.md).
CREATE TABLE meta (
  name  TEXT PRIMARY KEY,
  value TEXT NOT NULL
) WITHOUT ROWID;

-- One row an origin. slot = xxh3_64(domain) mod 1024: the owner of all its state.
CREATE TABLE host (
  id      INTEGER PRIMARY KEY,
  slot    INTEGER NOT NULL,
  scheme  TEXT    NOT NULL,
  host    TEXT    NOT NULL,
  port    INTEGER NOT NULL,
  domain  TEXT    NOT NULL,
  state   TEXT    NOT NULL DEFAULT 'new',
  queued  INTEGER NOT NULL DEFAULT 0,   -- urls in state 'queued'
  fetched INTEGER NOT NULL DEFAULT 0,   -- urls whose first attempt was made
  ok      INTEGER NOT NULL DEFAULT 0,
  errors  INTEGER NOT NULL DEFAULT 0,
  bytes   INTEGER NOT NULL DEFAULT 0,
  found_at REAL   NOT NULL,
  last_at  REAL,                        -- end of the last visit
  UNIQUE (host, scheme, port)
);
CREATE INDEX host_slot ON host (slot);

CREATE TABLE robots (
  host          INTEGER PRIMARY KEY REFERENCES host (id),
  verdict       TEXT NOT NULL,          -- rules, allow, unreachable
  status_code   INTEGER,
  body          BLOB,
  fetched_at    REAL NOT NULL,
  expires_at    REAL NOT NULL,
  crawl_delay_s REAL,
  failing_since REAL
);

-- Politeness keys that rest (429, 503, errors), so that a restart does not forget it.
CREATE TABLE rest (
  key      TEXT PRIMARY KEY,
  until_at REAL    NOT NULL,
  strikes  INTEGER NOT NULL,
  reason   TEXT    NOT NULL
) WITHOUT ROWID;

CREATE TABLE url (
  id        INTEGER PRIMARY KEY,
  host      INTEGER NOT NULL REFERENCES host (id),
  hash      INTEGER NOT NULL,           -- xxh3_64 of the canonical form, signed
  priority  INTEGER NOT NULL DEFAULT 0, -- smaller first
  depth     INTEGER NOT NULL,
  state     TEXT    NOT NULL DEFAULT 'queued',
  target    TEXT    NOT NULL,           -- path and query; the rest is the host's
  via       INTEGER,                    -- the url row it was found on; NULL for a seed
  source    TEXT    NOT NULL,
  hop_path  TEXT    NOT NULL DEFAULT '',
  redirects INTEGER NOT NULL DEFAULT 0,
  found_at  REAL    NOT NULL
);
CREATE UNIQUE INDEX url_key ON url (host, hash);
CREATE INDEX url_queued ON url (host, priority, depth, id) WHERE state = 'queued';

-- What visiting brought; a row from the first attempt on.
CREATE TABLE visit (
  url           INTEGER PRIMARY KEY REFERENCES url (id),
  next_at       REAL,                   -- due again; NULL: never by itself
  attempts      INTEGER NOT NULL DEFAULT 0,
  last_at       REAL,
  last_status   INTEGER,
  last_error    TEXT,                   -- error_type or deny_reason
  last_rule     TEXT,                   -- what denied it, or the error's detail
  etag          TEXT,
  last_modified TEXT,
  digest        TEXT,                   -- of the payload, as in the WARC
  change_a      REAL,                   -- change-rate estimate (recrawl): changes seen, time observed
  change_t      REAL,
  warc_file     INTEGER,                -- sink_file.id
  warc_offset   INTEGER
);
CREATE INDEX visit_due ON visit (next_at) WHERE next_at IS NOT NULL;

CREATE TABLE sink_file (
  id              INTEGER PRIMARY KEY,
  sink            TEXT    NOT NULL,
  name            TEXT    NOT NULL,
  state           TEXT    NOT NULL,     -- open, closing, closed
  committed_bytes INTEGER NOT NULL,
  UNIQUE (sink, name)
);

-- Hosts that a seed's redirect brought into scope.
CREATE TABLE scope_host (
  host     TEXT PRIMARY KEY,
  added_at REAL NOT NULL
) WITHOUT ROWID;
