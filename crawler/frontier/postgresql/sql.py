"""The SQL statements.

Each names the slots of its rows, so that it reads one partition per slot. Lists are bound as arrays. Where one is read
with `unnest`, each of its rows is looked up in an index.
"""

from collections.abc import Sequence
from typing import Any, Final

from crawler.core.models import UNTIL_EVENT
from crawler.core.ownership import SLOT_BITS
from crawler.frontier.base import UrlSelection

_FOREVER: Final = f"{UNTIL_EVENT}::double precision"


def slot_in(id_: str) -> str:
    """The slot of an id, as an expression."""
    return f"({id_} & {(1 << SLOT_BITS) - 1})::smallint"


def _of(table: str, column: str, of: str) -> str:
    """The condition that a row of `table` has the id `of` in `column`, and its slot."""
    return f"{table}.slot = {slot_in(of)} AND {table}.{column} = {of}"


_IDS: Final = "unnest($1::bigint[]) AS one(id)"
# What follows is run for each slot of $1, and reads one partition. (With `slot = ANY`, every partition is searched for
# every slot, and by an index without the slot rows of other agents are read up to the first own one.)
_OF_SLOTS: Final = "unnest($1::smallint[]) AS owned(slot) CROSS JOIN LATERAL"


def _first_of(table: str, columns: str, where: str, order: str, least: int) -> str:
    """The first rows of each slot: four times its share of the $3 that are wanted, and `least`. The first $3 of all
    are among them, unless few slots have most of those.
    """
    limit = f"{least} + 4 * $3::bigint / greatest(1, cardinality($1::smallint[]))"
    return f"""{_OF_SLOTS} (
  SELECT {columns} FROM {table} WHERE slot = owned.slot AND {where} ORDER BY {order} LIMIT {limit}) AS first"""


# -- the agent

HAS_TABLES: Final = """
SELECT EXISTS (
  SELECT 1 FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = current_schema()::regnamespace
    AND relname <> 'crawler_version')"""
BACKEND: Final = "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()"
END_BACKEND: Final = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND backend_start = $2"
TRY_LOCK: Final = "SELECT pg_try_advisory_lock($1::integer, hashtext($2::text) | 1)"
OWNER: Final = "SELECT process FROM agent WHERE name = $1"
TAKE_AGENT: Final = """
INSERT INTO agent (name, incarnation, process, has_left, rules, lease_s) VALUES ($1, 1, $2, false, $3, $4)
ON CONFLICT (name) DO UPDATE SET incarnation = agent.incarnation + 1, process = excluded.process, has_left = false,
  renewal = agent.renewal + 1, renewed_at = clock_timestamp(), status = NULL,
  rules = excluded.rules, lease_s = excluded.lease_s
RETURNING incarnation"""
OTHER_RULES: Final = """
SELECT name, incarnation, renewal, lease_s, rules = $2 FROM agent
WHERE name <> $1 AND NOT has_left AND (rules <> $2 OR lease_s <> $3) ORDER BY name LIMIT 1"""
LEAVE: Final = "UPDATE agent SET has_left = true WHERE name = $1 AND incarnation = $2"
FENCE: Final = "SELECT 1 FROM agent WHERE name = $1 AND incarnation = $2 FOR KEY SHARE"
RENEW: Final = """
UPDATE agent SET renewal = renewal + 1, renewed_at = clock_timestamp(), status = $3
WHERE name = $1 AND incarnation = $2 RETURNING renewal"""
# Fails to find a row if the agent has renewed its lease or was started again since.
DISOWN: Final = """
UPDATE agent SET incarnation = incarnation + 1, has_left = true WHERE name = $1 AND incarnation = $2 AND renewal = $3
RETURNING incarnation"""
NAME_SESSION: Final = "SELECT set_config('application_name', $1, false)"
END_BACKENDS: Final = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1 AND datname = current_database()
  AND EXISTS (SELECT 1 FROM agent WHERE name = $2 AND incarnation = $3 AND renewal = $4)"""
# All that an agent looks at, in one statement: agents, and in each row the same free slots, rows and URLs of the inbox.
AGENTS: Final = """
SELECT agent.name, agent.incarnation, agent.renewal, agent.has_left,
       (SELECT count(*) FROM slot WHERE slot.agent = agent.name AND NOT is_free),
       ARRAY (SELECT id FROM slot WHERE is_free), (SELECT count(*) FROM inbox),
       (SELECT coalesce(sum(number), 0)::bigint FROM inbox)
FROM agent ORDER BY name"""
OWN_SLOTS: Final = "SELECT id FROM slot WHERE agent = $1 AND NOT is_free"
HOLD_SLOTS: Final = "UPDATE slot SET incarnation = $2, epoch = epoch + 1 WHERE agent = $1 AND NOT is_free"
# The slots that were free, and whether their last owner was the agent itself.
TAKE_SLOTS: Final = """
UPDATE slot SET agent = $1, incarnation = $2, epoch = slot.epoch + 1, is_free = false
FROM (SELECT id, agent FROM slot WHERE id = ANY ($3::smallint[]) AND is_free ORDER BY id FOR UPDATE) AS before
WHERE slot.id = before.id RETURNING slot.id, coalesce(before.agent = $1, true), before.agent"""
FREE: Final = "UPDATE slot SET is_free = true WHERE agent = $1 AND id = ANY ($2::smallint[])"
FREE_ALL: Final = "UPDATE slot SET is_free = true WHERE agent = $1"
TOTALS_OF_OTHERS: Final = "SELECT totals, marks FROM settled WHERE agent <> $1"
NOW: Final = "SELECT extract(epoch FROM clock_timestamp())::double precision"
HIGHEST: Final = "SELECT max(last_host), max(last_url), max(schedule_at) FROM settled"
PUT_IN_INBOX: Final = (
    "INSERT INTO inbox (slot, number, urls) SELECT * FROM unnest($1::smallint[], $2::integer[], $3::bytea[])"
)
TAKE_INBOX: Final = "SELECT slot, id, urls FROM inbox WHERE slot = ANY ($1::smallint[]) LIMIT $2"
END_INBOX: Final = """
DELETE FROM inbox USING unnest($1::smallint[], $2::bigint[]) AS one(slot, id)
WHERE inbox.slot = one.slot AND inbox.id = one.id"""
INBOX: Final = "SELECT count(*), coalesce(sum(number), 0)::bigint FROM inbox"
# One look at everything that keeps a crawl from its end.
WHO_IS_IDLE: Final = """
SELECT slot.agent, slot.is_free, bool_and(coalesce(settled.is_idle, false)), count(*), (SELECT count(*) FROM inbox)
FROM slot LEFT JOIN settled ON settled.agent = slot.agent GROUP BY slot.agent, slot.is_free"""
# The agents as people see them; the ages are by the server's clock.
AGENT_VIEWS: Final = """
SELECT agent.name, process, has_left, lease_s, extract(epoch FROM clock_timestamp() - renewed_at)::double precision,
       (SELECT count(*) FROM slot WHERE slot.agent = agent.name AND NOT is_free),
       (SELECT coalesce(sum(number), 0)::bigint FROM inbox JOIN slot ON slot.id = inbox.slot
        WHERE slot.agent = agent.name AND NOT is_free), status
