"""Traps: limits the cost of parts of a site that look endless.

The pages of a host are compared within their URL templates (`core.url_templates`). If nearly all pages of a template
are alike, its other URLs are suspects: the store sets them aside, and they are requested when the host has nothing else
queued (trials). A trial is paid from the template's budget if its page has nothing new and leads to new URLs of the
template. When the budget is spent, the other suspects stay set aside, and an event is logged. Other trials are free, so
that a finite template is fetched to its end, even if all its pages are alike.

Invariants: verdicts follow from the stored pages, and budgets are stored, so that a restart changes neither (only the
new words of trials are lost). Apart from one host and from hosts with trials under way, at most HOSTS_WATCHED hosts and
TEMPLATES_WATCHED templates are in memory; the others are read from the store when they have work.
"""

import random
import string
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from crawler.content.html.fingerprint import Fingerprint, pack, unpack
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
    alike_template,
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

TRIALS: Final = 200  # the budget of a template over all runs …
PLAIN_TRIALS: Final = 600  # … if nothing in its URLs is typical of endless parts
GOOD_TRIAL: Final = 20  # added to the budget for each trial with something new
LED_TO: Final = 16_384  # URLs of a host in memory that trials led to
FEW_TRIALS: Final = 16  # may be under way even if less of the budget is left: one at a time would take too long
TRIALS_AT_ONCE: Final = 256  # may be under way if the budget allows
HOSTS_WATCHED: Final = 2_048
TEMPLATES_WATCHED: Final = 32_768  # of all hosts together; some 50 MiB
TEMPLATES_OF_HOST: Final = 8_192  # beyond, only the most general ones get a new sample
WHOLE_HOST: Final = 10  # a whole host may have this many times `max_pages_per_template` pages
SAME_TITLES: Final = 12  # pages of one folder in succession with the same title may be error pages
PROBES: Final = 4  # of one host at most
TITLES: Final = 512  # folders of a host whose last title is remembered


@models.dataclass(frozen=True, slots=True)
class PageCheck:
    """The checks of one page. `needs_words`: its fingerprint is needed."""

    needs_words: bool
    rank: int | None = None  # its rank in samples; None: it is not sampled
    trial: str | None = None  # the template of its trial


@dataclass(slots=True)
class HostTraps:
    """The traps of one host. `is_loaded`: the values agree with the store."""

    is_loaded: bool = False
    samples: dict[str, TemplateSample] = field(default_factory=dict)
    rows: dict[str, TemplateRow] = field(default_factory=dict)  # `pages` as of when it was loaded
    pages: dict[str, int] = field(default_factory=dict)  # settled HTML pages, by template
    suspects: dict[str, int] = field(default_factory=dict)  # URLs set aside, by template
    alike: set[str] = field(default_factory=set)  # templates whose pages are alike
    full: set[str] = field(default_factory=set)  # templates that reached `max_pages_per_template`
    trials: dict[int, str] = field(default_factory=dict)  # template of each trial under way, by URL id
    led_to: dict[int, str] = field(default_factory=dict)  # template of the trial that led to a URL, by URL id
    titles: OrderedDict[str, tuple[str, int]] = field(default_factory=OrderedDict)  # last title and its run, by folder
    probed: set[str] = field(default_factory=set)  # folders
    soft_404: list[Fingerprint] = field(default_factory=list)  # the host's error pages with status 200


