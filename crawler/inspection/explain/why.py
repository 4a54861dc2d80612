"""Why a URL was fetched or not: the verdicts on it, in the order in which the crawl makes them.

Scope and robots code are those of the crawl, applied to what the store has of the URL and its host. A URL that is not
stored is judged as a seed if the configuration names it, else as a link on a page in scope. No logs are read here.
Invariants: every explanation names what decided; only indexes are used, so the cost does not grow with the store.
"""

from collections.abc import Callable
from typing import Any, Final

import orjson

from crawler.content.robots_txt import RobotsTxt
from crawler.core.enums import DenyReason, Source, UrlState
from crawler.core.formatting import ago, count, duration, unreadable_robots, wall_time
from crawler.core.models import Denied, Origin
from crawler.core.options import ANY_DEPTH, PolitenessOptions, Rules
from crawler.core.politeness import overridden, politeness_key
from crawler.core.scope import Overrides, Scope, compile_pattern, option_text, override_text
from crawler.core.url import UrlError, canonical, key_of, parse_typed, respelled_key_of, session_ids, target_of
from crawler.core.url_templates import templates_of
from crawler.engine.scheduling.restrictions import Blocklist
from crawler.fetch.net.address import AddressDenied, AddressPolicy
from crawler.fetch.options import FETCH_OVERRIDES
from crawler.frontier.sqlite.store_reader import StoreReader
from crawler.inspection.explain.explanation import (
    Case,
    Conclusion,
    Explanation,
    add_auxiliary,
    denial_text,
    stored_auxiliary,
    url_of,
)
from crawler.inspection.explain.hosts import RoundRobin, eta_s, request_gap_s

MAX_CHAIN: Final = 30  # pages shown between the URL and its seed


