"""The terminal view of a traced fetch, made from its facts; plain text where it is piped.

Invariant: nothing that a server sent reaches the terminal with its control characters.
"""

import sys
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from rich.console import Console
from rich.text import Text

from crawler.core.enums import CodingFault, DenyReason, ErrorType, ReadingFault
from crawler.core.formatting import count, counts, duration, printable, size, unreadable_robots
from crawler.core.outcomes import failure_text

_LABEL: Final = 13
_TIME_AT: Final = 84  # the column in which times end, if the terminal is wide enough
_FEW_LINKS: Final = 8
_FEW_NAMES: Final = 6
_SOON_DAYS: Final = 14  # a certificate that ends sooner is coloured
_BAR: Final = 60
_PHASES: Final = {
    "resolve": "cyan", "connect": "blue", "tls": "magenta", "robots": "yellow", "first_byte": "green",
    "body": "bright_green",
}  # fmt: skip
_SOURCES: Final = {"dns": "by DNS", "literal": "an IP address"}
_ENDS: Final = {
    "length": "no body by its status",
    "last_chunk": "chunked, to the last chunk",
    "close": "neither length nor chunks: to the end of the connection",
}
_CODING_FAULTS: Final = {
    CodingFault.TRUNCATED: "the content coding ends early",
    CodingFault.DAMAGED: "the content coding is damaged",
    CodingFault.TRAILING: "other bytes follow the end of the content coding; they are left out",
    CodingFault.NOT_CODED: "the content does not have the coding that the header names",
    CodingFault.UNKNOWN: "the content coding is not known",
}
_READING_FAULTS: Final = {
    ReadingFault.MAX_HTML: "not all of it was read: it is longer than content.max_html",
    ReadingFault.MAX_LINKS: "not all links were read: there are more than content.max_links",
    ReadingFault.LIMIT: "not all links were read: it takes too many steps",
}
_GOOD, _BAD, _DOUBT = "green", "bold red", "yellow"

Facts = Mapping[str, Any]


class _Line(NamedTuple):
    """A line of the view: what it is about, the text, its style and a time. Without text and time it is left out."""

    label: str
    text: str
    style: str = ""
    ms: float | None = None


def show(facts: Facts, *, all_links: bool = False, console: Console | None = None) -> None:
    """Print the facts of one fetch to stdout."""
    if console is None:
        console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
    width = console.width if console.is_terminal else 0
    view = Text(end="")
    for line in _lines(facts, all_links=all_links, width=width):
        if isinstance(line, Text):
            view.append_text(line).append("\n")
        elif line.text or line.ms is not None:
            view.append_text(_with_time(line, width)).append("\n")
    console.print(view, soft_wrap=True, end="")


def _with_time(line: _Line, width: int) -> Text:
    """A line with its time in the column of times, or after a longer text."""
    text, time = printable(line.text), ""
    if line.ms is not None:
        time = duration(line.ms / 1e3)
        time = time.rjust(max(2 + len(time), min(width or _TIME_AT, _TIME_AT) - 2 - _LABEL - len(text)))
    return Text.assemble((f"  {line.label:<{_LABEL}}", "dim"), (text, line.style), (time, "dim"))


def _lines(facts: Facts, *, all_links: bool, width: int) -> Iterator[_Line | Text]:
    ms, connection, scope = facts["timings_ms"], facts["connection"] or {}, facts["scope"]
    as_what = "as a seed" if scope["as"] == "seed" else "as a link one step from a seed"
    denied = f": {scope['deny_reason']}, {scope['rule']}" if "rule" in scope else ""
    yield from _summary(facts)
    yield from _addresses(connection)
    if connection.get("certificate") and connection["attempts"]:
        yield from _tls(facts, connection)
    yield from _robots(facts["robots"], ms["robots"])
    yield _Line("scope", f"{'out of' if denied else 'in'} scope, {as_what}{denied}", _DOUBT if denied else _GOOD)
    yield _Line("waited", "between requests, as a crawl does" if ms["waited"] else "", "", ms["waited"] or None)
    if "outcome" in facts and "failed" not in connection:
        yield from _heads(facts)
    if "response" in facts:
        yield from _body(facts)
        yield from _links(facts["links"], all_links=all_links)
    if width >= _LABEL + _BAR + 4 and any(ms[name] for name in _PHASES):
        yield from _bar({name: ms[name] for name in _PHASES if ms[name]})
    yield _Line("a crawl", facts["would"], "bold")