class TrapWatch:
    """Traps of all hosts. `on_event` is called with the events `suspect` and `probe`."""

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
        """Apply new options: all hosts are loaded again and judged by them."""
        self._options = options
        for traps in self._hosts.values():
            self._unload(traps)

    async def load(self, host: Host) -> None:
        """Load the templates of a host from the store, if a verdict is possible. Raises FrontierFull."""
        traps = self._hosts.get(host.id)
        if traps is not None and traps.is_loaded:
            self._hosts.move_to_end(host.id)
            self._update_has_suspects(host, traps)
            return
        if self._options.detect == "off" and not host.has_suspects:
            return
        if host.fetched < LEAST and not host.has_suspects:  # too few for any verdict
            return
        stored = await self._frontier.templates_of_host(host.id)
        traps = self._traps_of(host.id)
        if not traps.is_loaded:
            traps.is_loaded = True
            self._fill(traps, stored)
            self._update_has_suspects(host, traps)

    def _fill(self, traps: HostTraps, stored: HostTemplates) -> None:
        traps.rows = {row.template: row for row in stored.rows}
        traps.pages = {row.template: row.pages for row in stored.rows}
        traps.suspects = {one.template: one.urls for one in stored.suspects}
        traps.soft_404 = unpack(stored.error_pages)
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
            yield template, self._sample_of(traps, template)

    def _sample_of(self, traps: HostTraps, template: str) -> TemplateSample:
        sample = traps.samples.get(template)
        if sample is None:
            sample = traps.samples[template] = TemplateSample()
            self._templates += 1
        return sample

    # -- which URLs are suspects

    def suspect_of(self, task: Task, host: Host) -> str | None:
        """The template of which a queued task is a suspect; None: the task may be requested.

        If the task is a trial of another template, it stops being a trial.
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
        full = next((one for one in templates if one in traps.full), None)
        found = alike_template(templates, traps.samples, traps.alike) or full
        trial = traps.trials.get(task.id)
        if trial is None:
            return found
        if found is None or trial in (found, ERROR_PAGE_LINKS):
            return None
        del traps.trials[task.id]  # another template got the verdict after the URL was set aside
        return found

    def _is_released(self, traps: HostTraps, template: str) -> bool:
        row = traps.rows.get(template)
        return row is not None and row.released_at is not None

    def _is_full(self, traps: HostTraps, template: str) -> bool:
        most = self._options.max_pages_per_template * (WHOLE_HOST if template.startswith("/**") else 1)
        return traps.pages.get(template, 0) >= most and not self._is_released(traps, template)

    def suspects_set_aside(self, host: Host, templates: Iterable[str]) -> None:
        """Count suspects that the store set aside. `templates` has the template of each."""
        traps = self._traps_of(host.id)
        for template in templates:
            traps.suspects[template] = traps.suspects.get(template, 0) + 1
        self._update_has_suspects(host, traps)

    def error_link_queued(self, host: Host) -> None:
        """Count a suspect from error pages that is queued because another page links to it."""
        traps = self._traps_of(host.id)
        traps.suspects[ERROR_PAGE_LINKS] = max(0, traps.suspects.get(ERROR_PAGE_LINKS, 0) - 1)

    # -- when they are fetched

    def next_trials(self, host: Host) -> list[tuple[str, int]]:
        """The templates whose suspects may be queued now, each with the number of suspects."""
        traps = self._hosts.get(host.id)
        if traps is None:
            return []
        room = ((template, self._trials_allowed(traps, template)) for template, urls in traps.suspects.items() if urls)
        return [(template, count) for template, count in room if count > 0]

    def _trials_allowed(self, traps: HostTraps, template: str) -> int:
        """The number of suspects of a template that may be queued now."""
        if self._options.detect != "hold" or self._is_released(traps, template):
            return TRIALS_AT_ONCE
        if template in traps.full:
            return 0
        if template != ERROR_PAGE_LINKS and template not in traps.alike:  # it is no longer alike
            return TRIALS_AT_ONCE
        row = traps.rows.get(template)
        budget = _budget(template) if row is None else _budget(template) + GOOD_TRIAL * row.good - row.spent
        if budget <= 0:
            return 0
        under_way = sum(one == template for one in traps.trials.values())
        return min(TRIALS_AT_ONCE, max(FEW_TRIALS, budget)) - under_way

    def trials_queued(self, host: Host, template: str, url_ids: Sequence[int]) -> None:
        """Note that the store queued suspects, which are trials under way now."""
        traps = self._traps_of(host.id)
        traps.suspects[template] = max(0, traps.suspects.get(template, 0) - len(url_ids)) if url_ids else 0
        traps.trials.update((url_id, template) for url_id in url_ids)
        self._update_has_suspects(host, traps)

    def _update_has_suspects(self, host: Host, traps: HostTraps) -> None:
        host.has_suspects = any(urls and self._trials_allowed(traps, one) > 0 for one, urls in traps.suspects.items())

    def unload(self, host: Host) -> None:
        """Have a host loaded again before its next use. Trials under way are kept."""
        traps = self._hosts.get(host.id)
        if traps is not None:
            self._unload(traps)

    def _unload(self, traps: HostTraps) -> None:
        traps.is_loaded = False
        self._templates -= len(traps.samples)
        traps.samples = {}

    # -- pages

    def check_page(self, host: Host, task: Task) -> PageCheck | None:
        """The checks that a received page needs; None: none."""
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
        needs_words = rank is not None or trial is not None or (traps is not None and bool(traps.soft_404))
        return PageCheck(needs_words, rank, trial)

    def trial_of(self, host: Host, task: Task) -> str | None:
        """The template of which a task is a trial, or whose trial led to it; None: neither."""
        traps = self._hosts.get(host.id)
        return None if traps is None else traps.trials.get(task.id) or traps.led_to.get(task.id)

    def is_error_page(self, host: Host, processed: ProcessedResponse) -> bool:
        """Whether a page is like one of the host's known error pages."""
        traps, found = self._hosts.get(host.id), processed.fingerprint
        if traps is None or found is None or self._options.detect != "hold":
            return False
        return any(found.is_near(known) for known in traps.soft_404)

    def probe_target(self, host: Host, task: Task, processed: ProcessedResponse) -> str | None:
        """The target of a page that should not exist, to be requested as a probe; None: no probe is needed.

        It is needed when SAME_TITLES pages of a folder in a row have one title.
        """
        title = processed.page.title if processed.page is not None else None
        if title is None or not self._options.soft_404 or host.fetched < SAME_TITLES:
            return None
        traps = self._traps_of(host.id)
        if len(traps.probed) >= PROBES:
            return None
        folder, _, name = target_of(task.url).partition("?")[0].rpartition("/")
        bare_title = title.replace(name, "").strip() if name else title
        last, run = traps.titles.get(folder, ("", 0))
        run = run + 1 if bare_title == last else 1
        traps.titles[folder] = bare_title, run
        if len(traps.titles) > TITLES:
            traps.titles.popitem(last=False)
        if run < SAME_TITLES or folder in traps.probed:
            return None
        traps.probed.add(folder)
        return f"{folder}/{''.join(self._rng.choices(string.ascii_lowercase, k=20))}"

    def probe_ended(self, host: Host, found: Fingerprint | None) -> None:
        """Note the response to a probe. `found` None: its status says that there is no such page, as it should."""
        if found is not None:
            traps = self._traps_of(host.id)
            traps.soft_404 = [*traps.soft_404, found][-PROBES:]
            self._dirty_pages[host.id] = traps.soft_404
        self._on_event(
            Event.PROBE,
            {"server_address": host.origin.host, "server_port": host.origin.port, "soft_404": found is not None},
        )

    def note_page(
        self, host: Host, task: Task, check: PageCheck, processed: ProcessedResponse, *, is_error_page: bool
    ) -> PageNote:
        """The note about a processed page that the store is to keep."""
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
            is_good = self._sample_of(traps, check.trial).learns(hashes_of(found.words))
        elif traps is not None and check.trial is not None and processed.page is not None:
            is_good = self._is_new_media(traps, check.trial, processed)
        return PageNote(words, counted, check.trial, is_good, is_error_page)

    def _is_new_media(self, traps: HostTraps, trial: str, processed: ProcessedResponse) -> bool:
        """Whether the response is a picture, film or document that no trial had before."""
        kind = (processed.page.content_type or "") if processed.page is not None else ""
        if not kind.startswith(("image/", "video/", "audio/", "application/pdf")) or processed.payload_digest is None:
            return False
        return self._sample_of(traps, trial).learns_one(processed.payload_digest.encode())

    def page_stored(self, host: Host, settlement: Settlement, new_links: Sequence[tuple[int, int, str]]) -> bool:
        """Count a page that was stored. Return whether more templates have suspects now.

        `new_links`: URL id, host id and target of each URL that was first found on a trial.
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
                    self._emit_suspect(host, template, "max_pages", pages=traps.pages[template])
            if note.words is not None:
                self._add_sample(host, traps, settlement.task, note.words)
        if trial is not None:
            self._count_trial(host, traps, trial, settlement, new_links)
        if traps.suspects:
            self._update_has_suspects(host, traps)
        return len(traps.alike) + len(traps.full) > before

    def _add_sample(self, host: Host, traps: HostTraps, task: Task, words: bytes) -> None:
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
                self._emit_suspect(host, template, "alike", judged=len(sample.pages), alike=sample.alike_count)
                row = traps.rows.get(template) or TemplateRow(host.id, template)
                self._put_row(host.id, traps, replace(row, since_at=row.since_at or self._clock.now()))
        self._evict(keep=host.id)

    def _emit_suspect(self, host: Host, template: str, why: str, **more: object) -> None:
        where = {"server_address": host.origin.host, "server_port": host.origin.port, "template": template}
        self._on_event(Event.SUSPECT, {**where, "why": why, "action": self._options.detect, **more})

    def _count_trial(
        self,
        host: Host,
        traps: HostTraps,
        trial: str,
        settlement: Settlement,
        new_links: Sequence[tuple[int, int, str]],
    ) -> None:
        """Count a stored trial, or a page that a trial led to. If it has something new, the budget grows.

        If it has nothing new, but led to new URLs of its template, it is paid from the budget.
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
            row = traps.rows.get(trial) or TemplateRow(host.id, trial)
            row = replace(row, spent=row.spent + (grew and not is_good), good=row.good + is_good)
            self._put_row(host.id, traps, row)
            if grew and not is_good and row.spent == _budget(trial) + GOOD_TRIAL * row.good:
                self._emit_suspect(host, trial, "trials_spent", urls=traps.suspects.get(trial, 0))

    def _put_row(self, host_id: int, traps: HostTraps, row: TemplateRow) -> None:
        traps.rows[row.template] = row
        self._dirty[host_id, row.template] = row

    # -- for the next commit

    def take_rows(self) -> list[TemplateRow]:
        """Return the rows of templates that changed since the last call. The store counts their `pages` itself."""
        rows = list(self._dirty.values())
        self._dirty.clear()
        return rows

    def take_error_pages(self) -> list[tuple[int, bytes]]:
        """Return the packed error pages of hosts, by host id, if they changed since the last call."""
        changed = [(host_id, pack(pages)) for host_id, pages in self._dirty_pages.items()]
        self._dirty_pages.clear()
        return changed

    def _traps_of(self, host_id: int) -> HostTraps:
        traps = self._hosts.get(host_id)
        if traps is None:
            traps = self._hosts[host_id] = HostTraps()
            self._evict(keep=host_id)
        else:
            self._hosts.move_to_end(host_id)
        return traps

    def _evict(self, *, keep: int) -> None:
        """Drop the least recently used hosts from memory until the bounds are kept."""
        while len(self._hosts) > HOSTS_WATCHED or self._templates > TEMPLATES_WATCHED:
            oldest = next((id_ for id_, one in self._hosts.items() if id_ != keep and not one.trials), None)
            if oldest is None:
                return
            self._templates -= len(self._hosts.pop(oldest).samples)


def _budget(template: str) -> int:
    has_sign = any(sign in template for sign in ("?", "{date}", "{id}", "{again}"))
    return TRIALS if has_sign or template == ERROR_PAGE_LINKS else PLAIN_TRIALS
