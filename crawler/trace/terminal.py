"""A traced fetch on a terminal, or as plain text where that is piped.

Owns layout and colour; the words several views share are in `traced_words`, and what happened is in the Trace.
Invariant: nothing a server sent reaches the terminal with its control characters.
"""

import sys
from collections import Counter
from datetime import UTC, datetime
from typing import Final

from rich.console import Console
from rich.text import Text

from crawler.core.formatting import count, counts, duration, printable, size
from crawler.core.models import Failed, Fetched, Redirected
from crawler.trace.certificate import Certificate
from crawler.trace.dial_observer import Dial
from crawler.trace.traced_words import (
    block_words,
    framing_words,
    lines_of,
    robots_words,
    scope_words,
    timings_ms,
    tls_facts,
    verdict,
    why_words,
    would_words,
)
from crawler.trace.tracer import Trace

_LABEL: Final = 13
_TIME_AT: Final = 84  # the column in which times end, where the terminal is wide enough
_FEW_LINKS: Final = 8
_SOON_DAYS: Final = 14  # a certificate that ends sooner is worth a colour
_BAR: Final = 60
_PHASES: Final = (
    ("resolve", "cyan"),
    ("connect", "blue"),
    ("tls", "magenta"),
    ("robots", "yellow"),
    ("first byte", "green"),
    ("body", "bright_green"),
)
_GOOD, _BAD, _DOUBT = "green", "bold red", "yellow"


def show(trace: Trace, *, all_links: bool = False, console: Console | None = None) -> None:
    """Print the trace to stdout."""
    if console is None:
        console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
    view = _View(trace, console.width if console.is_terminal else 0, all_links)
    console.print(view.text(), soft_wrap=True, end="")


