"""The SQL statements. Queries that run beside a busy event loop return one JSON value, not rows (`Database.get`)."""

from typing import Any, Final, NamedTuple

import orjson

from crawler.frontier.base import UrlSelection


class ManyRows(NamedTuple):
    """A statement for many rows: `head VALUES (…), (…) … tail`, with `width` values a row."""

    width: int
    head: str
    tail: str = ""


# -- URLs, visits and hosts

INSERT_URLS: Final = ManyRows(
    11,
    "INSERT OR IGNORE INTO url (host, hash, priority, depth, target, via, source, hop_path, redirects, found_at, kind)",
)
LAST_URL: Final = "SELECT coalesce(max(id), 0) FROM url"
# Row ids ascend: the rows that a transaction inserted are those above the last id before it. Without the "+" the
# planner would walk all of url_key to get the hosts in order.
NEW_BY_VIA: Final = """
SELECT json_group_array(json_array(host, via, n))
FROM (SELECT host, via, count(*) AS n FROM url WHERE id > ? GROUP BY +host, via)"""
NEW_IDS: Final = "SELECT json_group_array(json_array(id, host, hash)) FROM url WHERE id > ?"
COUNT_NEW: Final = "SELECT count(*) FROM url WHERE id > ?"
NEW_KEYS: Final = "SELECT json_group_array(json_array(host, hash)) FROM url WHERE id > ?"

STATES: Final = """
SELECT json_group_array(json_array(id, host, state)) FROM url WHERE id IN (SELECT value FROM json_each(?))"""
SET_STATE: Final = "UPDATE url SET state = ? WHERE id IN (SELECT value FROM json_each(?))"
UPSERT_VISITS: Final = ManyRows(
    20,
    """INSERT INTO visit (url, next_at, attempts, last_at, last_status, last_error, last_rule, etag, last_modified,
                          digest, warc_file, warc_offset, ended, changed_at, change_a, change_t, gone_count, in_links,
                          visits, pages_file)""",
    """ON CONFLICT (url) DO UPDATE SET
         next_at = excluded.next_at, attempts = excluded.attempts, last_at = excluded.last_at,
         last_status = excluded.last_status, last_error = excluded.last_error, last_rule = excluded.last_rule,
         etag = excluded.etag, last_modified = excluded.last_modified,
         digest = coalesce(excluded.digest, digest),
         warc_file = coalesce(excluded.warc_file, warc_file),
         warc_offset = coalesce(excluded.warc_offset, warc_offset),
         ended = excluded.ended, visits = visits + excluded.visits,
         changed_at = coalesce(excluded.changed_at, changed_at),
         change_a = coalesce(excluded.change_a, change_a), change_t = coalesce(excluded.change_t, change_t),
         gone_count = coalesce(excluded.gone_count, gone_count), in_links = coalesce(excluded.in_links, in_links),
         pages_file = coalesce(excluded.pages_file, pages_file),
         content_file = {content_file}, content_offset = {content_offset}""".format(
        **{
            name: f"""CASE WHEN excluded.warc_file IS NULL THEN {name}
           WHEN excluded.digest IS NULL OR excluded.digest = digest THEN coalesce({name}, {of})
           ELSE NULL END"""
            for name, of in (("content_file", "warc_file"), ("content_offset", "warc_offset"))
        }
    ),
)
PUT_HINTS: Final = ManyRows(
    5,
    "WITH hint (host, hash, priority, lastmod, seen_at) AS (",
    """) INSERT INTO sitemap_hint (url, priority, lastmod, seen_at)
       SELECT url.id, hint.priority, hint.lastmod, hint.seen_at
       FROM hint CROSS JOIN url ON url.host = hint.host AND url.hash = hint.hash WHERE true
       ON CONFLICT (url) DO UPDATE SET
         priority = excluded.priority, lastmod = excluded.lastmod, seen_at = excluded.seen_at""",
)
PUT_HINTS_BY_ID: Final = ManyRows(4, "INSERT OR REPLACE INTO sitemap_hint (url, priority, lastmod, seen_at)")
KEYS_ABOVE: Final = "SELECT host, hash FROM url WHERE id > ? ORDER BY id"
# URLs that have changed since their last visit, as a sitemap says, are due sooner.
BRING_FORWARD: Final = ManyRows(
    5,
    "WITH hint (host, hash, lastmod, after_s, now) AS (",
    """) UPDATE visit SET next_at = max(visit.last_at + hint.after_s, hint.now)
       FROM hint CROSS JOIN url ON url.host = hint.host AND url.hash = hint.hash
       WHERE visit.url = url.id AND visit.ended = 1 AND hint.lastmod > visit.last_at
         AND visit.next_at > max(visit.last_at + hint.after_s, hint.now)""",
)