def _summary(facts: Facts) -> Iterator[_Line | Text]:
    responded = 200 <= facts.get("http_response_status_code", 0) < 500
    colour = _GOOD if facts["is_fine"] else _DOUBT if responded else _BAD
    yield Text.assemble(
        ("● ", colour),
        (printable(facts["verdict"]), f"bold {colour}"),
        (f"  {printable(facts['url_full'])}", "bold"),
        (f"  {duration(facts['timings_ms']['total'] / 1e3)}", "dim"),
    )
    if "error_type" in facts:
        yield _Line("", failure_text(ErrorType(facts["error_type"]), facts.get("detail", "")), _BAD)
    if block := facts.get("block"):
        reason = block["reason"] or "no reason given"
        yield _Line("", f"{block['kind']} {block['name']} is blocked: {reason} (crawler unblock lifts it)", _BAD)
    if "redirect_to" in facts:
        yield _Line("", f"→ {facts['redirect_to']}", "cyan")


def _addresses(connection: Facts) -> Iterator[_Line]:
    for name in connection.get("resolved", ()):
        is_proxy = any(address["why"].startswith("the proxy's") for address in name["addresses"])
        source = _SOURCES.get(name["source"], name["source"]) + ("  (the proxy)" if is_proxy else "")
        yield _Line("name", f"{name['name']}  {source}", "", name["ms"])
        yield _Line("", name["failed"] or "", _BAD)
        for address in name["addresses"]:
            refused = failure_text(ErrorType.ADDRESS_DENIED, f"{address['why']}: not dialled")
            text = f"{address['address']}  {address['why']}" if address["allowed"] else refused
            yield _Line("", text, _GOOD if address["allowed"] else _BAD)
    for attempt in connection.get("attempts", ()):
        text = f"{attempt['address']} port {attempt['port']}  {attempt['failed'] or ''}".rstrip()
        yield _Line("connect", text, _BAD if attempt["failed"] else "", attempt["ms"])


def _tls(facts: Facts, connection: Facts) -> Iterator[_Line]:
    failed, tls, certificate = connection.get("failed"), connection.get("tls"), connection["certificate"]
    if tls is not None:
        how = f"{tls['tls_next_protocol'] or 'no ALPN'}  {'resumed' if tls['tls_resumed'] else 'full handshake'}"
        text = f"{tls['tls_protocol_version']}  {tls['tls_cipher']}  {how}"
        yield _Line("TLS", text, "", facts["timings_ms"]["tls"])
    elif failed is not None and failed["stage"] == "tls":
        yield _Line("TLS", failed["error_type"], _BAD, facts["timings_ms"]["tls"])
    else:
        return
    if "subject" not in certificate:
        yield _Line("certificate", certificate["not_shown"], _BAD)
        return
    names, more = certificate["names"][:_FEW_NAMES], len(certificate["names"]) - _FEW_NAMES
    days = (datetime.fromisoformat(certificate["not_after"]) - datetime.fromisoformat(facts["started_at"])).days
    left = f"{count(days, 'day')} left" if days >= 0 else f"ended {count(-days, 'day')} ago"
    verified = "yes" if certificate["verified"] else "no: tls.verify = false"
    yield _Line("certificate", certificate["subject"] or "(no subject)")
    yield _Line("  for", ", ".join(names) + (f" and {count(more)} more" if more > 0 else ""))
    yield _Line("  issuer", certificate["issuer"])
    yield _Line(
        "  valid",
        f"{certificate['not_before'][:10]} to {certificate['not_after'][:10]}  {left}",
        _BAD if days < 0 else _DOUBT if days < _SOON_DAYS else "",
    )
    yield _Line("  key", f"{certificate['key']}  sha256 {certificate['sha256'][:16]}…", "dim")
    if failed is None:
        yield _Line("  verified", verified, _GOOD if certificate["verified"] else _BAD)
    else:
        yield _Line("  verified", f"no: {failed['detail']}", _BAD)
        yield _Line("", "(shown by a second handshake; no request was sent)", "dim")


