"""Keeps parts of a site that look endless from taking over the crawl.

The pages of a host are compared within their URL templates (`core.url_templates`). URLs of a template are suspects if
nearly all of its pages are alike: the store sets them aside, and they are fetched when the host has nothing else queued
(trials). A trial that says nothing new and makes its template grow, by itself or by what it leads
to, is paid for from a budget; once that is spent, what is left of the template is left, and the crawl says so. Other
trials cost nothing, so that a finite template is fetched to its end, however alike its pages are.

It knows nothing of requests: whoever makes them says what came of them.

Invariants: verdicts follow from the pages that the store holds, and budgets are in the store, so that a restart changes
neither (it forgets which words of trials were new). At most HOSTS_WATCHED hosts and TEMPLATES_WATCHED templates are in
memory, beside those of one host and of hosts with trials under way; the others are read again when they have work.
"""

import random
import string
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Final

from crawler.content.html.fingerprint import Fingerprint
from crawler.core import models
from crawler.core.clock import Clock
from crawler.core.enums import Source, TaskKind
from crawler.core.models import HostTemplates, PageNote, Settlement, Task, TemplateRow
from crawler.core.options import TrapOptions
from crawler.core.url import target_of
from crawler.core.url_templates import (
    ERROR_PAGE_LINKS,
    LEAST,
    PageSample,
    TemplateSample,
    general_templates_of,
    hashes_of,
    is_sampled,
    is_suspicious,
    rank_of,
    sketch,
    templates_of,
)
from crawler.engine.pages.response_processor import ProcessedResponse
from crawler.engine.scheduling.host import Host
from crawler.frontier.base import Frontier
from crawler.obs.events import Event

TRIALS: Final = 200  # suspects of a template, over all runs, that may make it grow with more of the same …
PLAIN_TRIALS: Final = 600  # … where its URLs show no sign of having no end
GOOD_TRIAL: Final = 20  # more of them for each trial that brought something new
LED_TO: Final = 16_384  # URLs of a host that trials led to and that are remembered as such
FEW_TRIALS: Final = 16  # may be under way although a smaller budget is left: one by one they would take for ever
TRIALS_AT_ONCE: Final = 256  # if the budget has room for so many
HOSTS_WATCHED: Final = 2_048
TEMPLATES_WATCHED: Final = 32_768  # of all hosts together; some 50 MiB
TEMPLATES_OF_HOST: Final = 8_192  # beyond, only the most general ones get a new sample
WHOLE_HOST: Final = 10  # times `max_pages_per_template` pages may be fetched of all templates of a host together
SAME_TITLES: Final = 12  # pages of one folder in a row, that make an error page likely
PROBES: Final = 4  # of one host
TITLES: Final = 512  # folders of a host whose last title is remembered


@models.dataclass(frozen=True, slots=True)
class PageCheck:
    """What is to be looked at on one page. `looks`: its words are needed."""

    looks: bool
    rank: int | None = None  # where it is sampled
    trial: str | None = None


@dataclass(slots=True)
class _Titles:
    """The run of pages of a folder that had one title."""

    title: str = ""
    run: int = 0


@dataclass(slots=True)
class HostTraps:
    """What is known of one host. `is_loaded`: `samples`, `rows` and `suspects` are as the store has them."""

    is_loaded: bool = False
    samples: dict[str, TemplateSample] = field(default_factory=dict)
    rows: dict[str, TemplateRow] = field(default_factory=dict)  # their `pages` are as of when they were read
    pages: dict[str, int] = field(default_factory=dict)  # settled HTML pages, by template
    suspects: dict[str, int] = field(default_factory=dict)  # URLs set aside, by template
    alike: set[str] = field(default_factory=set)  # templates with that verdict
    full: set[str] = field(default_factory=set)  # templates with as many pages as they may have
    trials: dict[int, str] = field(default_factory=dict)  # URL ids under way, with their template
    led_to: dict[int, str] = field(default_factory=dict)  # URL ids of other templates that trials led to
    titles: OrderedDict[str, _Titles] = field(default_factory=OrderedDict)
    probed: set[str] = field(default_factory=set)  # folders
    soft_404: list[Fingerprint] = field(default_factory=list)  # pages that do not exist, as the host answers them