FROM agent ORDER BY has_left, agent.name"""
SLOTS_FREE: Final = "SELECT count(*) FROM slot WHERE is_free"
INBOX_FIRST: Final = (
    "SELECT urls, extract(epoch FROM clock_timestamp())::double precision FROM inbox ORDER BY id LIMIT 1"
)
QUEUED_OF_AGENTS: Final = """
SELECT slot.agent, sum(host.queued)::bigint FROM host JOIN slot ON slot.id = host.slot
WHERE host.has_work AND NOT slot.is_free GROUP BY slot.agent"""
ALL_SETTLED: Final = "SELECT totals, counters, marks FROM settled"
ALLOTTED: Final = "SELECT sum(allotted)::bigint FROM settled"
# What an agent that is gone did not use goes back.
END_ALLOTMENT: Final = """
UPDATE settled SET allotted = least(allotted, coalesce((counters::json ->> 'urls_fetched')::bigint, 0))
WHERE agent = $1"""
SEND: Final = "INSERT INTO command (agent, name, arguments, sent_by) VALUES ($1, $2, $3, $4) RETURNING id"
TAKE_BACK: Final = "DELETE FROM command WHERE id = $1"
END_COMMANDS: Final = "DELETE FROM command WHERE sent_at < now() - interval '7 days'"
COMMANDS: Final = """
SELECT id, name, arguments FROM command WHERE id > $2 AND coalesce(agent = $1, true) ORDER BY id"""
LAST_COMMAND: Final = "SELECT coalesce(max(id), 0) FROM command"
BEHIND: Final = "SELECT id FROM slot WHERE agent = $1 AND NOT is_free AND obeyed < $2"
OBEYED: Final = "SELECT min(obeyed) FROM slot WHERE agent = $1 AND NOT is_free"
ANSWER: Final = """
INSERT INTO answer VALUES ($1, $2, $3) ON CONFLICT (command, agent) DO UPDATE SET result = excluded.result"""
OBEY: Final = """
UPDATE slot SET obeyed = $3 WHERE agent = $1 AND incarnation = $2 AND id = ANY ($4::smallint[]) AND obeyed < $3"""
ANSWERS: Final = "SELECT agent, result FROM answer WHERE command = $1 ORDER BY agent"
# Agents that are connected: they hold the lock of their name.
_LIVES: Final = """NOT has_left AND EXISTS (
  SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = $1::bigint::oid
    AND objid = ((hashtext(name) | 1)::bigint & 4294967295)::oid
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))"""
LIVING: Final = f"SELECT name FROM agent WHERE {_LIVES} ORDER BY name"
# The last of some commands, if an agent that lives is held up by what they do.
LAST_OF: Final = f"""
SELECT name FROM command WHERE name = ANY ($2::text[])
  AND EXISTS (SELECT 1 FROM agent WHERE status::json ->> 'bottleneck' = $3 AND {_LIVES})
ORDER BY id DESC LIMIT 1"""
OTHERS: Final = (
    "SELECT name, incarnation, renewal, lease_s FROM agent WHERE name <> $1 AND NOT has_left ORDER BY name LIMIT 1"
)
PUT_RULES: Final = "UPDATE agent SET rules = $3 WHERE name = $1 AND incarnation = $2"
ADD_SETTLED: Final = "INSERT INTO settled (agent) VALUES ($1) ON CONFLICT DO NOTHING"
SETTLED: Final = """
SELECT number, last_host, last_url, clean, marks, schedule_at, last_visit_at, totals, counters, is_idle, allotted
FROM settled WHERE agent = $1"""
SETTLE: Final = """
UPDATE settled SET incarnation = $2, number = $3, last_host = $4, last_url = $5, clean = $6, marks = $7,
  schedule_at = $8, last_visit_at = $9, totals = $10, counters = $11, is_idle = $12, allotted = $13 WHERE agent = $1"""
LAST_NUMBER: Final = "SELECT number FROM settled WHERE agent = $1 FOR UPDATE"

# -- values of the crawl, output files

VALUE: Final = "SELECT value FROM crawl_value WHERE slot = $1 AND name = $2"
PUT_VALUE: Final = """
INSERT INTO crawl_value VALUES ($1, $2, $3) ON CONFLICT (slot, name) DO UPDATE SET value = excluded.value"""
END_VALUE: Final = "DELETE FROM crawl_value WHERE slot = $1 AND name = $2"
PUT_SINK_FILES: Final = """
INSERT INTO sink_file (agent, sink, name, state, committed_bytes)
SELECT $1, * FROM unnest($2::text[], $3::text[], $4::text[], $5::bigint[])
ON CONFLICT (agent, sink, name) DO UPDATE SET state = excluded.state, committed_bytes = excluded.committed_bytes
RETURNING name, id"""
SINK_FILES: Final = "SELECT sink, name, state, committed_bytes, id FROM sink_file WHERE agent = $1 ORDER BY id"
SET_FILE_STATE: Final = "UPDATE sink_file SET state = $2 WHERE id = $1"
PUT_SCOPE_HOSTS: Final = """
INSERT INTO scope_host SELECT 0, place, $2 FROM unnest($1::text[]) AS place ON CONFLICT DO NOTHING"""
SCOPE_HOSTS: Final = 'SELECT host FROM scope_host WHERE slot = 0 ORDER BY host COLLATE "C"'
BLOCKS: Final = 'SELECT name, kind, at, reason FROM blocked WHERE slot = 0 ORDER BY name COLLATE "C"'
BLOCK_OF: Final = "SELECT name, kind, at, reason FROM blocked WHERE slot = 0 AND name = $1"
BLOCK: Final = """
INSERT INTO blocked VALUES (0, $1, $2, $3, $4)
ON CONFLICT (slot, name) DO UPDATE SET kind = excluded.kind, at = excluded.at, reason = excluded.reason"""
UNBLOCK: Final = "DELETE FROM blocked WHERE slot = 0 AND name = $1"

# -- URLs and visits

URL_COLUMNS: Final = (
    "slot", "id", "host", "hash", "via", "priority", "depth", "redirects", "found_at", "state", "source", "hop_path",
    "kind", "target",
)  # fmt: skip
KNOWN: Final = f"""
SELECT one.n, url.id, url.state
FROM unnest($1::bigint[], $2::bigint[]) WITH ORDINALITY AS one(host, hash, n)
JOIN url ON url.slot = {slot_in("one.host")} AND url.host = one.host AND url.hash = one.hash"""
STATES: Final = f"SELECT url.id, url.host, url.state FROM {_IDS} JOIN url ON {_of('url', 'id', 'one.id')}"
SET_STATES: Final = f"""
UPDATE url SET state = one.state FROM unnest($1::bigint[], $2::text[]) AS one(id, state)
WHERE {_of("url", "id", "one.id")}"""
# In the order of rows.visit_row.
_VISIT_TYPES: Final = (
    ("url", "bigint"), ("next_at", "double precision"), ("attempts", "integer"), ("last_at", "double precision"),
    ("last_status", "integer"), ("last_error", "text"), ("last_rule", "text"), ("etag", "text"),
    ("last_modified", "text"), ("digest", "text"), ("warc_file", "bigint"), ("warc_offset", "bigint"),
    ("ended", "smallint"), ("changed_at", "double precision"), ("change_a", "double precision"),
    ("change_t", "double precision"), ("gone_count", "integer"), ("in_links", "bigint"), ("visits", "integer"),
    ("pages_file", "bigint"),
)  # fmt: skip
_CONTENT: Final = {
    name: f"""CASE WHEN excluded.warc_file IS NULL THEN visit.{name}
    WHEN excluded.digest IS NULL OR excluded.digest = visit.digest THEN coalesce(visit.{name}, visit.{of})
    ELSE NULL END"""
    for name, of in (("content_file", "warc_file"), ("content_offset", "warc_offset"))
}
UPSERT_VISITS: Final = f"""
INSERT INTO visit (slot, {", ".join(name for name, _ in _VISIT_TYPES)})
SELECT {slot_in("one.url")}, one.*
FROM unnest({", ".join(f"${n}::{of}[]" for n, (_, of) in enumerate(_VISIT_TYPES, 1))})
  AS one({", ".join(name for name, _ in _VISIT_TYPES)})