INSERT_HOSTS: Final = ManyRows(
    11, "INSERT INTO host (id, slot, scheme, host, port, domain, found_at, key, queued, suspects, ready_at)"
)
LAST_HOST: Final = "SELECT coalesce(max(id), 0) FROM host"
HOST_ID: Final = "SELECT id FROM host WHERE host = ? AND scheme = ? AND port = ?"
# Names of one scheme and port, with their number in the list.
HOST_IDS_OF: Final = """
SELECT json_group_array(json_array(name.key, host.id))
FROM json_each(?) AS name
CROSS JOIN host ON host.host = name.value AND host.scheme = ? AND host.port = ?"""
HOST_EXISTS: Final = "SELECT 1 FROM host WHERE id = ?"
# A host that gets work is ready from now on, unless it backs off or waits for an event. What is queued again may be
# requested beyond the limit that parked the host.
ADD_TO_HOSTS: Final = ManyRows(
    10,
    "WITH change (id, queued, fetched, ok, errors, bytes, last_at, suspects, again, now) AS (",
    """) UPDATE host SET
         queued = host.queued + change.queued, fetched = host.fetched + change.fetched, ok = host.ok + change.ok,
         errors = host.errors + change.errors, bytes = host.bytes + change.bytes,
         last_at = coalesce(max(change.last_at, host.last_at), change.last_at, host.last_at),
         suspects = host.suspects + change.suspects,
         parked = CASE WHEN {wakes} THEN NULL ELSE parked END,
         ready_at = CASE WHEN {wakes} THEN change.now
           WHEN change.queued + change.suspects > 0 AND host.queued + host.suspects = 0
             THEN max(host.ready_at, change.now)
           ELSE host.ready_at END
       FROM change WHERE host.id = change.id""".format(
        wakes="(change.queued > 0 AND parked = 'traps') OR (change.again > 0 AND parked = 'limit')"
    ),
)
COUNTS: Final = """
SELECT json_group_array(json_array(id, queued, suspects, key)) FROM host
WHERE id IN (SELECT value FROM json_each(?))"""
HOSTS: Final = """
SELECT json_group_array(json_array(
  host.id, scheme, host.host, port, slot, queued, fetched, last_at, suspects > 0, ready_at, parked, failures, reason,
  responded, verdict, status_code, NULL, fetched_at, expires_at, crawl_delay_s, failing_since, error))
FROM (SELECT * FROM host WHERE {where}) AS host LEFT JOIN robots ON robots.host = host.id"""
HOSTS_NAMED: Final = HOSTS.format(where="host = ? ORDER BY id")
HOSTS_AFTER: Final = HOSTS.format(where="id > ? ORDER BY id LIMIT ?")
HOSTS_WITH_WORK: Final = HOSTS.format(where="id > ? AND (queued + suspects) > 0 ORDER BY id LIMIT ?")
HOSTS_OF_IDS: Final = HOSTS.format(where="id IN (SELECT value FROM json_each(?)) ORDER BY id")
_SEARCH: Final = """
WITH searched AS MATERIALIZED (
  SELECT host.id, host.host, queued, fetched,
         CASE WHEN parked = 'blocked' THEN 'blocked'
           WHEN parked = 'robots' OR verdict = 'unreachable' THEN 'held'
           WHEN parked = 'backoff' AND ready_at > ?5 THEN 'backoff'
           WHEN verdict IS NULL AND responded = 0 THEN 'new'
           ELSE 'ready' END AS state
  FROM host LEFT JOIN robots ON robots.host = host.id
  WHERE host.id > ?1 AND host.id <= ?2
    AND (instr(host.host, ?3) OR (instr(?3, ':') AND instr(
      scheme || '://' || host.host || iif(port = iif(scheme = 'https', 443, 80), '', ':' || port), ?3)))
    AND host.id NOT IN (SELECT value FROM json_each(?6))),
matching AS MATERIALIZED (SELECT * FROM searched WHERE state IN (SELECT value FROM json_each(?4)))
SELECT json_array((SELECT count(*) FROM matching),
                  json((SELECT json_group_array(id) FROM (SELECT id FROM matching ORDER BY {order} LIMIT ?7))))"""
SEARCH: Final = {
    order: _SEARCH.format(order=columns)
    for order, columns in (
        ("broken", "CASE state WHEN 'held' THEN 0 WHEN 'backoff' THEN 1 WHEN 'blocked' THEN 2 ELSE 3 END, queued DESC"),
        ("queued", "queued DESC, id"),
        ("fetched", "fetched DESC, id"),
        ("host", "host, id"),
    )
}
# The index of names has all that these need.
END_OF_NAMES: Final = "SELECT host FROM host WHERE host > ? ORDER BY host LIMIT 1 OFFSET ?"
NAMES_BELOW: Final = """
SELECT json_array(json_group_array(id), count(DISTINCT host)) FROM host
WHERE host > ?1 AND host <= ?2 AND substr(host, -length(?3)) = ?3"""
SET_HOST_STATE: Final = "UPDATE host SET state = ? WHERE id = ?"
LAST_ROBOTS_DIGEST: Final = "SELECT digest FROM robots_version WHERE host = ? ORDER BY id DESC LIMIT 1"
ADD_ROBOTS_VERSION: Final = (
    "INSERT INTO robots_version (host, fetched_at, status_code, verdict, digest, body) VALUES (?, ?, ?, ?, ?, ?)"
)
CUT_ROBOTS_VERSIONS: Final = """
DELETE FROM robots_version WHERE host = ?1 AND id <= (
  SELECT id FROM robots_version WHERE host = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)"""