class TrapWatch:
    """`on_event` gets `suspect` and `probe` lines."""

    def __init__(
        self,
        options: TrapOptions,
        frontier: Frontier,
        clock: Clock,
        rng: random.Random,
        on_event: Callable[[Event, dict[str, object]], None],
    ) -> None:
        self._options = options
        self._frontier = frontier
        self._clock = clock
        self._rng = rng
        self._on_event = on_event
        self._hosts: OrderedDict[int, HostTraps] = OrderedDict()
        self._dirty: dict[tuple[int, str], TemplateRow] = {}
        self._dirty_pages: dict[int, list[Fingerprint]] = {}
        self._templates = 0  # in memory

    def reconfigure(self, options: TrapOptions) -> None:
        """Other options are in force: all that is known is read again, and judged by them."""
        self._options = options
        for traps in self._hosts.values():
            self._unload(traps)

    async def load(self, host: Host) -> None:
        """Have what the store knows of a host at hand, if that may matter. Raises FrontierFull."""
        traps = self._hosts.get(host.id)
        if traps is not None and traps.is_loaded:
            self._hosts.move_to_end(host.id)
            return
        if self._options.detect == "off" and not host.has_suspects:
            return
        if host.fetched < LEAST and not host.has_suspects:  # too few for any verdict
            return
        stored = await self._frontier.templates_of_host(host.id)
        traps = self._watched(host.id)
        if not traps.is_loaded:
            traps.is_loaded = True
            self._take_over(traps, stored)
            self._look_again(host, traps)

    def _take_over(self, traps: HostTraps, stored: HostTemplates) -> None:
        traps.rows = {row.template: row for row in stored.rows}
        traps.pages = {row.template: row.pages for row in stored.rows}
        traps.suspects = {one.template: one.urls for one in stored.suspects}
        traps.soft_404 = [Fingerprint.from_bytes(one) for one in _split(stored.error_pages)]
        for page in stored.pages:
            sample = PageSample(rank_of(page.target), array("I", page.words))
            for _, known in self._samples_of(traps, page.target):
                known.add(sample)
        traps.alike = {template for template, known in traps.samples.items() if known.is_alike}
        traps.full = {template for template in traps.rows if self._is_full(traps, template)}

    def _samples_of(self, traps: HostTraps, target: str) -> Iterator[tuple[str, TemplateSample]]:
        """The samples that a page belongs to."""
        templates = templates_of(target)
        for template in templates if len(traps.samples) < TEMPLATES_OF_HOST else templates[-2:]:
            sample = traps.samples.get(template)
            if sample is None:
                sample = traps.samples[template] = TemplateSample()
                self._templates += 1
            yield template, sample

    # -- which URLs are suspects

    def suspect_of(self, task: Task, host: Host) -> str | None:
        """The template that a queued task is a suspect of; None if it may be fetched in its turn. A trial of a template
        that is not the right one any more is forgotten as such.
        """
        traps = self._hosts.get(host.id)
        if traps is None or self._options.detect != "hold" or not (traps.alike or traps.full):
            return None
        if not task.is_first or task.kind is not TaskKind.PAGE or task.source is Source.REQUISITE:
            return None
        templates = templates_of(target_of(task.url))
        if traps.alike.isdisjoint(templates) and traps.full.isdisjoint(templates):
            return None
        if any(self._is_released(traps, template) for template in templates):
            return None
        found = self._alike_among(traps, templates) or next((one for one in templates if one in traps.full), None)
        trial = traps.trials.get(task.id)
        if trial is None:
            return found
        if found is None or trial in (found, ERROR_PAGE_LINKS):
            return None
        del traps.trials[task.id]  # since it was set aside, another template has got the verdict
        return found

    def _alike_among(self, traps: HostTraps, templates: Sequence[str]) -> str | None:
        """The most specific template with a verdict decides. If it is alike, its suspects are those of the most general
        one that is alike as well, so that the parts of a trap share one budget; but for the whole host's.
        """
        decided: list[str] = []
        for one in templates:
            known = traps.samples.get(one)
            if known is not None and known.has_verdict:
                decided.append(one)
            elif known is not None and not decided and known.seems_different:
                return None
        if not decided or decided[0] not in traps.alike:
            return None
        *_, last = takewhile(
            traps.alike.__contains__, decided[:1] + [one for one in decided[1:] if one != templates[-1]]
        )
        return last

    def _is_released(self, traps: HostTraps, template: str) -> bool:
        row = traps.rows.get(template)
        return row is not None and row.released_at is not None

    def _is_full(self, traps: HostTraps, template: str) -> bool:
        most = self._options.max_pages_per_template * (WHOLE_HOST if template.startswith("/**") else 1)
        return traps.pages.get(template, 0) >= most and not self._is_released(traps, template)

    def set_aside(self, host: Host, templates: Iterable[str]) -> None:
        """The store has set suspects of these templates aside, one for each time that a template is named."""
        traps = self._watched(host.id)
        for template in templates:
            traps.suspects[template] = traps.suspects.get(template, 0) + 1
        self._look_again(host, traps)

    def linked(self, host: Host) -> None:
        """A URL of the host that only error pages had is linked from another page: it is queued."""
        traps = self._watched(host.id)
        traps.suspects[ERROR_PAGE_LINKS] = max(0, traps.suspects.get(ERROR_PAGE_LINKS, 0) - 1)

    # -- when they are fetched

    def next_trials(self, host: Host) -> list[tuple[str, int]]:
        """Templates of which suspects may be queued now, and how many of each."""
        traps = self._hosts.get(host.id)
        if traps is None:
            return []
        room = ((template, self._room(traps, template)) for template, urls in traps.suspects.items() if urls)
        return [(template, count) for template, count in room if count > 0]

    def _room(self, traps: HostTraps, template: str) -> int:
        """How many suspects of a template may be queued now."""
        if self._options.detect != "hold" or self._is_released(traps, template):
            return TRIALS_AT_ONCE
        if template in traps.full:
            return 0
        if template != ERROR_PAGE_LINKS and template not in traps.alike:  # the verdict did not last
            return TRIALS_AT_ONCE
        row = traps.rows.get(template)
        budget = _budget(template) if row is None else _budget(template) + GOOD_TRIAL * row.good - row.spent
        if budget <= 0:
            return 0
        under_way = sum(one == template for one in traps.trials.values())
        return min(TRIALS_AT_ONCE, max(FEW_TRIALS, budget)) - under_way

    def queued(self, host: Host, template: str, url_ids: Sequence[int]) -> None:
        """The store has queued these suspects."""
        traps = self._watched(host.id)
        traps.suspects[template] = max(0, traps.suspects.get(template, 0) - len(url_ids)) if url_ids else 0
        traps.trials.update((url_id, template) for url_id in url_ids)
        self._look_again(host, traps)

    def _look_again(self, host: Host, traps: HostTraps) -> None:
        host.has_suspects = any(urls and self._room(traps, template) > 0 for template, urls in traps.suspects.items())

    def unload(self, host: Host) -> None:
        """What the store says of a host is to be read again. Trials under way stay known as such."""
        traps = self._hosts.get(host.id)
        if traps is not None:
            self._unload(traps)

    def _unload(self, traps: HostTraps) -> None:
        traps.is_loaded = False
        self._templates -= len(traps.samples)
        traps.samples = {}

    # -- pages

    def begin(self, host: Host, task: Task) -> PageCheck | None:
        """A page was fetched; None if nothing about it is to be looked at."""
        if self._options.detect == "off":
            return None
        traps = self._hosts.get(host.id)
        trial = self.trial_of(host, task)
        rank = None
        if not task.is_revisit:
            target = target_of(task.url)
            hashed = rank_of(target)
            if is_sampled(hashed, suspicious=False) or (is_sampled(hashed, suspicious=True) and is_suspicious(target)):
                rank = hashed
        looks = rank is not None or trial is not None or (traps is not None and bool(traps.soft_404))
        return PageCheck(looks, rank, trial)

    def trial_of(self, host: Host, task: Task) -> str | None:
        """The template of which a task is a trial, or to which a trial led."""
        traps = self._hosts.get(host.id)
        return None if traps is None else traps.trials.get(task.id) or traps.led_to.get(task.id)

    def is_error_page(self, host: Host, processed: ProcessedResponse) -> bool:
        """Whether a page says what the host says of pages that do not exist."""
        traps, found = self._hosts.get(host.id), processed.fingerprint
        if traps is None or found is None or self._options.detect != "hold":
            return False
        return any(found.is_near(known) for known in traps.soft_404)

    def probe_target(self, host: Host, task: Task, processed: ProcessedResponse) -> str | None:
        """The target of a page that should not exist, if the host must be asked for one: pages of a folder have one
        title for all.
        """
        title = processed.page.title if processed.page is not None else None
        if title is None or not self._options.soft_404 or host.fetched < SAME_TITLES:
            return None
        traps = self._watched(host.id)
        if len(traps.probed) >= PROBES:
            return None
        folder, _, name = target_of(task.url).partition("?")[0].rpartition("/")
        titles = traps.titles.get(folder)
        if titles is None:
            titles = traps.titles[folder] = _Titles()
            if len(traps.titles) > TITLES:
                traps.titles.popitem(last=False)
        shorn = title.replace(name, "").strip() if name else title
        titles.run = titles.run + 1 if shorn == titles.title else 1
        titles.title = shorn
        if titles.run < SAME_TITLES or folder in traps.probed:
            return None
        traps.probed.add(folder)
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

    def note(
        self, host: Host, task: Task, check: PageCheck, processed: ProcessedResponse, *, is_error_page: bool
    ) -> PageNote:
        """What the store is to keep of a page that was read."""
        traps = self._hosts.get(host.id)
        found = processed.fingerprint
        words = sketch(found.words).tobytes() if found is not None and check.rank is not None else None
        counted: tuple[str, ...] = ()
        is_html = processed.page is not None and processed.page.charset is not None
        if traps is not None and traps.samples and is_html and not task.is_revisit:
            known = traps.samples
            general = general_templates_of(target_of(task.url))
            counted = tuple(one for one in general if one in known and known[one].has_verdict)
        is_good = False
        if traps is not None and found is not None and check.trial is not None and not is_error_page:
            sample = traps.samples.setdefault(check.trial, TemplateSample())
            is_good = sample.learns(hashes_of(found.words))
        elif traps is not None and check.trial is not None and processed.page is not None:
            is_good = self._is_new_media(traps, check.trial, processed)
        return PageNote(words, counted, check.trial, is_good, is_error_page)

    def _is_new_media(self, traps: HostTraps, trial: str, processed: ProcessedResponse) -> bool:
        """A picture, film or document that was not there before is content."""
        kind = (processed.page.content_type or "") if processed.page is not None else ""
        if not kind.startswith(("image/", "video/", "audio/", "application/pdf")) or processed.payload_digest is None:
            return False
        return traps.samples.setdefault(trial, TemplateSample()).learns_one(processed.payload_digest.encode())

    def stored(self, host: Host, settlement: Settlement, new_links: Sequence[tuple[int, int, str]]) -> bool:
        """A page is in the store. `new_links` are URL id, host id and target of what was first found on a trial.
        Returns whether more URLs are suspects than were.
        """
        note, traps = settlement.note, self._hosts.get(host.id)
        if traps is None:
            return False
        before = len(traps.alike) + len(traps.full)
        trial = traps.trials.pop(settlement.task.id, None) or traps.led_to.pop(settlement.task.id, None)
        if note is not None and traps.is_loaded:
            for template in note.counted:
                traps.pages[template] = traps.pages.get(template, 0) + 1
                if template not in traps.full and self._is_full(traps, template):
                    traps.full.add(template)
                    self._say_suspect(host, template, "max_pages", pages=traps.pages[template])
            if note.words is not None:
                self._sample(host, traps, settlement.task, note.words)
        if trial is not None:
            self._tried(host, traps, trial, settlement, new_links)
        if traps.suspects:
            self._look_again(host, traps)
        return len(traps.alike) + len(traps.full) > before

    def _sample(self, host: Host, traps: HostTraps, task: Task, words: bytes) -> None:
        target = target_of(task.url)
        page = PageSample(rank_of(target), array("I", words))
        for template, sample in self._samples_of(traps, target):
            if not sample.add(page) or not sample.has_verdict or sample.is_alike is (template in traps.alike):
                continue
            if not sample.is_alike:
                traps.alike.discard(template)
                continue
            traps.alike.add(template)
            if not self._is_released(traps, template):
                self._say_suspect(host, template, "alike", judged=len(sample.pages), alike=sample.alike_count)
                row = self._row(traps, host.id, template)
                self._change(host.id, traps, replace(row, since_at=row.since_at or self._clock.now()))
        self._let_go(but=host.id)

    def _say_suspect(self, host: Host, template: str, why: str, **more: object) -> None:
        where = {"server_address": host.origin.host, "server_port": host.origin.port, "template": template}
        self._on_event(Event.SUSPECT, {**where, "why": why, "action": self._options.detect, **more})

    def _tried(
        self,
        host: Host,
        traps: HostTraps,
        trial: str,
        settlement: Settlement,
        new_links: Sequence[tuple[int, int, str]],
    ) -> None:
        """A trial, or what one led to, is in the store. If it said something new it has earned more of them; if not,
        and its template grew by it, it is paid for.
        """
        is_good = settlement.note is not None and settlement.note.is_good
        grew = False
        for url_id, host_id, target in new_links:
            if host_id != host.id:
                continue
            if trial == ERROR_PAGE_LINKS or trial in templates_of(target):
                grew = True
            elif len(traps.led_to) < LED_TO:
                traps.led_to[url_id] = trial
        if grew or is_good:
            row = self._row(traps, host.id, trial)
            row = replace(row, spent=row.spent + (grew and not is_good), good=row.good + is_good)
            self._change(host.id, traps, row)
            if grew and not is_good and row.spent == _budget(trial) + GOOD_TRIAL * row.good:
                self._say_suspect(host, trial, "trials_spent", urls=traps.suspects.get(trial, 0))

    def _row(self, traps: HostTraps, host_id: int, template: str) -> TemplateRow:
        return traps.rows.get(template) or TemplateRow(host_id, template)

    def _change(self, host_id: int, traps: HostTraps, row: TemplateRow) -> None:
        traps.rows[row.template] = row
        self._dirty[host_id, row.template] = row

    # -- for the next commit

    def take_rows(self) -> list[TemplateRow]:
        """Rows of templates that changed since last asked. Their `pages` are the store's own to count."""
        rows = list(self._dirty.values())
        self._dirty.clear()
        return rows

    def take_error_pages(self) -> list[tuple[int, bytes]]:
        """Host ids with what their pages look like that do not exist, where that changed since last asked."""
        changed = [(host_id, _join(one.as_bytes() for one in pages)) for host_id, pages in self._dirty_pages.items()]
        self._dirty_pages.clear()
        return changed

    def _watched(self, host_id: int) -> HostTraps:
        traps = self._hosts.get(host_id)
        if traps is None:
            traps = self._hosts[host_id] = HostTraps()
            self._let_go(but=host_id)
        else:
            self._hosts.move_to_end(host_id)
        return traps

    def _let_go(self, *, but: int) -> None:
        """Forget hosts of which nothing was asked for longest, until the rest is within the bounds."""
        while len(self._hosts) > HOSTS_WATCHED or self._templates > TEMPLATES_WATCHED:
            oldest = next((id_ for id_, one in self._hosts.items() if id_ != but and not one.trials), None)
            if oldest is None:
                return
            self._templates -= len(self._hosts.pop(oldest).samples)


def _budget(template: str) -> int:
    has_sign = any(sign in template for sign in ("?", "{date}", "{id}", "{again}"))
    return TRIALS if has_sign or template == ERROR_PAGE_LINKS else PLAIN_TRIALS


def _join(parts: Iterable[bytes]) -> bytes:
    return b"".join(len(part).to_bytes(4) + part for part in parts)


def _split(joined: bytes) -> list[bytes]:
    parts, at = [], 0
    while at < len(joined):
        end = at + 4 + int.from_bytes(joined[at : at + 4])
        parts.append(joined[at + 4 : end])
        at = end
    return parts