ON CONFLICT (slot, url) DO UPDATE SET
  next_at = excluded.next_at, attempts = excluded.attempts, last_at = excluded.last_at,
  last_status = excluded.last_status, last_error = excluded.last_error, last_rule = excluded.last_rule,
  etag = excluded.etag, last_modified = excluded.last_modified, digest = coalesce(excluded.digest, visit.digest),
  warc_file = coalesce(excluded.warc_file, visit.warc_file),
  warc_offset = coalesce(excluded.warc_offset, visit.warc_offset),
  ended = excluded.ended, visits = visit.visits + excluded.visits,
  changed_at = coalesce(excluded.changed_at, visit.changed_at),
  change_a = coalesce(excluded.change_a, visit.change_a), change_t = coalesce(excluded.change_t, visit.change_t),
  gone_count = coalesce(excluded.gone_count, visit.gone_count),
  in_links = coalesce(excluded.in_links, visit.in_links),
  pages_file = coalesce(excluded.pages_file, visit.pages_file),
  content_file = {_CONTENT["content_file"]},
  content_offset = {_CONTENT["content_offset"]}"""
PUT_HINTS: Final = f"""
INSERT INTO sitemap_hint (slot, url, priority, lastmod, seen_at)
SELECT {slot_in("one.url")}, one.*
FROM unnest($1::bigint[], $2::double precision[], $3::double precision[], $4::double precision[])
  AS one(url, priority, lastmod, seen_at)
ON CONFLICT (slot, url) DO UPDATE SET
  priority = excluded.priority, lastmod = excluded.lastmod, seen_at = excluded.seen_at"""
BRING_FORWARD: Final = f"""
UPDATE visit SET next_at = greatest(visit.last_at + $3, one.now)
FROM unnest($1::bigint[], $2::double precision[], $4::double precision[]) AS one(url, lastmod, now)
WHERE {_of("visit", "url", "one.url")} AND visit.ended = 1 AND one.lastmod > visit.last_at
  AND visit.next_at > greatest(visit.last_at + $3, one.now)"""
DENY: Final = f"""
INSERT INTO visit (slot, url, last_at, last_error, last_rule)
SELECT {slot_in("one.url")}, one.url, $2, one.error, one.rule
FROM unnest($1::bigint[], $3::text[], $4::text[]) AS one(url, error, rule)
ON CONFLICT (slot, url) DO UPDATE SET
  last_at = excluded.last_at, last_error = excluded.last_error, last_rule = excluded.last_rule"""
TAKE: Final = """
SELECT u.id, u.priority, u.depth, u.target, u.source, u.hop_path, u.redirects, u.via, u.kind, v.attempts, v.etag,
       v.last_modified, v.visits, v.last_at, v.digest, v.changed_at, v.change_a, v.change_t, v.gone_count, v.in_links,
       s.url IS NOT NULL AS is_hinted, s.priority AS hint_priority, s.lastmod
FROM url AS u
LEFT JOIN visit AS v ON v.slot = u.slot AND v.url = u.id
LEFT JOIN sitemap_hint AS s ON s.slot = u.slot AND s.url = u.id
WHERE u.slot = $1 AND u.host = $2 AND u.state = 'queued' AND u.id <> ALL ($3::bigint[])
ORDER BY u.priority, u.depth, u.id LIMIT $4"""
# Origin and target of URLs.
ADDRESSES: Final = f"""
SELECT url.id, host.scheme, host.host, host.port, url.target
FROM {_IDS} JOIN url ON {_of("url", "id", "one.id")} JOIN host ON {_of("host", "id", "url.host")}"""
ORIGINS: Final = f"SELECT host.id, scheme, host.host, port FROM {_IDS} JOIN host ON {_of('host', 'id', 'one.id')}"

# -- hosts

HOST_COLUMNS: Final = (
    "slot", "id", "scheme", "host", "port", "domain", "found_at", "key", "queued", "suspects", "has_work", "ready_at",
)  # fmt: skip
HOST_IDS_OF: Final = """
SELECT one.n, host.id
FROM unnest($1::smallint[], $2::text[], $3::text[], $4::integer[]) WITH ORDINALITY AS one(slot, host, scheme, port, n)
JOIN host ON host.slot = one.slot AND host.host = one.host AND host.scheme = one.scheme AND host.port = one.port"""
KNOWN_HOSTS: Final = f"SELECT host.id FROM {_IDS} JOIN host ON {_of('host', 'id', 'one.id')}"
_WAKES: Final = "(one.queued > 0 AND host.parked = 'traps') OR (one.again > 0 AND host.parked = 'limit')"
ADD_TO_HOSTS: Final = f"""
UPDATE host SET
  queued = host.queued + one.queued, fetched = host.fetched + one.fetched, ok = host.ok + one.ok,
  errors = host.errors + one.errors, bytes = host.bytes + one.bytes,
  last_at = greatest(one.last_at, host.last_at), suspects = host.suspects + one.suspects,
  has_work = host.queued + one.queued + host.suspects + one.suspects > 0,
  parked = CASE WHEN {_WAKES} THEN NULL ELSE host.parked END,
  ready_at = CASE WHEN {_WAKES} THEN $10
    WHEN one.queued + one.suspects > 0 AND host.queued + host.suspects = 0 THEN greatest(host.ready_at, $10)
    ELSE host.ready_at END
FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::double precision[],
            $8::bigint[], $9::bigint[]) AS one(id, queued, fetched, ok, errors, bytes, last_at, suspects, again)
WHERE {_of("host", "id", "one.id")}
RETURNING host.id, host.queued, host.suspects, host.key"""
HOSTS: Final = """
SELECT h.id, h.scheme, h.host, h.port, h.slot, h.queued, h.fetched, h.last_at, h.suspects > 0, h.ready_at, h.parked,
       h.failures, h.reason, h.responded, r.verdict, r.status_code, NULL, r.fetched_at, r.expires_at,
       r.crawl_delay_s, r.failing_since, r.error
FROM {} LEFT JOIN robots AS r ON r.slot = h.slot AND r.host = h.id {}"""
HOSTS_NAMED: Final = HOSTS.format("host AS h", "WHERE h.slot = $1 AND h.host = $2 ORDER BY h.id")
HOSTS_AFTER: Final = HOSTS.format(
    "(SELECT * FROM host WHERE slot = ANY ($1::smallint[]) AND id > $2 ORDER BY id LIMIT $3) AS h", "ORDER BY h.id"
)
HOSTS_WITH_WORK: Final = HOSTS.format(
    "(SELECT * FROM host WHERE slot = ANY ($1::smallint[]) AND id > $2 AND has_work ORDER BY id LIMIT $3) AS h",
    "ORDER BY h.id",
)
HOSTS_OF_IDS: Final = HOSTS.format(f"{_IDS} JOIN host AS h ON {_of('h', 'id', 'one.id')}", "ORDER BY h.id")
_SEARCH: Final = """
WITH matching AS MATERIALIZED (
  SELECT h.id, h.host, h.queued, h.fetched, s.state
  FROM host AS h LEFT JOIN robots AS r ON r.slot = h.slot AND r.host = h.id
  CROSS JOIN LATERAL (SELECT CASE WHEN h.parked = 'blocked' THEN 'blocked'
    WHEN h.parked = 'robots' OR r.verdict = 'unreachable' THEN 'held'
    WHEN h.parked = 'backoff' AND h.ready_at > $6 THEN 'backoff'
    WHEN r.verdict IS NULL AND h.responded = 0 THEN 'new'
    ELSE 'ready' END AS state) AS s
  WHERE h.slot = ANY ($1::smallint[]) AND h.id > $2 AND h.id <= $3
    AND (strpos(h.host, $4) > 0 OR (strpos($4, ':') > 0 AND strpos(
      h.scheme || '://' || h.host
        || CASE WHEN h.port = CASE h.scheme WHEN 'https' THEN 443 ELSE 80 END THEN '' ELSE ':' || h.port END, $4) > 0))
    AND h.id <> ALL ($7::bigint[]) AND s.state = ANY ($5::text[]))
SELECT (SELECT count(*) FROM matching), ARRAY (SELECT id FROM matching ORDER BY {order} LIMIT $8)"""
SEARCH: Final = {
    order: _SEARCH.format(order=columns)
    for order, columns in (
        ("broken", "CASE state WHEN 'held' THEN 0 WHEN 'backoff' THEN 1 WHEN 'blocked' THEN 2 ELSE 3 END, queued DESC"),
        ("queued", "queued DESC, id"),
        ("fetched", "fetched DESC, id"),
        ("host", 'host COLLATE "C", id'),
    )
}
# A slice of all names: those that end with $4, and the last id of the slice.
NAMES_BELOW: Final = """
SELECT id, host, right(host, length($4)) = $4
FROM (SELECT id, host FROM host WHERE slot = ANY ($1::smallint[]) AND id > $2 ORDER BY id LIMIT $3) AS slice
WHERE right(host, length($4)) = $4 OR id = (
  SELECT max(id)
  FROM (SELECT id FROM host WHERE slot = ANY ($1::smallint[]) AND id > $2 ORDER BY id LIMIT $3) AS every)"""
# The index has all that are parked; by the slots, all hosts would be read.
PARKED_COUNTS: Final = """
WITH every AS MATERIALIZED (SELECT slot, parked, queued FROM host WHERE parked IS NOT NULL)
SELECT parked, count(*), sum(queued)::bigint FROM every
WHERE slot = ANY ($1::smallint[]) AND queued > 0 GROUP BY parked"""


LAST_HOST_ID: Final = "SELECT id FROM host WHERE slot = ANY ($1::smallint[]) ORDER BY id DESC LIMIT 1"
# $2: an id before all with the last sequence number.
LAST_URL_ID: Final = "SELECT max(id) FROM url WHERE slot = ANY ($1::smallint[]) AND id >= $2"

# -- robots.txt and re-evaluation

ROBOTS_BEFORE: Final = f"""
SELECT one.id, robots.crawl_delay_s, last.digest, last.number, reevaluation.mark
FROM {_IDS}
LEFT JOIN robots ON {_of("robots", "host", "one.id")}
LEFT JOIN reevaluation ON {_of("reevaluation", "host", "one.id")}
LEFT JOIN LATERAL (
  SELECT digest, number FROM robots_version WHERE {_of("robots_version", "host", "one.id")}
  ORDER BY number DESC LIMIT 1) AS last ON true"""
PUT_ROBOTS: Final = f"""
INSERT INTO robots
SELECT {slot_in("one.host")}, one.*
FROM unnest($1::bigint[], $2::text[], $3::integer[], $4::bytea[], $5::double precision[], $6::double precision[],
            $7::double precision[], $8::double precision[], $9::text[])
  AS one(host, verdict, status_code, body, fetched_at, expires_at, crawl_delay_s, failing_since, error)