def _robots(robots: Facts, ms: float) -> Iterator[_Line]:
    if "verdict" not in robots:
        yield _Line("robots.txt", f"not requested: {robots['not_requested']}", _DOUBT)
        return
    *redirects, last = robots["hops"]
    status, error = last.get("http_response_status_code"), last.get("error_type")
    if robots["allowed"]:
        text = f"{status}: {'allows it' if robots['verdict'] == 'rules' else 'there is none, everything is allowed'}"
    elif robots["deny_reason"] == DenyReason.ROBOTS_UNREACHABLE:
        text = unreadable_robots(status, error).removeprefix("robots.txt ") + ", so nothing may be fetched"
    else:
        text = f"{status}: forbids it: {robots['rule']}"
    delay = "" if robots["crawl_delay_s"] is None else f", Crawl-delay {robots['crawl_delay_s']:g} s"
    yield _Line("robots.txt", text + delay, _GOOD if robots["allowed"] else _BAD, ms)
    if error is not None:
        yield _Line("", failure_text(ErrorType(error), last["detail"]), _BAD)
    if redirects:
        yield _Line("", f"→ {last['url_full']}, after {count(len(redirects), 'redirect')}", "cyan")


def _heads(facts: Facts) -> Iterator[Text]:
    """The request and the head of the response, between empty lines."""
    yield Text("")
    for line in facts["request"]:
        yield Text(f"  > {printable(line)}", "cyan")
    for n, line in enumerate(facts.get("response", ())):
        name, colon, value = printable(line).partition(":" if n else "\n")
        yield Text.assemble(("  < ", "green"), (f"{name}{colon}", "green" if n else "bold green"), value)
    yield Text("")


def _body(facts: Facts) -> Iterator[_Line]:
    ms, framing, content = facts["timings_ms"], facts["framing"], facts["content"]
    is_clean = framing["truncated"] is None and not framing["tainted"]
    is_reusable = is_clean and framing["keeps_alive"] and framing["end"] != "close"
    has_length = any(line.lower().startswith("content-length:") for line in facts["response"])
    is_by_length = framing["end"] == "length" and has_length
    parts = (
        f"Content-Length: {framing['length']}" if is_by_length else _ENDS.get(framing["end"], ""),
        f"not all of it was kept ({framing['truncated']})" if framing["truncated"] else "",
        "read leniently (tainted)" if framing["tainted"] else "",
        "the connection can be used again" if is_reusable else "the connection is closed",
    )
    yield _Line("sent again", "once, over a fresh connection" if facts["http_request_resend_count"] else "", _DOUBT)
    yield _Line("first byte", "", "", ms["first_byte"])
    yield _Line("framing", "; ".join(filter(None, parts)), "" if is_clean else _DOUBT)
    yield _Line("body", count(facts["http_response_body_size"], "byte"), "", ms["body"])
    if content is None:
        return
    charset = f" in {content['charset']}" if content["charset"] else ""
    coding = f"  {content['content_coding']} → {size(content['content_size'])}" if content["content_coding"] else ""
    yield _Line("content", f"{content['content_type'] or 'no type'}{charset}{coding}")
    yield _Line("", _CODING_FAULTS.get(content["coding_fault"], ""), _DOUBT)
    yield _Line("", _READING_FAULTS.get(content["reading_fault"], ""), _DOUBT)
    for name in ("title", "canonical", "language"):
        yield _Line(name, content[name] or "")
    yield _Line("digest", facts["content_digest"] or "", "dim")


def _links(links: Facts, *, all_links: bool) -> Iterator[_Line]:
    shown = links["list"] if all_links else links["list"][:_FEW_LINKS]
    refused = f", {count(sum(links['refused'].values()))} refused ({counts(links['refused'])})"
    queued = f"{count(links['found'])} found, {count(links['queued'])} would be queued"
    if links["found"]:
        yield _Line("links", queued + (refused if links["refused"] else ""))
    for link in shown:
        is_refused = "rule" in link
        why = f"{link['deny_reason']}: {link['rule']}" if is_refused else link["source"] or ""
        yield _Line("", f"{'✗' if is_refused else '✓'} {link['url_full']}  {why}", "red" if is_refused else "")
    if more := len(links["list"]) - len(shown):
        yield _Line("", f"… {count(more)} more (--links lists them)", "dim")


def _bar(spent: Mapping[str, float]) -> Iterator[Text]:
    """A bar of the phases, and their names."""
    indent, total = " " * (_LABEL + 2), sum(spent.values())
    bars = [("█" * max(1, round(ms / total * _BAR)), _PHASES[name]) for name, ms in spent.items()]
    names = [Text.assemble(("■ ", _PHASES[name]), (name.replace("_", " "), "dim")) for name in spent]
    yield Text.assemble("\n", indent, *bars)
    yield Text.assemble(indent, Text("  ").join(names), "\n")