ROBOTS_VERSIONS: Final = """
SELECT fetched_at, status_code, verdict, digest, body FROM robots_version WHERE host = ? ORDER BY id DESC"""
PUT_ROBOTS: Final = """
INSERT INTO robots VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (host) DO UPDATE SET
  body = CASE WHEN excluded.verdict = 'rules' THEN coalesce(excluded.body, body) END,
  verdict = excluded.verdict, status_code = excluded.status_code, fetched_at = excluded.fetched_at,
  expires_at = excluded.expires_at, crawl_delay_s = excluded.crawl_delay_s, failing_since = excluded.failing_since,
  error = excluded.error"""
ROBOTS_BODY: Final = "SELECT body FROM robots WHERE host = ?"

# The index url_queued has exactly these rows in this order (tests/unit/frontier asserts the plan).
TAKE: Final = """
SELECT json_group_array(json_array(
         id, priority, depth, target, scheme, host, port, source, hop_path, redirects,
         via_target, via_scheme, via_host, via_port, kind, attempts, etag, last_modified,
         CASE WHEN visits > 0 THEN json_array(
           visits, last_at, digest, changed_at, change_a, change_t, gone_count, in_links) END,
         CASE WHEN hinted THEN json_array(hint_priority, lastmod) END))
FROM (
  SELECT u.id, u.priority, u.depth, u.target, h.scheme, h.host, h.port, u.source, u.hop_path, u.redirects,
         vu.target AS via_target, vh.scheme AS via_scheme, vh.host AS via_host, vh.port AS via_port,
         u.kind, v.attempts, v.etag, v.last_modified,
         v.visits, v.last_at, v.digest, v.changed_at, v.change_a, v.change_t, v.gone_count, v.in_links,
         s.url IS NOT NULL AS hinted, s.priority AS hint_priority, s.lastmod
  FROM url AS u
  CROSS JOIN host AS h ON h.id = u.host
  LEFT JOIN url AS vu ON vu.id = u.via
  LEFT JOIN host AS vh ON vh.id = vu.host
  LEFT JOIN visit AS v ON v.url = u.id
  LEFT JOIN sitemap_hint AS s ON s.url = u.id
  WHERE u.host = ?1 AND u.state = 'queued' AND u.id NOT IN (SELECT value FROM json_each(?2))
  ORDER BY u.priority, u.depth, u.id
  LIMIT ?3)"""

DENY: Final = ManyRows(
    4,
    "INSERT INTO visit (url, last_at, last_error, last_rule)",
    """ON CONFLICT (url) DO UPDATE SET
         last_at = excluded.last_at, last_error = excluded.last_error, last_rule = excluded.last_rule""",
)

# -- reevaluation, slow responses, templates and suspects

# Version 4 had '' for every mark.
PUT_TO_REEVALUATE: Final = """
INSERT INTO meta VALUES ('unswept:' || ?, '1')
ON CONFLICT (name) DO UPDATE SET value = max(1, CAST(value AS INTEGER)) + 1"""
REEVALUATION_MARK: Final = "SELECT max(1, CAST(value AS INTEGER)) FROM meta WHERE name = 'unswept:' || ?"
REEVALUATED: Final = "DELETE FROM meta WHERE name = 'unswept:' || ? AND max(1, CAST(value AS INTEGER)) = ?"
MARKED_HOSTS: Final = """
SELECT json_group_array(CAST(substr(name, 9) AS INTEGER)) FROM (
  SELECT name FROM meta WHERE name > 'unswept:' || ? AND name < 'unswept;' ORDER BY name LIMIT ?)"""
PUT_SLOW_RESPONSE: Final = "INSERT OR REPLACE INTO pace VALUES (?, ?, ?)"
END_SLOW_RESPONSE: Final = "DELETE FROM pace WHERE key = ?"
PUT_SAMPLES: Final = ManyRows(3, "INSERT OR REPLACE INTO sampled_page (url, host, words)")
ADD_TO_TEMPLATES: Final = ManyRows(
    3,
    "INSERT INTO url_template (host, template, pages)",
    "ON CONFLICT (host, template) DO UPDATE SET pages = pages + excluded.pages",
)
PUT_TEMPLATE: Final = """
INSERT INTO url_template (host, template, spent, good, since_at, released_at) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (host, template) DO UPDATE SET
  spent = excluded.spent, good = excluded.good, since_at = excluded.since_at, released_at = excluded.released_at"""
PUT_ERROR_PAGES: Final = "INSERT OR REPLACE INTO meta VALUES ('error_pages:' || ?, ?)"
ERROR_PAGES: Final = "SELECT value FROM meta WHERE name = 'error_pages:' || ?"
SAMPLES: Final = """
SELECT url.target, sampled_page.words FROM sampled_page CROSS JOIN url ON url.id = sampled_page.url
WHERE sampled_page.host = ? AND url.state <> 'forgotten'"""
TEMPLATES: Final = "SELECT host, template, pages, spent, good, since_at, released_at FROM url_template WHERE host = ?"
PUT_SUSPECTS: Final = ManyRows(3, "INSERT OR REPLACE INTO suspect (url, host, template)")
SUSPECTS_OF: Final = """
SELECT json_group_array(url) FROM (
  SELECT url FROM suspect WHERE host = ? AND template = ? ORDER BY url LIMIT ?)"""