ON CONFLICT (slot, host) DO UPDATE SET
  body = CASE WHEN excluded.verdict = 'rules' THEN coalesce(excluded.body, robots.body) END,
  verdict = excluded.verdict, status_code = excluded.status_code, fetched_at = excluded.fetched_at,
  expires_at = excluded.expires_at, crawl_delay_s = excluded.crawl_delay_s, failing_since = excluded.failing_since,
  error = excluded.error"""
SET_HOST_STATES: Final = f"""
UPDATE host SET state = one.state FROM unnest($1::bigint[], $2::text[]) AS one(id, state)
WHERE {_of("host", "id", "one.id")} AND host.state <> one.state"""
# $1: hosts whose delay grew, $2: their delays.
RAISE_CRAWL_DELAYS: Final = f"""
UPDATE politeness_key SET crawl_delay_s = greatest(politeness_key.crawl_delay_s, one.delay_s)
FROM (SELECT host.slot, host.key, max(one.delay_s) AS delay_s
      FROM unnest($1::bigint[], $2::double precision[]) AS one(id, delay_s)
      JOIN host ON {_of("host", "id", "one.id")} GROUP BY host.slot, host.key) AS one
WHERE politeness_key.slot = one.slot AND politeness_key.id = one.key
  AND greatest(politeness_key.crawl_delay_s, one.delay_s) IS DISTINCT FROM politeness_key.crawl_delay_s"""
COMPUTE_CRAWL_DELAYS: Final = f"""
UPDATE politeness_key SET crawl_delay_s = (
  SELECT max(robots.crawl_delay_s) FROM host JOIN robots ON robots.slot = host.slot AND robots.host = host.id
  WHERE host.slot = politeness_key.slot AND host.key = politeness_key.id)
FROM (SELECT DISTINCT host.slot, host.key FROM {_IDS} JOIN host ON {_of("host", "id", "one.id")}) AS one
WHERE politeness_key.slot = one.slot AND politeness_key.id = one.key"""
ADD_ROBOTS_VERSIONS: Final = f"""
INSERT INTO robots_version
SELECT {slot_in("one.host")}, one.*
FROM unnest($1::bigint[], $2::bigint[], $3::double precision[], $4::integer[], $5::text[], $6::text[], $7::bytea[])
  AS one(host, number, fetched_at, status_code, verdict, digest, body)"""
CUT_ROBOTS_VERSIONS: Final = f"""
DELETE FROM robots_version USING unnest($1::bigint[], $2::bigint[]) AS one(host, number)
WHERE {_of("robots_version", "host", "one.host")} AND robots_version.number <= one.number - $3"""
MARK_HOSTS: Final = f"""
INSERT INTO reevaluation SELECT DISTINCT {slot_in("one.id")}, one.id, 1 FROM {_IDS}
ON CONFLICT (slot, host) DO UPDATE SET mark = reevaluation.mark + 1"""
REEVALUATION_MARK: Final = "SELECT mark FROM reevaluation WHERE slot = $1 AND host = $2"
REEVALUATED: Final = "DELETE FROM reevaluation WHERE slot = $1 AND host = $2 AND mark = $3"
MARKED_HOSTS: Final = """
SELECT host FROM reevaluation WHERE slot = ANY ($1::smallint[]) AND (slot, host) > ($2::smallint, $3::bigint)
ORDER BY slot, host LIMIT $4"""
ROBOTS_OF: Final = """
SELECT verdict, status_code, body, fetched_at, expires_at, crawl_delay_s, failing_since, error
FROM host JOIN robots ON robots.slot = host.slot AND robots.host = host.id
WHERE host.slot = $1 AND host.host = $2 AND host.scheme = $3 AND host.port = $4"""
ROBOTS_BODY: Final = "SELECT body FROM robots WHERE slot = $1 AND host = $2"
ROBOTS_VERSIONS: Final = """
SELECT fetched_at, status_code, verdict, digest, body FROM robots_version
WHERE slot = $1 AND host = $2 ORDER BY number DESC"""

# -- templates and suspects

PUT_SAMPLES: Final = f"""
INSERT INTO sampled_page SELECT {slot_in("one.url")}, one.* FROM unnest($1::bigint[], $2::bigint[], $3::bytea[])
  AS one(url, host, words)
ON CONFLICT (slot, url) DO UPDATE SET host = excluded.host, words = excluded.words"""
ADD_TO_TEMPLATES: Final = f"""
INSERT INTO url_template (slot, host, template, pages)
SELECT {slot_in("one.host")}, one.* FROM unnest($1::bigint[], $2::text[], $3::bigint[]) AS one(host, template, pages)
ON CONFLICT (slot, host, template) DO UPDATE SET pages = url_template.pages + excluded.pages"""
PUT_TEMPLATES: Final = f"""
INSERT INTO url_template (slot, host, template, spent, good, since_at, released_at)
SELECT {slot_in("one.host")}, one.*
FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::bigint[], $5::double precision[], $6::double precision[])
  AS one(host, template, spent, good, since_at, released_at)
ON CONFLICT (slot, host, template) DO UPDATE SET
  spent = excluded.spent, good = excluded.good, since_at = excluded.since_at, released_at = excluded.released_at"""
SAMPLES: Final = """
SELECT url.target, sampled_page.words
FROM sampled_page JOIN url ON url.slot = sampled_page.slot AND url.id = sampled_page.url
WHERE sampled_page.slot = $1 AND sampled_page.host = $2 AND url.state <> 'forgotten'"""
TEMPLATES: Final = """
SELECT host, template, pages, spent, good, since_at, released_at FROM url_template WHERE slot = $1 AND host = $2"""
PUT_SUSPECTS: Final = f"""
INSERT INTO suspect SELECT {slot_in("one.url")}, one.url, one.host, one.template
FROM unnest($1::bigint[], $2::bigint[], $3::text[]) AS one(url, host, template)
ON CONFLICT (slot, url) DO UPDATE SET template = excluded.template"""
END_SUSPECTS: Final = f"DELETE FROM suspect USING {_IDS} WHERE {_of('suspect', 'url', 'one.id')}"
SUSPECTS_OF: Final = """
SELECT url FROM suspect WHERE slot = $1 AND host = $2 AND template = $3 ORDER BY url LIMIT $4"""
SUSPECTS_OF_HOST: Final = """
SELECT host, template, count(*) FROM suspect WHERE slot = $1 AND host = $2 GROUP BY host, template"""
ERROR_PAGE_HOSTS: Final = "SELECT DISTINCT host FROM suspect WHERE slot = ANY ($1::smallint[]) AND template = $2"
SUSPECTS: Final = """
SELECT host, template, count(*), (array_agg(url ORDER BY url))[:2] FROM suspect
WHERE slot = ANY ($1::smallint[]) GROUP BY host, template ORDER BY 3 DESC, 1, template COLLATE "C" LIMIT $2"""
LINKED_SUSPECTS: Final = f"""
SELECT DISTINCT url.id, url.host
FROM unnest($1::bigint[], $2::bigint[]) AS one(host, hash)
JOIN url ON url.slot = {slot_in("one.host")} AND url.host = one.host AND url.hash = one.hash
JOIN suspect ON suspect.slot = url.slot AND suspect.url = url.id
WHERE suspect.template = $3"""

# -- due times


def _due(ended: int) -> str:
    first = _first_of("visit", "slot, url, next_at", f"next_at <= $2 AND ended = {ended}", "next_at, url", 64)
    return f"""