class Explainer:
    """Explains URLs from the store that `reader` reads, None if there is none.

    `rules` None: they are not known, so scope is not judged. `is_live`: the crawl runs. `now` is UTC epoch seconds.
    `gap_s_of`: the mean seconds between two requests to a host in the log, 0 if unknown. `has_seed`: whether a URL is a
    seed of the configuration. `agent`: whose output directory is looked at, if agents share the store.
    """

    def __init__(
        self,
        reader: StoreReader | None,
        rules: Rules | None,
        *,
        is_live: bool,
        now: float,
        gap_s_of: Callable[[str], float] = lambda host: 0.0,
        has_seed: Callable[[str], bool] = lambda url: False,
        agent: str = "",
    ) -> None:
        self._agent = agent
        self._has_seed = has_seed
        self._gap_s_of = gap_s_of
        self._reader = reader
        self._rules = rules
        self._is_live = is_live
        self._now = now

    def why(self, typed: str) -> Explanation:
        """Explain a URL as a person typed it; without a scheme it is https. Raises what the reader raises."""
        try:
            url, origin = parse_typed(typed)
        except UrlError as error:
            explanation = Explanation(typed, typed, verdict="would_deny", deny_reason=error.reason.value)
            explanation.headline = f"would never be fetched: {error}"
            explanation.next_text = "nothing"
            explanation.add("url", "DENY", str(error), deny_reason=error.reason.value)
            return explanation
        case = self._look_up(url, origin)
        case.is_unseen_seed = case.row is None and self._has_seed(case.url)
        explanation = Explanation(typed, case.url, known=case.row is not None)
        self._url_step(explanation, case, url)
        self._found_step(explanation, case)
        self._scope_step(explanation, case)
        self._block_step(explanation, case)
        self._address_step(explanation, case)
        self._robots_step(explanation, case)
        self._override_step(explanation, case)
        self._trap_step(explanation, case)
        self._budget_step(explanation, case)
        self._host_step(explanation, case)
        self._agent_step(explanation, case)
        if case.row is None:
            self._conclude_unseen(explanation, case)
        else:
            Conclusion(explanation, case, self._reader, self._rules, self._now, self._is_live).conclude()
        if self._reader is not None:
            add_auxiliary(explanation, stored_auxiliary(self._reader, case), self._now)
        return explanation

    def _look_up(self, url: str, origin: Origin) -> Case:
        case = Case(url, origin)
        reader = self._reader
        if reader is None:
            return case
        case.host = reader.host(origin)
        if case.host is None:
            return case
        host_id = case.host["id"]
        case.robots = reader.robots(host_id)
        # A redirect may have stored this exact spelling in a row of its own; that row is preferred.
        exact = reader.url(host_id, respelled_key_of(url))
        if exact is not None and exact["target"] == target_of(url):
            case.row = exact
        else:
            case.row = reader.url(host_id, key_of(url)) or reader.url_by_legacy_key(host_id, url)
        if case.row is not None:
            case.visit = reader.visit(case.row["id"])
            if case.row["target"]:
                case.url = f"{origin}{case.row['target']}"
        return case

    # -- the steps, in the order in which the crawl takes them

    def _url_step(self, explanation: Explanation, case: Case, url: str) -> None:
        known_as = canonical(url)
        cut = list(dict.fromkeys(session_ids(url) + (session_ids(case.url) if case.url != url else [])))
        without = f"; left out as a session id: {', '.join(cut)}" if cut else ""
        facts: dict[str, Any] = {"session_ids": cut} if cut else {}
        if case.row is not None and case.url != url:
            text = f"{url} is a duplicate of {case.url}, which was found first{without}"
            explanation.add("url", "", text, canonical=known_as, duplicate_of=case.url, **facts)
            return
        text = url if known_as == url else f"{url}, known as {known_as}{without}"
        explanation.add("url", "", text, canonical=known_as, **facts)

    def _found_step(self, explanation: Explanation, case: Case) -> None:
        row = case.row
        if row is None or self._reader is None:
            if self._reader is not None:
                detail = "" if case.host is not None else f"; no URL of {case.origin} is stored"
                reason = (
                    "it is a seed" if case.is_unseen_seed else "no fetched page links to it, or the links were refused"
                )
                explanation.add("found", "", f"never stored: {reason}{detail}")
            return
        if not row["source"]:  # a takedown's mark: what was known of the URL was erased
            explanation.add("found", "", "not known: that was erased when the URL was taken down")
            return
        chain: list[str] = []
        via = row["via"]
        while via is not None and len(chain) < MAX_CHAIN:
            above = self._reader.url_by_id(via)
            if above is None:
                break
            host = self._reader.host_by_id(above["host"])
            chain.append(url_of(host, above))
            via = above["via"]
        source = _SOURCES.get(row["source"], row["source"])
        when = wall_time(row["found_at"], self._now)
        where = f" via {chain[0]}" if chain else ""
        explanation.add(
            "found", "", f"{when} as {source}{where}, depth {row['depth']}",
            at=row["found_at"], source=row["source"], depth=row["depth"], hop_path=row["hop_path"], via=chain,
        )  # fmt: skip

    def _scope_step(self, explanation: Explanation, case: Case) -> None:
        if self._rules is None:
            explanation.add("scope", "", "not known: the crawl left no run.json; name its configuration with -c")
            return
        scope = Scope.by(self._rules, self._reader.scope_hosts() if self._reader is not None else ())
        self._seed_step(explanation, case, scope)
        row = case.row
        depth, hop_path, source = 1, "L", Source.LINK  # what is not stored is judged as a link on the page of a seed
        if case.is_unseen_seed:
            depth, hop_path, source = 0, "", Source.SEED
        elif row and row["source"]:
            depth, hop_path, source = row["depth"], row["hop_path"], Source(row["source"])
        denied = scope.judge(case.url, case.origin, depth=depth, hop_path=hop_path, source=source)
        if denied is None:
            explanation.add("scope", "ok", self._why_in_scope(case, scope, source))
            return
        text = denied.rule
        if case.is_unseen_seed:
            text += " (it refuses this seed)"
        elif row is None and denied.reason is DenyReason.SCOPE_HOST and self._may_be_requisite(case, scope):
            text += " (as an image, style sheet or script of a page in scope it would be fetched)"
        self._deny(explanation, case, "scope", denied, text)

    @staticmethod
    def _may_be_requisite(case: Case, scope: Scope) -> bool:
        return scope.judge(case.url, case.origin, depth=1, hop_path="E", source=Source.REQUISITE) is None

    @staticmethod
    def _seed_step(explanation: Explanation, case: Case, scope: Scope) -> None:
        """Name the options of the seeds in whose places the URL is."""
        parts = []
        for seed in scope.seeds.of(case.url, case.origin.host):
            given = [("tags", ", ".join(seed.tags)), ("scope", ", ".join(seed.scope))]
            if seed.max_depth is not None:
                given.append(("max_depth", "none" if seed.max_depth == ANY_DEPTH else str(seed.max_depth)))
            text = "; ".join(f"{name} = {value}" for name, value in given if value)
            parts.append(f"{seed.place} in the place of {seed.directory}{f': {text}' if text else ''}".lstrip())
        if parts:
            tags = list(scope.tags_of(case.url, case.origin.host))
            explanation.add("seed", "", "; ".join(parts), tags=tags)

    def _why_in_scope(self, case: Case, scope: Scope, source: Source) -> str:
        if source is Source.SEED:
            return "a seed"
        if source is Source.REQUISITE:
            return "part of a page in scope (scope.requisites)"
        host = case.origin.host
        if (found := scope.overrides.deciding(host, "include", "exclude", url=case.url)) is not None and found[
            1
        ].include:
            return override_text(found, "include = true")
        for rule in scope.options.include:
            if compile_pattern(rule.pattern).search(case.url):
                return f'{rule.place}  include "{rule.pattern}"'.strip()
        own = next((seed for seed in scope.seeds.of(case.url, host) if seed.scope), None)
        if own is not None:
            return f"{own.place}  seed scope = {', '.join(own.scope)} ({own.directory})".lstrip()
        hosts = ", ".join(scope.options.hosts)
        place = scope.directory_above(case.url) or host
        return f"scope.hosts: {hosts}" + (f" ({place})" if scope.covers(case.url, host) else "")

    def _block_step(self, explanation: Explanation, case: Case) -> None:
        if self._reader is None:
            return
        host = case.origin.host
        blocks = Blocklist()
        blocks.load(self._reader.blocks())
        block = blocks.covers(host)
        if block is not None:
            when = wall_time(block.at, self._now)
            text = f"{block.kind} {block.name} was blocked {when}: {block.reason or 'no reason given'}"
            case.denials.append((None, text))
            explanation.add("block", "DENY", text, blocked=block.name, at=block.at)
        if self._reader.is_forgotten(host):
            case.denials.append((None, f"an operator took down {host}"))
            explanation.add("block", "DENY", f"an operator took down {host}; nothing of it is stored again")

    def _address_step(self, explanation: Explanation, case: Case) -> None:
        """Judge addresses that are known without DNS: of a literal, or of network.resolve."""
        if self._rules is None:
            return
        host = case.origin.host
        addresses: tuple[str, ...] = ()
        if host.startswith("[") or host.replace(".", "").isdigit():
            addresses = (host.strip("[]"),)
        else:
            for name, given in self._rules.resolve:
                if name == host or (name.startswith("*.") and host.endswith(name[1:])):
                    addresses = given
                    break
        if not addresses:
            return
        policy = AddressPolicy(self._rules.allow_private)
        for address in addresses:
            try:
                policy.check(address)
            except AddressDenied as denied:
                case.denials.append((None, f"its address may not be connected to: {denied}"))
                explanation.add(
                    "address", "DENY", f"{denied}; network.allow_private would allow it", error_type="address_denied"
                )
                return
        explanation.add("address", "ok", ", ".join(addresses))

    def _robots_step(self, explanation: Explanation, case: Case) -> None:
        rules, robots = self._rules, case.robots
        file = f"{case.origin}/robots.txt"
        if rules is not None and self._politeness_of(case, rules).robots == "ignore":
            by = Overrides(rules.overrides).deciding(case.origin.host, "robots")
            where = "politeness.robots" if by is None else f'{by[1].place} override "{by[0]}" robots'.strip()
            explanation.add("robots", "ok", f"{where} = ignore")
            return
        if robots is None:
            explanation.add("robots", "", f"{file} was not fetched yet; it is fetched before the first page")
            return
        when = f"fetched {ago(self._now - robots['fetched_at'])}{self._changes(case)}"
        facts = {
            "fetched_at": robots["fetched_at"],
            "expires_at": robots["expires_at"],
            "status": robots["status_code"],
        }
        if robots["verdict"] == "unreachable":
            since = robots["failing_since"] or robots["fetched_at"]
            again = wall_time(robots["expires_at"], self._now)
            problem = unreadable_robots(robots["status_code"], robots.get("error")).removeprefix("robots.txt")
            text = f"{file}{problem} since {wall_time(since, self._now)}; requested again at {again}"
            facts["error_type"] = robots.get("error")
            case.denials.append((DenyReason.ROBOTS_UNREACHABLE, text))
            explanation.add("robots", "wait", text, **facts)
            return
        if robots["verdict"] == "allow":
            status = f" ({robots['status_code']})" if robots["status_code"] else ""
            explanation.add(
                "robots", "ok", f"{file}: there is none{status}, so everything is allowed ({when})", **facts
            )
            return
        token = rules.robots_token if rules is not None and rules.robots_token else "*"
        verdict = RobotsTxt.parse(robots["body"] or b"").allows(case.url, token)
        facts |= {"line": verdict.line, "rule": verdict.rule}
        line = f"line {verdict.line} " if verdict.line is not None else ""
        if not verdict.allowed:
            denied = Denied(DenyReason.ROBOTS, f'{file} {line}"{verdict.rule}"')
            self._deny(explanation, case, "robots", denied, f"{denied.rule} ({when})", **facts)
            return
        rule = f'{line}"{verdict.rule}"' if verdict.rule else "no rule matches"
        explanation.add("robots", "ok", f"{file} {rule} ({when})", **facts)

    @staticmethod
    def _politeness_of(case: Case, rules: Rules) -> PolitenessOptions:
        return overridden(rules.politeness, Overrides(rules.overrides).of(case.origin.host))

    def _override_step(self, explanation: Explanation, case: Case) -> None:
        """Name the overrides of the URL and its host, with what they change of its requests."""
        overrides = Overrides(() if self._rules is None else self._rules.overrides)
        host, url = case.origin.host, case.url
        decided = ((option, overrides.deciding(host, option, url=url)) for option in _OVERRIDABLE)
        parts = [option_text(found, option) for option, found in decided if found is not None]
        if parts:
            explanation.add("override", "", "; ".join(parts))

    def _changes(self, case: Case) -> str:
        """The number of changes of robots.txt, from the versions in the store."""
        if self._reader is None or case.host is None:
            return ""
        versions = self._reader.robots_versions(case.host["id"])
        if len(versions) < 2:
            return ""
        return f", changed {count(len(versions) - 1, 'time')}, last {wall_time(versions[0]['fetched_at'], self._now)}"

    def _trap_step(self, explanation: Explanation, case: Case) -> None:
        """Judge whether the URL belongs to a template whose pages look endless."""
        if self._reader is None or case.host is None:
            return
        if self._rules is not None and self._rules.traps.detect == "off":
            return
        suspect = None if case.row is None else self._reader.suspect(case.row["id"])
        if case.row is not None and suspect is None:  # it was fetched, or is queued as usual
            return
        names = (suspect,) if suspect else templates_of(target_of(case.url))
        for row in self._reader.templates(case.host["id"], names):
            name, since = row["template"], row["since_at"]
            if row["released_at"] is not None:
                text = f'"{name}" was suspected, released {wall_time(row["released_at"], self._now)}'
                explanation.add("trap", "ok", text, template=name, released_at=row["released_at"])
                return
            if suspect or since is not None:
                when = f" since {wall_time(since, self._now)}" if since is not None else ""
                spent = (
                    f"; {count(row['spent'], 'suspect')} were fetched and led to more pages of the kind"
                    if row["spent"]
                    else ""
                )
                text = f'"{name}" looks endless{when}: its pages are alike{spent}'
                explanation.add("trap", "wait", text, template=name, spent=row["spent"])
                return

    def _budget_step(self, explanation: Explanation, case: Case) -> None:
        rules = self._rules
        if rules is None or self._reader is None or (case.visit is not None and case.visit["attempts"]):
            return
        counters = self._reader.meta("counters")
        used = int(orjson.loads(counters).get("urls_fetched", 0)) if counters else 0
        limits = [("scope.max_urls", rules.scope.max_urls, used)]
        if case.host is not None:
            name, limit = "scope.max_urls_per_host", rules.scope.max_urls_per_host
            if (found := Overrides(rules.overrides).deciding(case.origin.host, "max_urls")) is not None:
                name = f'{found[1].place} override "{found[0]}" max_urls'.strip()
                limit = found[1].max_urls or None
            limits.append((name, limit, case.host["fetched"]))
        for name, limit, spent in limits:
            if limit is None:
                continue
            is_spent = spent >= limit
            text = f"{name} = {count(limit)}, {'used up' if is_spent else f'{count(spent)} used'}"
            explanation.add("budget", "DENY" if is_spent else "ok", text, budget=name, limit=limit, used=spent)
            if is_spent:
                case.denials.append((None, f"{name} = {count(limit)} is reached"))

    def _host_step(self, explanation: Explanation, case: Case) -> None:
        if self._reader is None or case.host is None:
            return
        key = case.origin.host
        if self._rules is not None:
            key = politeness_key(case.origin.host, self._rules.politeness)
        backoff = self._reader.backoff(key)
        if backoff is not None and backoff["until_at"] > self._now:
            case.backoff_until, case.backoff_reason = backoff["until_at"], backoff["reason"]
            until = f"{wall_time(backoff['until_at'], self._now)} (in {duration(backoff['until_at'] - self._now)})"
            failures = f", {count(backoff['strikes'], 'failure')} in a row" if backoff["strikes"] > 1 else ""
            eta = self._queue_eta(case, key)
            text = f"{key} backs off until {until}: {backoff['reason']}{failures}{self._eta_text(case, eta)}"
            explanation.add("host", "wait", text, until_at=backoff["until_at"], reason=backoff["reason"],
                            strikes=backoff["strikes"], eta_s=eta)  # fmt: skip
            return
        host = case.host
        text = (
            f"{count(host['queued'])} queued; attempts at pages: {count(host['ok'])} ok, {count(host['errors'])} failed"
        )
        if host["last_at"] is not None:
            text += f"; last request {ago(self._now - host['last_at'])}"
        eta = self._queue_eta(case, key)
        text += self._eta_text(case, eta)
        explanation.add("host", "ok", text, queued=host["queued"], ok=host["ok"], errors=host["errors"], eta_s=eta)

    def _agent_step(self, explanation: Explanation, case: Case) -> None:
        """Name the agent that owns the host, and that whose log has the last attempt."""
        reader = self._reader
        if reader is None or case.host is None or not reader.is_shared:
            return
        explanation.agent = reader.slot_agent(case.host["slot"])
        text = f"the host is {explanation.agent}'s" if explanation.agent else "no agent has the host now"
        if case.visit is not None and case.visit["attempts"]:
            # An attempt without a response left no record; the files are then those of the one before.
            files = (case.visit["warc_file"], case.visit["pages_file"]) if case.visit["last_status"] else ()
            wrote = next((reader.file_agent(one) for one in files if one is not None), explanation.agent)
            if wrote not in (None, self._agent):
                explanation.log_agent = wrote
                text += f"; the last attempt was {wrote}'s, and is in the log in its output directory"
        explanation.add("agent", "", text, agent=explanation.agent, log_agent=explanation.log_agent)

    def _queue_eta(self, case: Case, key: str) -> float | None:
        """Seconds until the host's queue is empty, as `hosts` estimates it. None if unknown, and for denied URLs and
        hosts that get no requests.
        """
        reader, rules, host = self._reader, self._rules, case.host
        if reader is None or rules is None or host is None:
            return None
        if case.denials or (case.row is not None and case.row["state"] == UrlState.DENIED):
            return None
        by_domain = rules.politeness.key != "host"
        origins = reader.origins_of(host["host"])
        of_name = [row["queued"] for row in origins]
        of_key = reader.queues_of_domain(host) if by_domain else of_name
        crawl_delay_s = case.robots["crawl_delay_s"] if case.robots is not None else None
        gap_s = request_gap_s(self._politeness_of(case, rules), crawl_delay_s, reader.response_time(key))
        queued = host["queued"]
        was_requested = any(row["last_at"] is not None or reader.robots(row["id"]) is not None for row in origins)
        logged_s = self._gap_s_of(host["host"]) if queued and was_requested else 0.0  # the log is long to read
        by_log_s = logged_s * RoundRobin(of_name).until_done(queued)
        by_delay_s = gap_s * RoundRobin(of_key).until_done(queued)
        return eta_s(queued, by_delay_s, by_log_s, case.backoff_until - self._now)

    @staticmethod
    def _eta_text(case: Case, eta: float | None) -> str:
        if not eta or case.host is None:
            return ""
        return f"; the queue takes at least {duration(eta)}"

    def _deny(self, explanation: Explanation, case: Case, name: str, denied: Denied, text: str, **facts: Any) -> None:
        case.denials.append((denied.reason, denied.rule))
        explanation.add(name, "DENY", text, deny_reason=denied.reason.value, **facts)

    # -- headline and next step of a URL that is not stored

    def _conclude_unseen(self, explanation: Explanation, case: Case) -> None:
        prefix = "never seen" if self._reader is not None else "no crawl has stored anything"
        if case.is_unseen_seed:
            prefix = "a seed of the configuration, not stored"
        if case.denials:
            reason, rule = case.denials[0]
            explanation.verdict, explanation.deny_reason = "would_deny", reason.value if reason else None
            explanation.headline = f"{prefix}; it would not be fetched: {denial_text(reason, rule)}"
            explanation.next_text = "nothing"
            return
        explanation.verdict = "would_fetch"
        if case.is_unseen_seed:
            explanation.headline = f"{prefix} yet; it is stored and fetched after the next start or reload"
            explanation.next_text = "nothing, until the crawl is started or reloaded"
            return
        explanation.headline = f"{prefix}; it would be fetched if a page in scope linked to it"
        if self._rules is None:
            explanation.headline = f"{prefix}; whether it is in scope is not known"
        explanation.next_text = "nothing, until a link or a seed leads to it"


# Options of overrides that no other step names.
_OVERRIDABLE: Final = (
    "delay_s", "max_crawl_delay_s", "adaptive", "connections_per_host", "max_depth", "requisites", "recrawl",
    "min_interval_s", "max_interval_s", *FETCH_OVERRIDES,
)  # fmt: skip
_SOURCES: Final = {
    Source.SEED: "a seed",
    Source.LINK: "a link",
    Source.REDIRECT: "a redirect",
    Source.REQUISITE: "part of a page",
    Source.CANONICAL: "a canonical URL",
    Source.ALTERNATE: "an alternate",
    Source.ROBOTS: "a sitemap that robots.txt names",
    Source.INDEX: "a sitemap that an index lists",
    Source.SITEMAP: "an entry of a sitemap",
    Source.FEED: "a feed that a page names",
    Source.ENTRY: "an entry of a feed",
}