END_SUSPECTS: Final = "DELETE FROM suspect WHERE url IN (SELECT value FROM json_each(?))"
SUSPECTS_OF_HOST: Final = "SELECT host, template, count(*) FROM suspect WHERE host = ? GROUP BY template"
ERROR_PAGE_HOSTS: Final = "SELECT DISTINCT host FROM suspect WHERE template = ?"
SUSPECTS: Final = """
SELECT host, template, count(*) AS n FROM suspect GROUP BY host, template ORDER BY n DESC, host, template LIMIT ?"""
SUSPECT_EXAMPLES: Final = """
SELECT h.scheme || '://' || h.host
         || CASE WHEN h.port = iif(h.scheme = 'https', 443, 80) THEN '' ELSE ':' || h.port END || u.target
FROM suspect AS s CROSS JOIN url AS u ON u.id = s.url CROSS JOIN host AS h ON h.id = u.host
WHERE s.host = ? AND s.template = ? LIMIT 2"""
NEW_ON: Final = "SELECT json_group_array(json_array(id, host, target)) FROM url WHERE id > ? AND via = ?"
NEW_IDS_ON: Final = "SELECT json_group_array(id) FROM url WHERE id > ? AND via = ? AND host = ?"
# Links, as (host, hash), that are suspects only because an error page has them.
LINKED_SUSPECTS: Final = """
SELECT json_group_array(json_array(u.id, u.host))
FROM json_each(?1) AS link
CROSS JOIN url AS u ON u.host = link.value ->> 0 AND u.hash = link.value ->> 1
CROSS JOIN suspect AS s ON s.url = u.id
WHERE s.template = ?2"""

# -- due times

# URLs whose visit goes on (ended = 0) or starts anew (1), the longest due first. Each of the two has its index.
_DUE: Final = """
SELECT json_group_array(json_array(url, host, state))
FROM (
  SELECT v.url, u.host, u.state FROM visit AS v CROSS JOIN url AS u ON u.id = v.url
  WHERE v.next_at <= ? AND v.ended = {ended} ORDER BY v.next_at, v.url LIMIT ?)"""
DUE: Final = _DUE.format(ended=0)
DUE_AGAIN: Final = _DUE.format(ended=1)
NOT_DUE: Final = "UPDATE visit SET next_at = NULL, ended = 0 WHERE url IN (SELECT value FROM json_each(?))"
START_OVER: Final = "UPDATE visit SET attempts = 0 WHERE url IN (SELECT value FROM json_each(?))"
RETRY_NOW: Final = """
UPDATE visit SET next_at = ?1
WHERE last_error IN (SELECT value FROM json_each(?2)) AND next_at > ?1 AND last_at >= ?3
  AND ended = 0"""
# The clock was set back to ?1. ?2 limits revisits to the range of the index with dates that are too late. Without it
# the whole store would be searched.
REDATE: Final = """
UPDATE visit SET next_at = next_at - (last_at - ?1), last_at = ?1
WHERE next_at > ?2 AND ended = {ended} AND last_at > ?1"""
REDATE_WAITING: Final = REDATE.format(ended=0)
REDATE_REVISITS: Final = REDATE.format(ended=1)
NEXT_DUE: Final = "SELECT min(next_at) FROM visit WHERE next_at IS NOT NULL AND ended = 0"
NEXT_AGAIN: Final = "SELECT min(next_at) FROM visit WHERE next_at IS NOT NULL AND ended = 1"

# Visited pages in a range of rows: the price of revisits is computed from them.
VISITED_PAGES: Final = """
SELECT json_group_array(json_array(url, depth, in_links, priority, change_a, change_t)) FROM (
  SELECT h.scheme || '://' || h.host
           || CASE WHEN h.port = iif(h.scheme = 'https', 443, 80) THEN '' ELSE ':' || h.port END || u.target AS url,
         u.depth, coalesce(v.in_links, 0) AS in_links, s.priority, v.change_a, v.change_t
  FROM visit AS v
  CROSS JOIN url AS u ON u.id = v.url
  CROSS JOIN host AS h ON h.id = u.host
  LEFT JOIN sitemap_hint AS s ON s.url = v.url
  WHERE v.url BETWEEN ? AND ? AND v.ended = 1 AND coalesce(v.gone_count, 0) = 0 AND u.kind IS NULL)"""
# URLs whose visit ended without a date for the next, with what that date is computed from.
UNDATED: Final = """
SELECT json_group_array(json_array(
         id, url, kind, depth, in_links, priority, change_a, change_t, gone_count, last_at, state)) FROM (
  SELECT u.id, h.scheme || '://' || h.host
           || CASE WHEN h.port = iif(h.scheme = 'https', 443, 80) THEN '' ELSE ':' || h.port END || u.target AS url,
         u.kind, u.depth, coalesce(v.in_links, 0) AS in_links, s.priority, v.change_a, v.change_t,
         coalesce(v.gone_count, 0) AS gone_count, v.last_at, u.state
  FROM visit AS v
  CROSS JOIN url AS u ON u.id = v.url
  CROSS JOIN host AS h ON h.id = u.host
  LEFT JOIN sitemap_hint AS s ON s.url = v.url
  WHERE v.url BETWEEN ? AND ? AND v.ended = 1 AND v.next_at IS NULL AND u.state IN ('done', 'gave_up'))"""