SELECT v.url, u.host, u.state
FROM (SELECT first.* FROM {first} ORDER BY next_at, url LIMIT $3) AS v
JOIN url AS u ON u.slot = v.slot AND u.id = v.url ORDER BY v.next_at, v.url"""


DUE_FIRST: Final = _due(0)
DUE_AGAIN: Final = _due(1)
NOT_DUE: Final = f"UPDATE visit SET next_at = NULL, ended = 0 FROM {_IDS} WHERE {_of('visit', 'url', 'one.id')}"
START_OVER: Final = (
    f"UPDATE visit SET next_at = NULL, ended = 0, attempts = 0 FROM {_IDS} WHERE {_of('visit', 'url', 'one.id')}"
)
START_AGAIN: Final = f"""
UPDATE visit SET next_at = NULL, ended = 0, attempts = CASE WHEN visits > 0 THEN 0 ELSE least(attempts, 1) END
FROM {_IDS} WHERE {_of("visit", "url", "one.id")}"""
NO_ERROR: Final = f"""
UPDATE visit SET last_error = NULL, last_rule = NULL FROM {_IDS} WHERE {_of("visit", "url", "one.id")}"""
NOTHING_HELD: Final = f"""
UPDATE visit SET etag = NULL, last_modified = NULL, digest = NULL FROM {_IDS} WHERE {_of("visit", "url", "one.id")}"""
RETRY_NOW: Final = """
UPDATE visit SET next_at = $2
WHERE slot = ANY ($1::smallint[]) AND next_at > $2 AND ended = 0 AND last_error = ANY ($3::text[]) AND last_at >= $4"""
REDATE: Final = """
UPDATE visit SET next_at = next_at - (last_at - $2), last_at = $2
WHERE slot = ANY ($1::smallint[]) AND next_at > $3 AND ended = {} AND last_at > $2"""
REDATE_WAITING: Final = REDATE.format(0)
REDATE_REVISITS: Final = REDATE.format(1)
NEXT_DUE: Final = f"""
SELECT min(next_at) FROM {_OF_SLOTS} (
  SELECT next_at FROM visit WHERE slot = owned.slot AND next_at IS NOT NULL AND ended = {{}} ORDER BY next_at LIMIT 1
) AS first"""
NEXT_FIRST: Final = NEXT_DUE.format(0)
NEXT_AGAIN: Final = NEXT_DUE.format(1)
_URL_TEXT: Final = """h.scheme || '://' || h.host
    || CASE WHEN h.port = CASE h.scheme WHEN 'https' THEN 443 ELSE 80 END THEN '' ELSE ':' || h.port END || u.target"""
_VISITED: Final = f"""
FROM {_OF_SLOTS} (
  SELECT * FROM visit WHERE slot = owned.slot AND url > $2 AND url <= $3 AND ended = 1 OFFSET 0) AS v
JOIN url AS u ON u.slot = v.slot AND u.id = v.url JOIN host AS h ON h.slot = u.slot AND h.id = u.host
LEFT JOIN sitemap_hint AS s ON s.slot = v.slot AND s.url = v.url
WHERE true"""
VISITED_PAGES: Final = f"""
SELECT {_URL_TEXT}, u.depth, coalesce(v.in_links, 0), s.priority, v.change_a, v.change_t
{_VISITED} AND coalesce(v.gone_count, 0) = 0 AND u.kind IS NULL ORDER BY v.url"""
UNDATED: Final = f"""
SELECT u.id, {_URL_TEXT}, u.kind, u.depth, coalesce(v.in_links, 0), s.priority, v.change_a, v.change_t,
       coalesce(v.gone_count, 0), v.last_at, u.state
{_VISITED} AND v.next_at IS NULL AND u.state IN ('done', 'gave_up') ORDER BY v.url"""
PUT_DATES: Final = f"""
UPDATE visit SET next_at = one.next_at
FROM unnest($1::bigint[], $2::double precision[]) AS one(id, next_at) JOIN url ON {_of("url", "id", "one.id")}
WHERE {_of("visit", "url", "one.id")} AND visit.ended = 1 AND visit.next_at IS NULL
  AND url.state IN ('done', 'gave_up')"""
IN_FILE: Final = """
SELECT v.url, u.host, u.state FROM visit AS v JOIN url AS u ON u.slot = v.slot AND u.id = v.url
WHERE v.slot = ANY ($1::smallint[]) AND v.url > $2 AND v.url <= $3
  AND (v.warc_file = $4 OR v.content_file = $4 OR v.pages_file = $4) AND u.state <> 'forgotten' ORDER BY v.url"""

# -- readiness of hosts and politeness keys


def _first_ready(open_at: str) -> str:
    """When a key has work that opens at `open_at`; NULL if none of its hosts has any."""
    first = """(SELECT min(host.ready_at) FROM host
      WHERE host.slot = politeness_key.slot AND host.key = politeness_key.id AND host.has_work)"""
    return f"CASE WHEN {first} < {_FOREVER} THEN greatest({first}, {open_at}) END"


END_ACTIVITY: Final = f"""
UPDATE politeness_key SET active = false, ready_at = {_first_ready("politeness_key.open_at")}
WHERE slot = ANY ($1::smallint[]) AND active"""
ADD_KEYS: Final = f"""
INSERT INTO politeness_key (slot, id) SELECT {slot_in("one.id")}, one.id FROM {_IDS} ON CONFLICT DO NOTHING"""
PUT_NEW_KEYS: Final = f"""
INSERT INTO politeness_key (slot, id, ready_at)
SELECT {slot_in("one.id")}, one.* FROM unnest($1::bigint[], $2::double precision[]) AS one(id, ready_at)
ON CONFLICT (slot, id) DO UPDATE SET
  ready_at = least(politeness_key.ready_at, greatest(politeness_key.open_at, excluded.ready_at))
  WHERE NOT politeness_key.active AND excluded.ready_at IS NOT NULL"""
LEAVE_KEYS: Final = f"""
UPDATE politeness_key SET
  active = false, requested_at = coalesce(one.requested_at, politeness_key.requested_at),
  open_at = CASE WHEN one.requested_at IS NULL THEN greatest(one.open_at, politeness_key.open_at)
    ELSE greatest(one.open_at, 0) END,
  ready_at = {_first_ready("one.open_at")}
