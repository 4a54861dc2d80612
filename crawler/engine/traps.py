"""Watches hosts for parts that have no end, and holds their quarantines.

A host is watched once it has answered more than a few pages; each page then counts for its template
(`core.trapshape`), samples of a template are judged (`core.novelty`), and a template that proves endless is put in
quarantine with the evidence. Pages that say what a page says that cannot exist (a soft 404) lead nowhere. What was
decided is in the store, and every few pages what was counted; a sample under way is in memory only. It knows nothing
of requests: who asks is told what to look at.

Invariant: at most HOSTS_WATCHED hosts are watched, each with TEMPLATES templates; quarantines are never forgotten.
"""

import random
import string
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import orjson

from crawler.content.fingerprint import Fingerprint
from crawler.core import value
from crawler.core.clock import Clock
from crawler.core.novelty import Evidence, Ledger
from crawler.core.options import TrapOptions
from crawler.core.trapshape import Template, TemplateTree, TrapKind
from crawler.core.url import target_of
from crawler.core.values import Denied, Quarantine, Task, TrapCount
from crawler.core.vocabulary import DenyReason
from crawler.engine.clock import SystemClock
from crawler.engine.hosts import Host
from crawler.engine.visit import Reading
from crawler.obs.events import Event

WATCHED_FROM: Final = 16  # pages of a host that are nobody's business
HOSTS_WATCHED: Final = 2_048
TEMPLATES: Final = 512
SAME_TITLES: Final = 12  # pages of one template in a row, that make an error page likely
PROBES: Final = 4  # of one host
KEPT_EVERY: Final = 8  # pages of a template, or combinations: so often its count is stored, and a crash costs no more
_NAMES_OF_PATHS: Final = 512  # paths whose combinations of parameters are counted


@dataclass(slots=True)
class _Page:
    """A template's ledger, and the run of its pages that had one title."""

    ledger: Ledger
    title: str = ""
    same_titles: int = 0


@dataclass(slots=True)
class HostTraps:
    """What is known of one watched host. `soft_404` are pages that do not exist, as it answers them."""

    tree: TemplateTree = field(default_factory=TemplateTree)
    pages: OrderedDict[str, _Page] = field(default_factory=OrderedDict)
    combinations: dict[str, set[str]] = field(default_factory=dict)
    quarantined: dict[str, Quarantine] = field(default_factory=dict)
    released: set[str] = field(default_factory=set)
    probed: set[str] = field(default_factory=set)  # templates
    soft_404: list[Fingerprint] = field(default_factory=list)


@value.dataclass(frozen=True, slots=True)
class Watch:
    """One page under way. `looks`: its text is to be fingerprinted; `counts`: its template is being judged."""

    traps: HostTraps
    template: Template
    page: _Page
    looks: bool
    counts: bool


