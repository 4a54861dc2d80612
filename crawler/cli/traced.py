"""How one traced fetch is shown: on a terminal, as plain text where that is piped, and as the object of `--json`.

Owns words and layout; what happened is in the Trace. Invariant: nothing a server sent reaches the terminal with its
control characters.
"""

import sys
from collections import Counter
from datetime import UTC, datetime
from typing import Final, assert_never

from rich.console import Console
from rich.text import Text

from crawler.cli.look import printable
from crawler.cli.progress import count, duration, size
from crawler.core.outcome import outcome_word
from crawler.core.values import Denied, Failed, Fetched, NotModified, Redirected, Timings
from crawler.core.vocabulary import DenyReason, UrlState
from crawler.fetch.certificate import Certificate
from crawler.fetch.framing import BodyEnd
from crawler.fetch.tap import Answer, Dial
from crawler.frontier.base import Block
from crawler.obs.timestamp import timestamp
from crawler.trace import RobotsTrace, Trace

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


# -- what several views say


def timings_ms(trace: Trace) -> dict[str, float]:
    """Milliseconds by phase. The opening of the connection counts once, whichever request it was opened for."""
    opening = _opening(trace.dial)
    result = trace.result
    mine = result.timings if result is not None else Timings()
    robots_s = sum(hop.took_s for hop in trace.robots.hops) if trace.robots.record is not None else 0.0
    if trace.robots.hops:  # the connection was opened for robots.txt: its time is not told twice
        robots_s = max(0.0, robots_s - opening.resolve_s - opening.connect_s - opening.tls_s)
    phases = {
        "resolve": opening.resolve_s,
        "connect": opening.connect_s,
        "tls": opening.tls_s,
        "robots": robots_s,
        "waited": trace.waited_s,
        "first byte": mine.first_byte_s,
        "body": mine.body_s,
    }
    return {name: round(seconds * 1e3, 2) for name, seconds in phases.items()} | {
        "total": round(trace.total_s * 1e3, 2)
    }


def _opening(dial: Dial | None) -> Timings:
    if dial is None:
        return Timings()
    if dial.dialled is not None:
        return dial.dialled.timings
    return dial.failed.timings if dial.failed is not None else Timings()


def verdict(trace: Trace) -> str:
    """One word and what it needs: "200 OK", "error: tls_cert_expired", "denied by robots.txt"."""
    if trace.block is not None:
        return "not fetched: blocked"
    if trace.robots.denied is not None:
        return "not fetched: robots.txt"
    match trace.result:
        case Fetched() as result:
            word = f"{result.head.status_code} {result.head.reason}".rstrip()
            error_type = _error_type(trace)
            if result.truncated is not None:
                return f"{word}, truncated ({error_type or result.truncated.value})"
            return f"{word}, {error_type}" if error_type else word
        case Failed() as result:
            return f"error: {result.error_type.value}"
        case _:
            return "not fetched"


def _error_type(trace: Trace) -> str | None:
    outcome = trace.outcome if isinstance(trace.outcome, Fetched) else trace.result
    if isinstance(outcome, Fetched | Failed) and outcome.error_type is not None:
        return outcome.error_type.value
    return None


def framing_words(trace: Trace) -> str:
    """Why the body ended where it did, and what that meant for the connection."""
    result, framing = trace.result, trace.framing
    if not isinstance(result, Fetched) or framing is None:
        return ""
    match framing.end:
        case BodyEnd.LENGTH:
            lengths = result.head.get("content-length")
            words = f"Content-Length: {framing.length}" if lengths is not None else "no body by its status"
        case BodyEnd.LAST_CHUNK:
            words = "chunked, to the last chunk"
        case BodyEnd.CLOSE:
            words = "neither length nor chunks: to the end of the connection"
        case _:
            assert_never(framing.end)
    if result.truncated is not None:
        words += f"; not all of it was kept ({result.truncated.value})"
    if result.tainted:
        words += "; read leniently (tainted)"
    reusable = (
        trace.keeps_alive and framing.end is not BodyEnd.CLOSE and result.truncated is None and not result.tainted
    )
    return words + ("; the connection can be used again" if reusable else "; the connection is closed")


def robots_words(robots: RobotsTrace) -> str:
    """What robots.txt says of the URL."""
    if robots.record is None:
        return f"not asked: {robots.not_asked}"
    record = robots.record
    status = "" if record.status_code is None else f"{record.status_code}: "
    if not status and isinstance(robots.hops[-1].result, Failed):
        status = f"{robots.hops[-1].result.error_type.value}: "
    if robots.denied is not None:
        if robots.denied.reason is DenyReason.ROBOTS_UNREACHABLE:
            return f"{status}cannot be read, so nothing may be fetched"
        return f"{status}forbids it: {robots.denied.rule}"
    words = "allows it" if record.verdict == "rules" else "there is none, everything is allowed"
    delay = "" if record.crawl_delay_s is None else f", Crawl-delay {record.crawl_delay_s:g} s"
    return f"{status}{words}{delay}"


