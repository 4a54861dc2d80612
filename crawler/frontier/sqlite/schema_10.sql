-- Version 10: the store has the scheduling state of hosts and politeness keys, so that only those that can be requested
-- soon are in memory. Times named ready_at, open_at and requested_at are in schedule time (core/clock.py): UTC, but it
-- never goes back. scheduling.py fills `key` and politeness_key, and makes their indexes.

ALTER TABLE host ADD COLUMN key       INTEGER NOT NULL DEFAULT 0;  -- politeness_key.id
ALTER TABLE host ADD COLUMN suspects  INTEGER NOT NULL DEFAULT 0;  -- urls in state 'suspect'
ALTER TABLE host ADD COLUMN ready_at  REAL    NOT NULL DEFAULT 0;  -- when it may be requested; 9e99: not before an event
ALTER TABLE host ADD COLUMN parked    TEXT;     -- why not before ready_at: blocked, limit, backoff, robots, traps
ALTER TABLE host ADD COLUMN failures  INTEGER NOT NULL DEFAULT 0;  -- connection errors in a row
ALTER TABLE host ADD COLUMN reason    TEXT;                        -- of its back-off
ALTER TABLE host ADD COLUMN responded INTEGER NOT NULL DEFAULT 0;  -- 1: it responded once

UPDATE host SET responded = 1 WHERE ok > 0 OR id IN (SELECT host FROM robots WHERE status_code IS NOT NULL);
UPDATE host SET suspects = (SELECT count(*) FROM suspect WHERE suspect.host = host.id)
  WHERE id IN (SELECT DISTINCT host FROM suspect);

-- What a delay holds for. id: the hash of its name (core/politeness.py). Back-offs are in rest, slow responses in pace.
CREATE TABLE politeness_key (
  id            INTEGER PRIMARY KEY,
  requested_at  REAL,                        -- end of its last request
  open_at       REAL    NOT NULL DEFAULT 0,  -- when its delay or back-off ends
  ready_at      REAL,                        -- when one of its hosts may be requested; NULL: none has work, or active
  crawl_delay_s REAL,                        -- the longest of its hosts
  active        INTEGER NOT NULL DEFAULT 0   -- 1: the crawl has it in memory, with some of its hosts
);
DROP INDEX host_slot;