FROM unnest($1::bigint[], $2::double precision[], $3::double precision[]) AS one(id, requested_at, open_at)
WHERE {_of("politeness_key", "id", "one.id")}"""
PUT_READINESS: Final = f"""
UPDATE host SET
  ready_at = CASE WHEN one.parked IN ('limit', 'traps') AND host.queued <> one.queued THEN 0 ELSE one.ready_at END,
  parked = CASE WHEN one.parked IN ('limit', 'traps') AND host.queued <> one.queued THEN NULL ELSE one.parked END,
  failures = one.failures, reason = one.reason, responded = one.responded
FROM unnest($1::bigint[], $2::double precision[], $3::text[], $4::integer[], $5::text[], $6::smallint[], $7::bigint[])
  AS one(id, ready_at, parked, failures, reason, responded, queued)
WHERE {_of("host", "id", "one.id")}"""
PUT_REQUESTED: Final = f"""
UPDATE politeness_key SET requested_at = greatest(politeness_key.requested_at, one.at)
FROM unnest($1::bigint[], $2::double precision[]) AS one(id, at) WHERE {_of("politeness_key", "id", "one.id")}"""
WAKE_KEYS: Final = f"""
UPDATE politeness_key SET ready_at = least(politeness_key.ready_at, greatest(politeness_key.open_at, woken.at))
FROM (SELECT host.slot, host.key, min(host.ready_at) AS at FROM {_IDS} JOIN host ON {_of("host", "id", "one.id")}
      WHERE host.has_work AND host.ready_at < {_FOREVER} GROUP BY host.slot, host.key) AS woken