def block_words(block: Block) -> str:
    """Who is blocked, and why."""
    return f"{block.kind} {block.name} is blocked: {block.reason or 'no reason given'}"


def scope_words(trace: Trace) -> str:
    """The scope's verdict, and as what the URL was judged."""
    as_what = "as a seed" if trace.task.depth == 0 else "as a link one step from a seed"
    if trace.scope_denied is None:
        return f"in scope, {as_what}"
    return f"out of scope, {as_what}: {trace.scope_denied.reason.value}, {trace.scope_denied.rule}"


def would_words(trace: Trace) -> str:
    """What a crawl would do, in a sentence."""
    if trace.block is not None or trace.robots.denied is not None or trace.scope_denied is not None:
        return "would not ask for it"
    ends, outcome = trace.fate, trace.outcome
    if ends is None or outcome is None:
        return "would not ask for it"
    if ends.state is UrlState.WAITING and ends.after_s is not None:
        if trace.rest_s is None:
            return f"would try again after {duration(ends.after_s)} or more"
        asked = " as Retry-After says" if isinstance(outcome, Fetched) and outcome.head.get("retry-after") else ""
        return f"would let the host rest for {duration(trace.rest_s)}{asked}, then try again"
    if ends.state is UrlState.GAVE_UP:
        return "would give it up"
    match outcome:
        case Redirected():
            taken = not any(link.reason for link in trace.links)
            brings = f", bringing {trace.brings_in} into scope" if trace.brings_in else ""
            return f"would archive it, and {'queue' if taken else 'refuse'} {outcome.target}{brings}"
        case Fetched() if 200 <= outcome.head.status_code < 300 and trace.page is not None:
            queued = sum(1 for link in trace.links if not link.reason)
            pages = "list it in pages/" if trace.index else "leave it out of pages/ (noindex)"
            return f"would archive it, {pages}, and queue {count(queued)} {'URL' if queued == 1 else 'URLs'}"
        case Fetched():
            return "would archive it, and be done with it"
        case NotModified() | Failed() | Denied():
            return "would be done with it"
        case _:
            assert_never(outcome)


# -- the object


def as_object(trace: Trace) -> dict[str, object]:
    """`crawler fetch --json`: names as in fetch.jsonl where they are the same thing."""
    result = trace.result
    found: dict[str, object] = {
        "url_full": trace.url,
        "started_at": timestamp(trace.started_at),
        "verdict": verdict(trace),
        "is_fine": trace.is_fine,
        "scope": {"verdict": "ok" if trace.scope_denied is None else "denied", "as": trace.task.source.value}
        | _denied(trace.scope_denied),
        "robots": _robots_object(trace.robots),
        "connection": _dial_object(trace.dial, verifies=trace.verifies),
        "request": _lines(trace.request),
        "timings_ms": {name.replace(" ", "_"): value for name, value in timings_ms(trace).items()},
        "would": would_words(trace),
    }
    if trace.block is not None:
        found["block"] = {"name": trace.block.name, "kind": trace.block.kind, "reason": trace.block.reason}
    if trace.fate is not None:
        found["next_state"] = trace.fate.state.value
    if trace.outcome is not None:
        found["outcome"] = outcome_word(trace.outcome).value
    if (error_type := _error_type(trace)) is not None:
        found["error_type"] = error_type
    if isinstance(result, Failed):
        found["detail"] = result.detail
    if isinstance(trace.outcome, Redirected):
        found["redirect_to"] = trace.outcome.target
    if isinstance(result, Fetched):
        found |= _response_object(trace, result)
    return found


def _denied(denied: Denied | None) -> dict[str, object]:
    return {} if denied is None else {"deny_reason": denied.reason.value, "rule": denied.rule}


def _robots_object(robots: RobotsTrace) -> dict[str, object]:
    if robots.record is None:
        return {"asked": bool(robots.hops), "not_asked": robots.not_asked}
    hops = [
        {"url_full": hop.url, "ms": round(hop.took_s * 1e3, 2)}
        | (
            {"http_response_status_code": hop.result.head.status_code}
            if isinstance(hop.result, Fetched)
            else {"error_type": hop.result.error_type.value, "detail": hop.result.detail}
        )
        for hop in robots.hops
    ]
    record = robots.record
    return {
        "asked": True,
        "hops": hops,
        "verdict": record.verdict,
        "allowed": robots.denied is None,
        "crawl_delay_s": record.crawl_delay_s,
    } | _denied(robots.denied)


def _dial_object(dial: Dial | None, *, verifies: bool) -> dict[str, object] | None:
    if dial is None:
        return None
    found: dict[str, object] = {
        "resolved": [
            {
                "name": each.name,
                "source": each.source,
                "ms": round(each.took_s * 1e3, 2),
                "addresses": [{"address": a.address, "allowed": not a.refused, "why": _why(a)} for a in each.answers],
                "failed": each.failed or None,
            }
            for each in dial.resolutions
        ],
        "attempts": [
            {"address": a.address, "port": a.port, "ms": round(a.took_s * 1e3, 2), "failed": a.failed or None}
            for a in dial.attempts
        ],
    }
    if dial.failed is not None:
        failed = dial.failed
        found["failed"] = {"stage": failed.stage.value, "error_type": failed.error_type.value, "detail": failed.detail}
    if dial.dialled is not None:
        found["network_peer_address"] = dial.dialled.peer_address
        found["network_peer_port"] = dial.dialled.peer_port
        found["tls"] = _tls_object(dial)
    if dial.origin.scheme == "https":
        found["certificate"] = _certificate_object(dial, verifies=verifies)
    return found