PUT_DATES: Final = ManyRows(
    2,
    "WITH date (url, next_at) AS (",
    """) UPDATE visit SET next_at = date.next_at FROM date CROSS JOIN url ON url.id = date.url
       WHERE visit.url = date.url AND visit.ended = 1 AND visit.next_at IS NULL
         AND url.state IN ('done', 'gave_up')""",
)

# -- meta, back-off, output files

META: Final = "SELECT value FROM meta WHERE name = ?"
PUT_META: Final = "INSERT OR REPLACE INTO meta VALUES (?, ?)"
PUT_META_TWICE: Final = "INSERT OR REPLACE INTO meta VALUES (?, ?), (?, ?)"
END_META: Final = "DELETE FROM meta WHERE name = ?"
COPIED_AT: Final = "copied_at"  # in meta of a backup until its first start: UTC epoch seconds
PUT_BACKOFF: Final = "INSERT OR REPLACE INTO rest (key, until_at, strikes, reason) VALUES (?, ?, ?, ?)"
END_BACKOFF: Final = "DELETE FROM rest WHERE key = ?"
# Not REPLACE: visits refer to the id of the file.
PUT_SINK_FILE: Final = """
INSERT INTO sink_file (sink, name, state, committed_bytes) VALUES (?, ?, ?, ?)
ON CONFLICT (sink, name) DO UPDATE SET state = excluded.state, committed_bytes = excluded.committed_bytes"""
SINK_FILE_ID: Final = "SELECT id FROM sink_file WHERE sink = ? AND name = ?"
LOSING_FILES: Final = "SELECT json_group_array(id) FROM sink_file WHERE state = 'losing'"
SET_FILE_STATE: Final = "UPDATE sink_file SET state = ? WHERE id = ?"
# URLs whose last record, content or line in pages/ is in a file. An index would cost time at each visit.
IN_FILE: Final = """
SELECT json_group_array(json_array(url, host, state))
FROM (
  SELECT v.url, u.host, u.state FROM visit AS v CROSS JOIN url AS u ON u.id = v.url
  WHERE v.url > ?1 AND v.url <= ?2 AND (v.warc_file = ?3 OR v.content_file = ?3 OR v.pages_file = ?3)
    AND u.state <> 'forgotten' ORDER BY v.url)"""
# Removes the conditions of the next request, and the digest that would make its record a revisit record.
NOTHING_HELD: Final = """
UPDATE visit SET etag = NULL, last_modified = NULL, digest = NULL WHERE url IN (SELECT value FROM json_each(?))"""
SINK_FILES: Final = "SELECT sink, name, state, committed_bytes FROM sink_file ORDER BY id"
PUT_SCOPE_HOST: Final = "INSERT OR IGNORE INTO scope_host (host, added_at) VALUES (?, ?)"
SCOPE_HOSTS: Final = "SELECT host FROM scope_host ORDER BY host"

LAST_VISIT_AT: Final = "SELECT max(last_at) FROM host"

# -- readiness of hosts and politeness keys

HOST_NAMES: Final = """
SELECT json_group_array(json_array(id, host)) FROM (SELECT id, host FROM host WHERE id > ? ORDER BY id LIMIT ?)"""
PUT_HOST_KEYS: Final = """
UPDATE host SET key = assigned.key
FROM (SELECT value ->> 0 AS id, value ->> 1 AS key FROM json_each(?)) AS assigned WHERE host.id = assigned.id"""
DROP_KEYS: Final = (
    "DROP INDEX IF EXISTS host_key",
    "DROP INDEX IF EXISTS host_ready",
    "DROP INDEX IF EXISTS host_parked",
    "DROP INDEX IF EXISTS key_ready",
    "DROP INDEX IF EXISTS key_active",
    "DELETE FROM politeness_key",
    "DELETE FROM meta WHERE name = 'politeness_key'",
)
MAKE_KEYS: Final = (
    """INSERT INTO politeness_key (id, ready_at, crawl_delay_s)
       SELECT key, min(CASE WHEN (queued + suspects) > 0 AND ready_at < 9e99 THEN ready_at END), max(crawl_delay_s)
       FROM host LEFT JOIN robots ON robots.host = host.id GROUP BY key""",
    # Of hosts that had a robots.txt: a host in one index less is stored faster. Older stores have all hosts in it.
    "CREATE INDEX host_key ON host (key) WHERE state <> 'new'",
    "CREATE INDEX host_ready ON host (key, ready_at) WHERE (queued + suspects) > 0",
    "CREATE INDEX host_parked ON host (parked, id, queued) WHERE parked IS NOT NULL",
    "CREATE INDEX key_ready ON politeness_key (ready_at) WHERE ready_at IS NOT NULL",
    "CREATE INDEX key_active ON politeness_key (id) WHERE active = 1",
)
_FIRST_READY: Final = """nullif(max(
           (SELECT min(host.ready_at) FROM host WHERE host.key = politeness_key.id AND (queued + suspects) > 0),
           {open_at}), 9e99)"""
