-- Version 3: revisits are due apart from retries, so that a budget may hold the one back and not the other.
-- 1: the last visit came to an end (url.state 'done' or 'gave_up'), and next_at is when the next one is due.
ALTER TABLE visit ADD COLUMN ended INTEGER NOT NULL DEFAULT 0;
UPDATE visit SET ended = 1 WHERE url IN (SELECT id FROM url WHERE state IN ('done', 'gave_up'));
DROP INDEX visit_due;
CREATE INDEX visit_due ON visit (next_at) WHERE next_at IS NOT NULL AND ended = 0;
CREATE INDEX visit_again ON visit (next_at) WHERE next_at IS NOT NULL AND ended = 1;