def _tls_object(dial: Dial) -> dict[str, object] | None:
    ssl_object = dial.dialled.ssl_object if dial.dialled is not None else None
    if dial.dialled is None or ssl_object is None:
        return None
    cipher = ssl_object.cipher()
    return {
        "tls_protocol_version": dial.dialled.tls_version,
        "tls_cipher": cipher[0] if cipher else None,
        "tls_next_protocol": ssl_object.selected_alpn_protocol(),
        "tls_resumed": dial.dialled.tls_resumed,
    }


def _certificate_object(dial: Dial, *, verifies: bool) -> dict[str, object]:
    found: dict[str, object] = {"verified": dial.dialled is not None and verifies}
    if dial.failed is not None and dial.failed.error_type.startswith("tls_"):
        found["problem"] = dial.failed.detail
    certificate = dial.certificate
    if certificate is None:
        return found | {"not_shown": dial.certificate_problem}
    return found | {
        "subject": certificate.subject,
        "issuer": certificate.issuer,
        "names": list(certificate.names),
        "not_before": certificate.not_before.isoformat(),
        "not_after": certificate.not_after.isoformat(),
        "serial": certificate.serial,
        "sha256": certificate.sha256,
        "key": certificate.key,
    }


def _response_object(trace: Trace, result: Fetched) -> dict[str, object]:
    page = trace.page
    framing = trace.framing
    refused = Counter(link.reason for link in trace.links if link.reason)
    return {
        "http_response_status_code": result.head.status_code,
        "response": _lines(result.raw_head),
        "framing": {
            "end": None if framing is None else framing.end.name.lower(),
            "length": framing.length if framing is not None and framing.end is BodyEnd.LENGTH else None,
            "keeps_alive": trace.keeps_alive,
            "tainted": result.tainted,
            "truncated": None if result.truncated is None else result.truncated.value,
        },
        "http_response_body_size": result.payload.size,
        "http_request_resend_count": result.resend_count,
        "content": None
        if page is None
        else {
            "content_type": page.content_type,
            "content_coding": result.head.get("content-encoding"),
            "coding_fault": None if page.coding_fault is None else page.coding_fault.value,
            "content_size": page.content_size,
            "charset": page.charset,
            "title": page.title,
            "language": page.language,
            "canonical": page.canonical,
            "index": trace.index,
        },
        "content_digest": trace.digest,
        "links": {
            "found": trace.links_found,
            "queued": sum(1 for link in trace.links if not link.reason),
            "refused": dict(refused),
            "list": [
                {"url_full": link.url, "source": None if link.source is None else link.source.value}
                | ({"deny_reason": link.reason, "rule": link.rule} if link.reason else {})
                for link in trace.links
            ],
        },
    }


def _lines(head: bytes) -> list[str]:
    return [line for line in head.decode("latin-1").replace("\r\n", "\n").split("\n") if line]


def _why(answer: Answer) -> str:
    if answer.refused:
        return answer.refused
    if answer.of_proxy:
        return "the proxy's, not checked"
    return "network.allow_private" if answer.excepted else "public"


# -- the terminal


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
                refused = "" if answer.refused else f"{answer.address}  {_why(answer)}"
                self._line("", refused or f"{answer.refused}: not dialled", _BAD if answer.refused else _GOOD)
        for n, attempt in enumerate(dial.attempts):
            words = f"{attempt.address} port {attempt.port}" + (f"  {attempt.failed}" if attempt.failed else "")
            self._line("connect" if n == 0 else "", words, _BAD if attempt.failed else "", attempt.took_s * 1e3)

    def _tls(self) -> None:
        dial = self._trace.dial
        if dial is None or dial.origin.scheme != "https" or not dial.attempts:
            return
        tls = _tls_object(dial)
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
        left = f"{days} days left" if days >= 0 else f"ended {-days} days ago"
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
        for line in _lines(trace.request):
            self._text.append(f"  > {printable(line)}\n", "cyan")
        if not isinstance(trace.result, Fetched):
            self._text.append("\n")
            return
        for n, line in enumerate(_lines(trace.result.raw_head)):
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
        self._line("body", f"{count(result.payload.size)} bytes", "", self._ms["body"])
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
            reasons = ", ".join(f"{number} {reason}" for reason, number in refused.most_common())
            words += f", {count(refused.total())} refused ({reasons})"
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
    if milliseconds >= 10_000:
        return duration(milliseconds / 1e3)
    return f"{milliseconds:.1f} ms" if milliseconds < 100 else f"{milliseconds:,.0f} ms"


def _more(n: int) -> str:
    return f" and {n} more" if n > 0 else ""