END_ACTIVITY: Final = """
UPDATE politeness_key SET active = 0, ready_at = {}
WHERE active = 1""".format(_FIRST_READY.format(open_at="open_at"))
ADD_KEYS: Final = "INSERT OR IGNORE INTO politeness_key (id) SELECT value FROM json_each(?)"
# Keys of new hosts. ready_at: when those with work are ready; NULL if none has any.
PUT_NEW_KEYS: Final = ManyRows(
    2,
    "INSERT INTO politeness_key (id, ready_at)",
    """ON CONFLICT (id) DO UPDATE SET ready_at = min(coalesce(ready_at, 9e99), max(open_at, excluded.ready_at))
       WHERE active = 0 AND excluded.ready_at IS NOT NULL""",
)
LEAVE_KEYS: Final = ManyRows(
    3,
    "WITH gone (id, requested_at, open_at) AS (",
    """) UPDATE politeness_key SET
         active = 0, requested_at = coalesce(gone.requested_at, politeness_key.requested_at),
         open_at = max(gone.open_at, CASE WHEN gone.requested_at IS NULL THEN politeness_key.open_at ELSE 0 END),
         ready_at = {}
       FROM gone WHERE politeness_key.id = gone.id""".format(_FIRST_READY.format(open_at="gone.open_at")),
)
# What was queued while a host left lifts what parked it.
PUT_READINESS: Final = ManyRows(
    7,
    "WITH one (id, ready_at, parked, failures, reason, responded, queued) AS (",
    """) UPDATE host SET
         ready_at = CASE WHEN one.parked IN ('limit', 'traps') AND host.queued <> one.queued THEN 0
           ELSE one.ready_at END,
         parked = CASE WHEN one.parked IN ('limit', 'traps') AND host.queued <> one.queued THEN NULL
           ELSE one.parked END,
         failures = one.failures, reason = one.reason, responded = one.responded
       FROM one WHERE host.id = one.id""",
)
PUT_REQUESTED: Final = ManyRows(
    2,
    "WITH one (id, at) AS (",
    """) UPDATE politeness_key SET requested_at = max(coalesce(requested_at, 0), one.at)
       FROM one WHERE politeness_key.id = one.id""",
)
WAKE_KEYS: Final = """
UPDATE politeness_key SET ready_at = min(coalesce(ready_at, 9e99), max(open_at, woken.at))
FROM (
  SELECT key, min(ready_at) AS at FROM host
  WHERE id IN (SELECT value FROM json_each(?)) AND (queued + suspects) > 0 AND ready_at < ? GROUP BY key) AS woken
WHERE politeness_key.id = woken.key AND active = 0"""
READY_KEYS: Final = """
SELECT json_group_array(id) FROM (
  SELECT id FROM politeness_key WHERE ready_at <= ? ORDER BY ready_at LIMIT ?)"""
NEXT_READY: Final = "SELECT min(ready_at) FROM politeness_key WHERE ready_at IS NOT NULL"
KEYS: Final = """
SELECT json_group_array(json_array(id, requested_at, open_at, crawl_delay_s)) FROM politeness_key
WHERE id IN (SELECT value FROM json_each(?))"""
ACTIVE_KEYS: Final = """
SELECT json_group_array(id) FROM politeness_key WHERE id IN (SELECT value FROM json_each(?)) AND active = 1"""
ACTIVATE_KEYS: Final = """
UPDATE politeness_key SET active = 1, ready_at = NULL WHERE id IN (SELECT value FROM json_each(?))"""
# In memory a host is not parked. If the crawl is killed, it is ready at its time, or at once.
ENTER_HOSTS: Final = """
UPDATE host SET parked = NULL, ready_at = CASE WHEN ready_at < ? THEN ready_at ELSE 0 END
WHERE id IN (SELECT value FROM json_each(?))"""
# Of several keys at once, each with the ids of hosts that are not wanted.
READY_HOSTS: Final = HOSTS.format(
    where="""id IN (
      SELECT ready.id FROM json_each(?1) AS wanted CROSS JOIN host AS ready ON ready.id IN (
        SELECT id FROM host
        WHERE key = wanted.value ->> 0 AND (queued + suspects) > 0 AND ready_at < ?2
          AND NOT EXISTS (SELECT 1 FROM json_each(wanted.value, '$[1]') AS known WHERE known.value = host.id)
        ORDER BY ready_at LIMIT ?3))"""
)
BACKOFFS_OF: Final = """
SELECT json_group_array(json_array(key, until_at, strikes, reason)) FROM rest
WHERE key IN (SELECT value FROM json_each(?))"""
SLOW_RESPONSES_OF: Final = """
SELECT json_group_array(json_array(key, response_s)) FROM pace WHERE key IN (SELECT value FROM json_each(?))"""
RAISE_CRAWL_DELAY: Final = """
UPDATE politeness_key SET crawl_delay_s = max(coalesce(crawl_delay_s, 0), ?2)
WHERE id = (SELECT key FROM host WHERE id = ?1)"""
COMPUTE_CRAWL_DELAY: Final = """
UPDATE politeness_key SET crawl_delay_s = (
  SELECT max(crawl_delay_s) FROM host CROSS JOIN robots ON robots.host = host.id
  WHERE host.key = politeness_key.id AND host.state <> 'new')
WHERE id = (SELECT key FROM host WHERE id = ?1)"""
CRAWL_DELAY_OF: Final = "SELECT crawl_delay_s FROM robots WHERE host = ?"
PARKED: Final = """
SELECT json_group_array(id) FROM (SELECT id FROM host WHERE parked = ? AND id > ? ORDER BY id LIMIT ?)"""
PARKED_OF: Final = """
SELECT json_group_array(id) FROM (
  SELECT id FROM host WHERE id IN (SELECT value FROM json_each(?2)) AND parked = ?1 LIMIT ?3)"""