WHERE politeness_key.slot = woken.slot AND politeness_key.id = woken.key AND NOT politeness_key.active
  AND least(politeness_key.ready_at, greatest(politeness_key.open_at, woken.at))
    IS DISTINCT FROM politeness_key.ready_at"""
READY_KEYS: Final = f"""
SELECT id FROM {_first_of("politeness_key", "id, ready_at", "ready_at <= $2", "ready_at", 8)}
ORDER BY ready_at LIMIT $3"""
NEXT_READY: Final = f"""
SELECT min(ready_at) FROM {_OF_SLOTS} (
  SELECT ready_at FROM politeness_key WHERE slot = owned.slot AND ready_at IS NOT NULL ORDER BY ready_at LIMIT 1
) AS first"""
KEYS: Final = f"""
SELECT k.id, k.requested_at, k.open_at, k.crawl_delay_s
FROM {_IDS} JOIN politeness_key AS k ON {_of("k", "id", "one.id")}"""
ACTIVE_KEYS: Final = f"""
SELECT k.id FROM {_IDS} JOIN politeness_key AS k ON {_of("k", "id", "one.id")} WHERE k.active"""
ACTIVATE_KEYS: Final = f"""
UPDATE politeness_key SET active = true, ready_at = NULL FROM {_IDS} WHERE {_of("politeness_key", "id", "one.id")}"""
ENTER_HOSTS: Final = f"""
UPDATE host SET parked = NULL, ready_at = CASE WHEN ready_at < {_FOREVER} THEN ready_at ELSE 0 END
FROM {_IDS} WHERE {_of("host", "id", "one.id")}"""
# Of each key its first $3 hosts but those of $2.
READY_HOSTS: Final = HOSTS.replace("SELECT h.id", "SELECT one.id, h.id").format(
    f"""unnest($1::bigint[]) WITH ORDINALITY AS one(id, n) CROSS JOIN LATERAL (
  SELECT * FROM host WHERE {_of("host", "key", "one.id")} AND has_work AND ready_at < {_FOREVER}
    AND host.id <> ALL ($2::bigint[]) ORDER BY ready_at LIMIT $3) AS h""",
    "ORDER BY one.n, h.ready_at",
)
BACKOFFS_OF: Final = """
SELECT backoff.key, until_at, failures, reason FROM unnest($1::smallint[], $2::text[]) AS one(slot, key)
JOIN backoff ON backoff.slot = one.slot AND backoff.key = one.key"""
PUT_BACKOFFS: Final = """
INSERT INTO backoff SELECT * FROM unnest($1::smallint[], $2::text[], $3::double precision[], $4::integer[], $5::text[])
ON CONFLICT (slot, key) DO UPDATE SET
  until_at = excluded.until_at, failures = excluded.failures, reason = excluded.reason"""
END_BACKOFFS: Final = """
DELETE FROM backoff USING unnest($1::smallint[], $2::text[]) AS one(slot, key)
WHERE backoff.slot = one.slot AND backoff.key = one.key"""
COUNT_BACKOFFS: Final = "SELECT count(*) FROM backoff WHERE slot = ANY ($1::smallint[])"
SLOW_RESPONSES_OF: Final = """
SELECT slow.key, response_s FROM unnest($1::smallint[], $2::text[]) AS one(slot, key)
JOIN slow_response AS slow ON slow.slot = one.slot AND slow.key = one.key"""
PUT_SLOW_RESPONSES: Final = """
INSERT INTO slow_response
SELECT * FROM unnest($1::smallint[], $2::text[], $3::double precision[], $4::double precision[])
ON CONFLICT (slot, key) DO UPDATE SET response_s = excluded.response_s, updated_at = excluded.updated_at"""
END_SLOW_RESPONSES: Final = """
DELETE FROM slow_response AS slow USING unnest($1::smallint[], $2::text[]) AS one(slot, key)
WHERE slow.slot = one.slot AND slow.key = one.key"""
PARKED: Final = """
SELECT id FROM host WHERE slot = ANY ($1::smallint[]) AND parked = $2 AND id > $3 ORDER BY id LIMIT $4"""
PARKED_OF: Final = f"""
SELECT host.id FROM {_IDS} JOIN host ON {_of("host", "id", "one.id")} WHERE host.parked = $2
ORDER BY host.id LIMIT $3"""
UNPARK: Final = f"UPDATE host SET ready_at = $2, parked = NULL FROM {_IDS} WHERE {_of('host', 'id', 'one.id')}"
HOST_NAMES: Final = """
SELECT id, host FROM host WHERE slot = ANY ($1::smallint[]) AND id > $2 ORDER BY id LIMIT $3"""
PUT_HOST_KEYS: Final = f"""
UPDATE host SET key = one.key FROM unnest($1::bigint[], $2::bigint[]) AS one(id, key)
WHERE {_of("host", "id", "one.id")}"""
MAKE_KEYS: Final = (
    "DELETE FROM politeness_key WHERE slot = ANY ($1::smallint[])",
    f"""INSERT INTO politeness_key (slot, id, ready_at, crawl_delay_s)
        SELECT host.slot, host.key, min(CASE WHEN has_work AND ready_at < {_FOREVER} THEN ready_at END),
               max(crawl_delay_s)
        FROM host LEFT JOIN robots ON robots.slot = host.slot AND robots.host = host.id
        WHERE host.slot = ANY ($1::smallint[]) GROUP BY host.slot, host.key""",
)

# -- requeue, takedowns

_SETTLED_URLS: Final = """
SELECT v.url, u.host FROM {of} JOIN url AS u ON u.slot = v.slot AND u.id = v.url
WHERE {where} AND u.state NOT IN ('queued', 'forgotten'){more} ORDER BY v.url"""


def settled(selection: UrlSelection, *, by_ids: bool) -> tuple[str, tuple[Any, ...]]:
    """The statement that selects URLs by their last visit, and its values after the first: of a list of ids, or after
    the slots ($1) of a range ($2, $3).
    """
    more = ""
    values: list[Any] = []
    first = 2 if by_ids else 4
    wanted: Sequence[tuple[str, Sequence[Any] | None]] = (
        ("v.last_error = ANY (${}::text[])", selection.errors or None),
        ("v.last_status = ANY (${}::integer[]) AND u.state <> 'denied'", selection.statuses or None),
        ("u.host = ANY (${}::bigint[])", selection.host_ids),
        ("u.state = ANY (${}::text[])", selection.states or None),
    )
    for condition, choice in wanted:
        if choice is not None:
            more += " AND " + condition.format(first + len(values))
            values.append(list(choice))
    if selection.not_visited is not None:
        more += f" AND v.last_at NOT BETWEEN ${first + len(values)} AND ${first + len(values) + 1}"
        values += selection.not_visited
    if by_ids:
        of, where = f"{_IDS} JOIN visit AS v ON {_of('v', 'url', 'one.id')}", "true"
    else:
        of, where = "visit AS v", "v.slot = ANY ($1::smallint[]) AND v.url > $2 AND v.url <= $3"
    return _SETTLED_URLS.format(of=of, where=where, more=more), tuple(values)


IDS_OF_HOST_NAME: Final = "SELECT id FROM host WHERE slot = $1 AND host = $2 ORDER BY id"
URLS_OF_HOST: Final = """
SELECT id, hash, state FROM url WHERE slot = $1 AND host = $2 AND hash > $3 ORDER BY hash LIMIT $4"""
PUT_FORGOTTEN_HOST: Final = "INSERT INTO forgotten_host VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"
FORGOTTEN_HOSTS: Final = "SELECT host FROM forgotten_host WHERE slot = ANY ($1::smallint[])"
FORGOTTEN_AT: Final = "SELECT at FROM forgotten_host WHERE slot = $1 AND host = $2"
LEGACY_MARKS: Final = "SELECT host, hash FROM legacy_mark WHERE slot = ANY ($1::smallint[])"
PUT_TAKEDOWNS: Final = """
INSERT INTO takedown (slot, warc_file, warc_offset, url, at)
SELECT * FROM unnest($1::smallint[], $2::text[], $3::bigint[], $4::text[], $5::double precision[])
ON CONFLICT DO NOTHING"""
LIST_TAKEDOWNS: Final = f"""
INSERT INTO takedown (slot, warc_file, warc_offset, url, at)
SELECT u.slot, f.name, v.warc_offset, {_URL_TEXT}, $2
FROM {_IDS} JOIN url AS u ON {_of("u", "id", "one.id")} JOIN host AS h ON h.slot = u.slot AND h.id = u.host
JOIN visit AS v ON v.slot = u.slot AND v.url = u.id JOIN sink_file AS f ON f.id = v.warc_file
WHERE v.warc_offset IS NOT NULL
ON CONFLICT DO NOTHING"""
TAKEDOWNS: Final = (
    "SELECT url, warc_file, warc_offset, at FROM takedown WHERE slot = ANY ($1::smallint[]) ORDER BY number"
)
ERASE_URLS: Final = (
    f"UPDATE url SET state = 'forgotten', target = '', via = NULL FROM {_IDS} WHERE {_of('url', 'id', 'one.id')}",
    *(
        f"DELETE FROM {table} USING {_IDS} WHERE {_of(table, 'url', 'one.id')}"
        for table in ("visit", "sitemap_hint", "sampled_page", "suspect")
    ),
)
PUT_FORGOTTEN_VISITS: Final = f"""
INSERT INTO visit (slot, url, last_at, last_error) SELECT {slot_in("one.id")}, one.id, $2, $3 FROM {_IDS}"""
ERASE_HOST: Final = (
    *(
        f"DELETE FROM {table} WHERE slot = $1 AND host = $2"
        for table in ("robots", "robots_version", "url_template", "sampled_page", "suspect")
    ),
    "UPDATE host SET state = 'new' WHERE slot = $1 AND id = $2",
)
URL_ROWS: Final = """
SELECT u.host, u.id, u.target, u.priority, u.depth, u.hop_path, u.source, v.last_error
FROM (SELECT * FROM url
      WHERE slot = ANY ($1::smallint[]) AND state = '{}' AND host <= $2
        AND (host, priority, depth, id) > ($3::bigint, $4::integer, $5::integer, $6::bigint)
      ORDER BY host, priority, depth, id LIMIT $7) AS u
LEFT JOIN visit AS v ON v.slot = u.slot AND v.url = u.id ORDER BY u.host, u.priority, u.depth, u.id"""
URL_ROWS_QUEUED: Final = URL_ROWS.format("queued")
URL_ROWS_DENIED: Final = URL_ROWS.format("denied")