class _View:
    """One Text, line by line. `width` 0: as long as lines are."""

    def __init__(self, trace: Trace, width: int, all_links: bool) -> None:
        self._trace = trace
        self._width = width
        self._all_links = all_links
        self._text = Text(end="")
        self._ms = timings_ms(trace)

    def text(self) -> Text:
        trace = self._trace
        self._headline()
        self._address()
        self._tls()
        robots_ms = self._ms["robots"] if trace.robots.record is not None else None
        self._line("robots.txt", robots_words(trace.robots), self._robots_style(), robots_ms)
        self._line("scope", scope_words(trace), _GOOD if trace.scope_denied is None else _DOUBT)
        if trace.waited_s:
            self._line("waited", "between the two, as a crawl does", "", self._ms["waited"])
        if isinstance(trace.result, Fetched) or (trace.result is not None and trace.result.connection is not None):
            self._heads()
            self._body()
        self._links()
        self._bar()
        self._line("a crawl", would_words(trace), "bold")
        return self._text

    # -- parts

    def _headline(self) -> None:
        trace = self._trace
        status = trace.result.head.status_code if isinstance(trace.result, Fetched) else 0
        colour = _GOOD if trace.is_fine else _DOUBT if 200 <= status < 500 else _BAD
        self._text.append("● ", colour)
        self._text.append(printable(verdict(trace)), f"bold {colour}")
        self._text.append(f"  {printable(trace.url)}", "bold")
        self._text.append(f"  {_ms(self._ms['total'])}\n", "dim")
        if isinstance(trace.result, Failed):
            self._line("", trace.result.detail, _BAD)
        if trace.block is not None:
            self._line("", f"{block_words(trace.block)} (crawler unblock lifts it)", _BAD)
        if isinstance(trace.outcome, Redirected):
            self._line("", f"→ {trace.outcome.target}", "cyan")

    def _address(self) -> None:
        dial = self._trace.dial
        if dial is None:
            return
        for n, resolution in enumerate(dial.resolutions):
            source = {"dns": "by DNS", "literal": "an address as it is"}.get(resolution.source, resolution.source)
            proxied = "  (the proxy)" if any(answer.of_proxy for answer in resolution.answers) else ""
            words = f"{resolution.name}  {source}{proxied}"
            self._line("name" if n == 0 else "", words, "", resolution.took_s * 1e3)
            if resolution.failed:
                self._line("", resolution.failed, _BAD)
            for answer in resolution.answers:
                words = f"{answer.refused}: not dialled; network.allow_private can list its network"
                self._line(
                    "",
                    words if answer.refused else f"{answer.address}  {why_words(answer)}",
                    _BAD if answer.refused else _GOOD,
                )
        for n, attempt in enumerate(dial.attempts):
            words = f"{attempt.address} port {attempt.port}" + (f"  {attempt.failed}" if attempt.failed else "")
            self._line("connect" if n == 0 else "", words, _BAD if attempt.failed else "", attempt.took_s * 1e3)

    def _tls(self) -> None:
        dial = self._trace.dial
        if dial is None or dial.origin.scheme != "https" or not dial.attempts:
            return
        tls = tls_facts(dial)
        if tls is not None:
            protocol = tls["tls_next_protocol"] or "no ALPN"
            how = "resumed" if tls["tls_resumed"] else "full handshake"
            words = f"{tls['tls_protocol_version']}  {tls['tls_cipher']}  {protocol}  {how}"
            self._line("TLS", words, "", self._ms["tls"])
        elif dial.failed is not None and self._ms["tls"]:
            self._line("TLS", dial.failed.error_type.value, _BAD, self._ms["tls"])
        else:
            return
        if dial.certificate is None:
            self._line("certificate", dial.certificate_problem or "not seen", _BAD)
        else:
            self._certificate(dial, dial.certificate)

    def _certificate(self, dial: Dial, certificate: Certificate) -> None:
        self._line("certificate", certificate.subject or "(no subject)")
        self._line("  for", ", ".join(certificate.names[:6]) + _more(len(certificate.names) - 6))
        self._line("  issuer", certificate.issuer)
        days = (certificate.not_after - datetime.fromtimestamp(self._trace.started_at, UTC)).days
        left = f"{count(days, 'day')} left" if days >= 0 else f"ended {count(-days, 'day')} ago"
        style = _BAD if days < 0 else _DOUBT if days < _SOON_DAYS else ""
        self._line("  valid", f"{certificate.not_before:%Y-%m-%d} to {certificate.not_after:%Y-%m-%d}  {left}", style)
        self._line("  key", f"{certificate.key}  sha256 {certificate.sha256[:16]}…", "dim")
        if dial.failed is not None:
            self._line("  verified", f"no: {dial.failed.detail}", _BAD)
            self._line("", "(seen by a second handshake, in which nothing was sent)", "dim")
        elif not self._trace.verifies:
            self._line("  verified", "no: tls.verify = false", _BAD)
        else:
            self._line("  verified", "yes", _GOOD)

    def _robots_style(self) -> str:
        robots = self._trace.robots
        if robots.denied is not None:
            return _BAD
        return _GOOD if robots.record is not None else _DOUBT

    def _heads(self) -> None:
        trace = self._trace
        self._text.append("\n")
        for line in lines_of(trace.request):
            self._text.append(f"  > {printable(line)}\n", "cyan")
        if not isinstance(trace.result, Fetched):
            self._text.append("\n")
            return
        for n, line in enumerate(lines_of(trace.result.raw_head)):
            name, colon, value = line.partition(":")
            self._text.append("  < ", "green")
            if n and colon:
                self._text.append(printable(name) + colon, "green")
                self._text.append(printable(value) + "\n")
            else:
                self._text.append(printable(line) + "\n", "bold green")
        self._text.append("\n")

    def _body(self) -> None:
        trace, result = self._trace, self._trace.result
        if not isinstance(result, Fetched):
            return
        clean = result.truncated is None and not result.tainted
        if result.resend_count:
            self._line("sent again", "once, over a fresh connection", _DOUBT)
        self._line("first byte", "", "", self._ms["first byte"])
        self._line("framing", framing_words(trace), "" if clean else _DOUBT)
        self._line("body", count(result.payload.size, "byte"), "", self._ms["body"])
        page = trace.page
        if page is None:
            return
        coding = result.head.get("content-encoding")
        words = page.content_type or "no type"
        if page.charset:
            words += f" in {page.charset}"
        if coding:
            words += f"  {coding} → {size(page.content_size)}"
        self._line("content", words)
        if page.coding_fault is not None:
            self._line("", f"the content coding is {page.coding_fault.value.replace('_', ' ')}", _DOUBT)
        if page.reading_fault is not None:
            self._line("", "not all of it could be read for links: it takes too many steps", _DOUBT)
        for label, value in (("title", page.title), ("canonical", page.canonical), ("language", page.language)):
            if value:
                self._line(label, value)
        self._line("digest", trace.digest or "", "dim")

    def _links(self) -> None:
        trace = self._trace
        if not isinstance(trace.result, Fetched) or not trace.links_found:
            return
        refused = Counter(link.reason for link in trace.links if link.reason)
        queued = len(trace.links) - refused.total()
        words = f"{count(trace.links_found)} found, {count(queued)} different ones would be queued"
        if refused:
            words += f", {count(refused.total())} refused ({counts(refused)})"
        self._line("links", words)
        shown = trace.links if self._all_links else trace.links[:_FEW_LINKS]
        for link in shown:
            source = "" if link.source is None else link.source.value
            if link.reason:
                self._line("", f"✗ {link.url}  {link.reason}: {link.rule}", "red")
            else:
                self._line("", f"✓ {link.url}  {source}", "")
        if len(shown) < len(trace.links):
            self._line("", f"… {count(len(trace.links) - len(shown))} more (--links lists them)", "dim")

    def _bar(self) -> None:
        """The phases side by side, where there is a terminal wide enough for it."""
        spent = [(name, style, self._ms[name]) for name, style in _PHASES if self._ms[name] > 0]
        total = sum(ms for _, _, ms in spent)
        if self._width < _LABEL + _BAR + 4 or not total:
            return
        self._text.append("\n  " + " " * _LABEL)
        for _, style, ms in spent:
            self._text.append("█" * max(1, round(ms / total * _BAR)), style)
        self._text.append("\n  " + " " * _LABEL)
        for name, style, _ in spent:
            self._text.append("■ ", style)
            self._text.append(f"{name}  ", "dim")
        self._text.append("\n\n")

    def _line(self, label: str, words: str, style: str = "", ms: float | None = None) -> None:
        """A line; times end in one column. Long words go on under themselves."""
        self._text.append(f"  {label:<{_LABEL}}", "dim")
        words = printable(words)
        time = "" if ms is None else _ms(ms)
        room = (min(self._width, _TIME_AT) if self._width else _TIME_AT) - 2 - _LABEL - len(time) - 2
        self._text.append(words, style or None)
        if time:
            self._text.append(" " * max(2, room - len(words) + 2) + time, "dim")
        self._text.append("\n")


def _ms(milliseconds: float) -> str:
    return duration(milliseconds / 1e3)


def _more(n: int) -> str:
    return f" and {count(n)} more" if n > 0 else ""