UNPARK: Final = """
UPDATE host SET ready_at = ?, parked = NULL WHERE id IN (SELECT value FROM json_each(?))"""
PARKED_COUNTS: Final = """
SELECT json_group_array(json_array(parked, n, urls)) FROM (
  SELECT parked, count(*) AS n, sum(queued) AS urls FROM host
  WHERE parked IS NOT NULL AND queued > 0 GROUP BY parked)"""
COUNT_BACKOFFS: Final = "SELECT count(*) FROM rest"
COUNT_WITH_WORK: Final = "SELECT count(*) FROM host WHERE (queued + suspects) > 0"

# -- requeue, rounds, takedowns, blocks

_SETTLED: Final = """
SELECT json_group_array(json_array(url, host))
FROM (
  SELECT v.url, u.host FROM visit AS v CROSS JOIN url AS u ON u.id = v.url
  WHERE {of} AND u.state NOT IN ('queued', 'forgotten'){more} ORDER BY v.url)"""


def settled(selection: UrlSelection, *, by_ids: bool = False) -> tuple[str, tuple[Any, ...]]:
    """The statement that selects URLs of a range, or of a list of ids, by their last visit, and its other values."""
    more = ""
    values: list[Any] = []
    for condition, wanted in (
        (" AND v.last_error IN (SELECT value FROM json_each(?))", selection.errors or None),
        (" AND v.last_status IN (SELECT value FROM json_each(?)) AND u.state <> 'denied'", selection.statuses or None),
        (" AND u.host IN (SELECT value FROM json_each(?))", selection.host_ids),
        (" AND u.state IN (SELECT value FROM json_each(?))", selection.states or None),
    ):
        if wanted is not None:
            more += condition
            values.append(orjson.dumps(wanted).decode())
    if selection.not_visited is not None:
        more += " AND v.last_at NOT BETWEEN ? AND ?"
        values += selection.not_visited
    of = "v.url IN (SELECT value FROM json_each(?))" if by_ids else "v.url > ? AND v.url <= ?"
    return _SETTLED.format(of=of, more=more), tuple(values)


# A new visit starts with no attempts. A waiting URL keeps its first attempt, since its host counts it as fetched.
START_AGAIN: Final = """
UPDATE visit SET next_at = NULL, ended = 0, attempts = CASE WHEN visits > 0 THEN 0 ELSE min(attempts, 1) END
WHERE url IN (SELECT value FROM json_each(?))"""

KNOWN_AS: Final = """
SELECT json_group_array(json_array(id, hash, state)) FROM url
WHERE host = ? AND hash IN (SELECT value FROM json_each(?))"""
IDS_OF_HOST_NAME: Final = "SELECT json_group_array(id) FROM (SELECT id FROM host WHERE host = ? ORDER BY id)"
# In the order of url_key.
URLS_OF_HOST: Final = """
SELECT json_group_array(json_array(id, hash, state))
FROM (SELECT id, hash, state FROM url WHERE host = ? AND hash > ? ORDER BY hash LIMIT ?)"""
# The same two without url_key: url_queued and url_settled together have all URLs of a host.
KNOWN_AS_OF_HOST: Final = """
SELECT json_group_array(json_array(id, hash, state)) FROM (
  SELECT id, hash, state FROM url
  WHERE host = ?1 AND state = 'queued' AND hash IN (SELECT value FROM json_each(?2))
  UNION ALL
  SELECT id, hash, state FROM url
  WHERE host = ?1 AND state <> 'queued' AND hash IN (SELECT value FROM json_each(?2)))"""
URLS_OF_HOST_BY_ID: Final = """
SELECT json_group_array(json_array(id, id, state)) FROM (
  SELECT id, state FROM (
    SELECT id, state FROM url WHERE host = ?1 AND state = 'queued' AND id > ?2
    UNION ALL
    SELECT id, state FROM url WHERE host = ?1 AND state <> 'queued' AND id > ?2)
  ORDER BY id LIMIT ?3)"""