class TrapWatch:
    """`on_event` gets `quarantine` lines, `on_quarantine` the host whose URLs are to be judged anew."""

    def __init__(
        self,
        options: TrapOptions,
        clock: Clock,
        rng: random.Random,
        on_event: Callable[[Event, dict[str, object]], None],
    ) -> None:
        self._options = options
        self._clock = clock
        self._rng = rng
        self._on_event = on_event
        self._hosts: OrderedDict[int, HostTraps] = OrderedDict()
        self._dirty: list[Quarantine] = []
        self._dirty_pages: dict[int, list[Fingerprint]] = {}
        self._dirty_counts: dict[tuple[int, str, str], TrapCount] = {}

    def load(
        self,
        quarantines: Iterable[Quarantine],
        counts: Sequence[TrapCount] = (),
        error_pages: Iterable[tuple[int, bytes]] = (),
    ) -> None:
        """Take over what an earlier run decided and counted; `counts` those that matter most first."""
        for one in quarantines:
            self._put(one)
        for host_id, stored in error_pages:
            self._watched(host_id).soft_404 = [Fingerprint.from_bytes(one) for one in _split(stored)]
        for count in reversed(counts):
            traps = self._watched(count.host_id)
            if count.names:
                traps.combinations.setdefault(count.template, set()).add(count.names)
            else:
                traps.tree.restore(count.template)
                ledger = Ledger.resumed(TrapKind(count.kind), count.fetched, count.check_at, self._options)
                traps.pages[count.template] = _Page(ledger)

    def take_counts(self) -> list[TrapCount]:
        """Counts that changed since last asked, for the next commit."""
        counts = list(self._dirty_counts.values())
        self._dirty_counts.clear()
        return counts

    def take_quarantines(self) -> list[Quarantine]:
        """Those that changed since last asked, for the next commit."""
        dirty, self._dirty = self._dirty, []
        return dirty

    def take_error_pages(self) -> list[tuple[int, bytes]]:
        """Host ids with what their pages look like that do not exist, where that changed since last asked."""
        changed = [(host_id, _join(one.as_bytes() for one in pages)) for host_id, pages in self._dirty_pages.items()]
        self._dirty_pages.clear()
        return changed

    # -- verdicts

    def judge(self, url: str, host: Host) -> Denied | None:
        """Whether a URL belongs to what is quarantined, or combines its parameters once too often."""
        traps = self._hosts.get(host.id)
        if traps is None or not self._options.detect or ("?" not in url and not traps.quarantined):
            return None
        template = traps.tree.template_of(target_of(url))
        if template.text in traps.quarantined:
            return Denied(DenyReason.TRAP_QUARANTINE, f'quarantined: "{template.text}" brought nothing new')
        if template.combination:
            known = traps.combinations.get(template.text, ())
            if len(known) >= self._options.max_combinations and template.combination not in known:
                return Denied(
                    DenyReason.TRAP_COMBINATIONS,
                    f'traps.max_combinations = {self._options.max_combinations} of "{template.text}"',
                )
        return None

    # -- pages

    def begin(self, host: Host, task: Task) -> Watch | None:
        """A page was fetched; None if nothing about it is to be looked at."""
        if not self._options.detect or host.fetched < WATCHED_FROM:
            return None
        traps = self._watched(host.id)
        template = traps.tree.template_of(target_of(task.url), learns=True)
        page = traps.pages.get(template.text)
        if page is None:
            page = traps.pages[template.text] = _Page(Ledger(template.kind))
            if len(traps.pages) > TEMPLATES:
                traps.pages.popitem(last=False)
        else:
            traps.pages.move_to_end(template.text)
        if template.combination and len(traps.combinations) < _NAMES_OF_PATHS:
            self._note_combination(host.id, template, traps.combinations.setdefault(template.text, set()))
        counts = template.text not in traps.released and page.ledger.count(template.kind, self._options)
        if (fetched := page.ledger.fetched) % KEPT_EVERY == 0 and fetched:
            self._keep(host.id, template.text, "", page.ledger)
        return Watch(traps, template, page, counts or bool(traps.soft_404), counts)

    def _note_combination(self, host_id: int, template: Template, known: set[str]) -> None:
        if template.combination in known:
            return
        known.add(template.combination)
        if len(known) >= KEPT_EVERY:
            for names in known if len(known) == KEPT_EVERY else (template.combination,):
                self._keep(host_id, template.text, names, Ledger(template.kind))

    def _keep(self, host_id: int, template: str, names: str, ledger: Ledger) -> None:
        count = TrapCount(host_id, template, names, ledger.kind.value, ledger.fetched, ledger.check_at)
        self._dirty_counts[host_id, template, names] = count

    def is_error_page(self, watch: Watch, reading: Reading) -> bool:
        """Whether a page says what the host says of pages that do not exist."""
        found = reading.fingerprint
        return found is not None and any(found.is_near(known) for known in watch.traps.soft_404)

    def probe_target(self, watch: Watch, task: Task, reading: Reading) -> str | None:
        """The target of a page that should not exist, if the host must be asked for one: pages of a template have one
        title for all.
        """
        page, title = watch.page, reading.page.title if reading.page is not None else None
        if title is None:
            return None
        target = target_of(task.url).partition("?")[0]
        folder, _, name = target.rpartition("/")
        shorn = title.replace(name, "").strip() if name else title
        page.same_titles = page.same_titles + 1 if shorn == page.title else 1
        page.title = shorn
        traps = watch.traps
        if page.same_titles < SAME_TITLES or not self._options.soft_404:
            return None
        if watch.template.text in traps.probed or len(traps.probed) >= PROBES:
            return None
        traps.probed.add(watch.template.text)
        return f"{folder}/{''.join(self._rng.choices(string.ascii_lowercase, k=20))}"

    def probed(self, host: Host, found: Fingerprint | None) -> None:
        """The answer to a probe; None: the host says as it should that there is no such page."""
        if found is not None:
            traps = self._watched(host.id)
            traps.soft_404 = [*traps.soft_404, found][-PROBES:]
            self._dirty_pages[host.id] = traps.soft_404
        self._on_event(
            Event.PROBE,
            {"server_address": host.origin.host, "server_port": host.origin.port, "soft_404": found is not None},
        )

    def learn(self, host: Host, watch: Watch, reading: Reading) -> bool:
        """Look at a page that was read and judged. Returns whether its template was quarantined for it."""
        found = reading.fingerprint
        if not watch.counts or found is None:
            return False
        own = watch.template.text
        bred, leads_out = 0, False
        for link in reading.discovered:
            if link.origin == host.origin and watch.traps.tree.template_of(target_of(link.url)).text == own:
                bred += 1
            else:
                leads_out = True
        evidence = watch.page.ledger.judge(
            found.words, found.simhash, leads_out=leads_out, bred=bred, options=self._options
        )
        if evidence is None:
            return False
        self._quarantine(host, own, evidence)
        return True

    def _quarantine(self, host: Host, template: str, evidence: Evidence) -> None:
        text = orjson.dumps(evidence.as_dict()).decode()
        one = Quarantine(host.id, template, DenyReason.TRAP_QUARANTINE.value, text, self._clock.now())
        self._put(one)
        self._dirty.append(one)
        self._on_event(
            Event.QUARANTINE,
            {"server_address": host.origin.host, "server_port": host.origin.port, "template": template}
            | evidence.as_dict(),
        )

    def release(self, host: Host, template: str | None = None) -> Sequence[str]:
        """By command: let a template, or all of the host, be fetched again. Returns which."""
        traps = self._hosts.get(host.id)
        chosen = [] if traps is None else [text for text in traps.quarantined if template in (None, text)]
        for text in chosen:
            assert traps is not None
            one = replace(traps.quarantined[text], released_at=self._clock.now())
            self._put(one)
            self._dirty.append(one)
        return chosen

    def quarantined(self, host: Host) -> Sequence[Quarantine]:
        """What of a host is not fetched now."""
        traps = self._hosts.get(host.id)
        return () if traps is None else tuple(traps.quarantined.values())

    def _put(self, one: Quarantine) -> None:
        traps = self._watched(one.host_id)
        traps.tree.widen(one.template)
        if one.released_at is None:
            traps.quarantined[one.template] = one
        else:
            traps.quarantined.pop(one.template, None)
            traps.released.add(one.template)

    def _watched(self, host_id: int) -> HostTraps:
        traps = self._hosts.get(host_id)
        if traps is None:
            traps = self._hosts[host_id] = HostTraps()
            if len(self._hosts) > HOSTS_WATCHED:
                for known in self._hosts:
                    if not self._hosts[known].quarantined and not self._hosts[known].released:
                        del self._hosts[known]
                        break
        else:
            self._hosts.move_to_end(host_id)
        return traps


def _join(parts: Iterable[bytes]) -> bytes:
    return b"".join(len(part).to_bytes(4) + part for part in parts)


def _split(joined: bytes) -> list[bytes]:
    parts, at = [], 0
    while at < len(joined):
        end = at + 4 + int.from_bytes(joined[at : at + 4])
        parts.append(joined[at + 4 : end])
        at = end
    return parts


def unwatched() -> TrapWatch:
    """For whoever asks about single URLs: no host is watched, nothing is quarantined."""
    return TrapWatch(TrapOptions(detect=False), SystemClock(), random.Random(0), lambda event, fields: None)  # noqa: S311 - asked for nothing
