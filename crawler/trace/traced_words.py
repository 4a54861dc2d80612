"""What a traced fetch comes to, in words and milliseconds: the parts that the terminal and `--json` share.

What happened is in the Trace; neither layout nor colour is known here. Invariant: a function of the trace alone.
"""

from typing import assert_never

from crawler.core.enums import DenyReason, UrlState
from crawler.core.formatting import count, duration
from crawler.core.models import Denied, Failed, Fetched, NotModified, Redirected, Timings
from crawler.fetch.http1.message import BodyEnd
from crawler.frontier.base import BlockedHost
from crawler.trace.dial_observer import Answer, Dial
from crawler.trace.tracer import RobotsTrace, Trace


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
            error_type = error_type_of(trace)
            if result.truncated is not None:
                return f"{word}, truncated ({error_type or result.truncated.value})"
            return f"{word}, {error_type}" if error_type else word
        case Failed() as result:
            return f"error: {result.error_type.value}"
        case _:
            return "not fetched"


def error_type_of(trace: Trace) -> str | None:
    """The error in the answer, where there is one."""
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


def block_words(block: BlockedHost) -> str:
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
            return f"would archive it, {pages}, and queue {count(queued, 'URL')}"
        case Fetched():
            return "would archive it, and be done with it"
        case NotModified() | Failed() | Denied():
            return "would be done with it"
        case _:
            assert_never(outcome)


def tls_facts(dial: Dial) -> dict[str, object] | None:
    """What the handshake agreed on, under its names in fetch.jsonl; None: no TLS, or none came about."""
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


def why_words(answer: Answer) -> str:
    """Why an address may be dialled, or may not."""
    if answer.refused:
        return answer.refused
    if answer.of_proxy:
        return "the proxy's, not checked"
    return "network.allow_private" if answer.excepted else "public"


def lines_of(head: bytes) -> list[str]:
    """A head, or a request, line by line as it was sent."""
    return [line for line in head.decode("latin-1").replace("\r\n", "\n").split("\n") if line]