PUT_FORGOTTEN_HOST: Final = "INSERT OR IGNORE INTO forgotten_host (host, at) VALUES (?, ?)"
FORGOTTEN_HOSTS: Final = "SELECT host FROM forgotten_host"
FORGOTTEN_AT: Final = "SELECT at FROM forgotten_host WHERE host = ?"
LEGACY_MARKS: Final = "SELECT host, hash FROM first_mark"
# The marks that do not count as URLs, in a store of a version that did not keep their number. Marks have no source. A
# URL that was unknown when it was taken down has nothing but marks, and one of them counts.
COUNT_MARKS: Final = """
WITH mark (host, at, n) AS (
  SELECT host, found_at, count(*) FROM url WHERE state = 'forgotten' AND source = '' GROUP BY host, found_at),
known (host, at) AS (
  SELECT DISTINCT u.host, v.last_at FROM visit AS v CROSS JOIN url AS u ON u.id = v.url
  WHERE v.last_error = 'forgotten')
SELECT coalesce(sum(n - (known.host IS NULL)), 0)
FROM mark LEFT JOIN known ON known.host = mark.host AND known.at = mark.at"""
MARK_FORGOTTEN_ABOVE: Final = "UPDATE url SET state = 'forgotten' WHERE id > ?"
PUT_TAKEDOWN: Final = "INSERT OR IGNORE INTO takedown (url, warc_file, warc_offset, at) VALUES (?, ?, ?, ?)"
LIST_TAKEDOWNS: Final = """
INSERT OR IGNORE INTO takedown (url, warc_file, warc_offset, at)
SELECT h.scheme || '://' || h.host ||
         CASE WHEN h.port = iif(h.scheme = 'https', 443, 80) THEN '' ELSE ':' || h.port END || u.target,
       f.name, v.warc_offset, ?1
FROM json_each(?2) CROSS JOIN url AS u ON u.id = json_each.value CROSS JOIN host AS h ON h.id = u.host
CROSS JOIN visit AS v ON v.url = u.id CROSS JOIN sink_file AS f ON f.id = v.warc_file
WHERE v.warc_offset IS NOT NULL"""
TAKEDOWNS: Final = "SELECT url, warc_file, warc_offset, at FROM takedown ORDER BY id"
ERASE_URLS: Final = (
    "UPDATE url SET state = 'forgotten', target = '', via = NULL WHERE id IN (SELECT value FROM json_each(?))",
    "DELETE FROM visit WHERE url IN (SELECT value FROM json_each(?))",
    "DELETE FROM sitemap_hint WHERE url IN (SELECT value FROM json_each(?))",
    "DELETE FROM sampled_page WHERE url IN (SELECT value FROM json_each(?))",
    "DELETE FROM suspect WHERE url IN (SELECT value FROM json_each(?))",
)
PUT_FORGOTTEN_VISITS: Final = "INSERT INTO visit (url, last_at, last_error) SELECT value, ?1, ?2 FROM json_each(?3)"
ERASE_HOST: Final = (
    "DELETE FROM robots WHERE host = ?",
    "DELETE FROM robots_version WHERE host = ?",
    "DELETE FROM url_template WHERE host = ?",
    "DELETE FROM sampled_page WHERE host = ?",
    "DELETE FROM suspect WHERE host = ?",
    "UPDATE host SET state = 'new' WHERE id = ?",
    "DELETE FROM meta WHERE name = 'error_pages:' || ?",
)
# The indexes url_queued and url_denied have exactly these rows in this order.
URL_ROWS: Final = """
SELECT json_group_array(json_array(host, id, target, priority, depth, hop_path, source, last_error))
FROM (
  SELECT u.host, u.id, u.target, u.priority, u.depth, u.hop_path, u.source, v.last_error
  FROM url AS u LEFT JOIN visit AS v ON v.url = u.id
  WHERE u.state = '{state}' AND u.host <= ?1 AND (u.host, u.priority, u.depth, u.id) > (?2, ?3, ?4, ?5)
  ORDER BY u.host, u.priority, u.depth, u.id
  LIMIT ?6)"""
URL_ROWS_QUEUED: Final = URL_ROWS.format(state="queued")
URL_ROWS_DENIED: Final = URL_ROWS.format(state="denied")
ORIGINS: Final = """
SELECT json_group_array(json_array(id, scheme, host, port)) FROM host WHERE id IN (SELECT value FROM json_each(?))"""
NO_ERROR: Final = """
UPDATE visit SET last_error = NULL, last_rule = NULL WHERE url IN (SELECT value FROM json_each(?))"""

BLOCKS: Final = "SELECT name, kind, at, reason FROM blocked ORDER BY name"
BLOCK_OF: Final = "SELECT name, kind, at, reason FROM blocked WHERE name = ?"
BLOCK: Final = "INSERT OR REPLACE INTO blocked (name, kind, at, reason) VALUES (?, ?, ?, ?)"
UNBLOCK: Final = "DELETE FROM blocked WHERE name = ?"

# -- keys by other rules

QUERIES: Final = """
SELECT json_group_array(json_array(u.id, h.scheme, h.host, h.port, u.target, u.kind))
FROM url AS u CROSS JOIN host AS h ON h.id = u.host
WHERE u.id > ? AND u.id <= ? AND instr(u.target, '=')"""
REKEY: Final = """
UPDATE OR IGNORE url SET hash = new.later
FROM (SELECT value ->> 0 AS id, value ->> 1 AS first, value ->> 2 AS later FROM json_each(?)) AS new
WHERE url.id = new.id AND url.hash = new.first"""
