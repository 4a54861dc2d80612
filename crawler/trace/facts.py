"""The facts of a traced fetch as one object: `crawler fetch --json` prints it, the terminal view is made from it.

Names are those of fetch.jsonl where they mean the same. Invariant: every link is in it, refused ones with the reason.
"""

from collections import Counter
from dataclasses import asdict, astuple
from typing import Any

from crawler.core.enums import UrlState
from crawler.core.formatting import count, duration, timestamp
from crawler.core.models import Denied, Failed, Fetched, Redirected, Timings
from crawler.core.outcomes import outcome_label
from crawler.fetch.http1.message import BodyEnd, body_framing, hop_fields, is_persistent
from crawler.trace.tracer import Dial, Trace


def facts(trace: Trace) -> dict[str, Any]:
    """The object of one fetch, made of what JSON has."""
    result, outcome = trace.result, trace.response and trace.response.outcome
    found = {
        "url_full": trace.url,
        "started_at": timestamp(trace.started_at),
        "verdict": _verdict(trace),
        "is_fine": trace.is_fine,
        "scope": {"verdict": "ok" if trace.scope_denied is None else "denied", "as": trace.task.source.value}
        | _denied(trace.scope_denied),
        "robots": _robots(trace),
        "connection": _connection(trace.dial, verifies=trace.verifies),
        "request": _lines(trace.request),
        "timings_ms": _timings_ms(trace),
        "would": _next_step(trace),
    }
    optional = {
        "block": trace.block and {"name": trace.block.name, "kind": trace.block.kind, "reason": trace.block.reason},
        "next_state": trace.retry and trace.retry.state.value,
        "outcome": outcome and outcome_label(outcome).value,
        "error_type": result and result.error_type and result.error_type.value,
        "detail": result.detail if isinstance(result, Failed) else None,
        "redirect_to": outcome.target if isinstance(outcome, Redirected) else None,
    }
    found |= {name: value for name, value in optional.items() if value is not None}
    return found | _response(trace, result) if isinstance(result, Fetched) else found


def _verdict(trace: Trace) -> str:
    """The headline: "200 OK", "error: tls_cert_expired", "not fetched: robots.txt"."""
    match trace.result:
        case None:
            return "not fetched: robots.txt" if trace.block is None else "not fetched: blocked"
        case Failed() as result:
            return f"error: {result.error_type.value}"
        case Fetched() as result:
            parts = [f"{result.head.status_code} {result.head.reason}".rstrip()]
            if result.truncated is not None:
                parts.append(f"truncated ({result.error_type or result.truncated})")
            elif result.error_type is not None:
                parts.append(result.error_type)
            return ", ".join(parts)


def _denied(denied: Denied | None) -> dict[str, object]:
    return {} if denied is None else {"deny_reason": denied.reason.value, "rule": denied.rule}


def _robots(trace: Trace) -> dict[str, object]:
    record = trace.robots
    if record is None:
        return {"requested": bool(trace.hops), "not_requested": trace.robots_skipped}
    hops = [
        {"url_full": url, "ms": _ms(sum(astuple(result.timings)))}
        | (
            {"http_response_status_code": result.head.status_code}
            if isinstance(result, Fetched)
            else {"error_type": result.error_type.value, "detail": result.detail}
        )
        for url, result in trace.hops
    ]
    return {
        "requested": True,
        "hops": hops,
        "verdict": record.verdict,
        "allowed": trace.robots_denied is None,
        "crawl_delay_s": record.crawl_delay_s,
    } | _denied(trace.robots_denied)


def _connection(dial: Dial | None, *, verifies: bool) -> dict[str, object] | None:
    if dial is None:
        return None
    found: dict[str, object] = {"resolved": dial.resolved, "attempts": dial.attempts}
    certificate: dict[str, object] = {"verified": dial.dialled is not None and verifies}
    if (failed := dial.failed) is not None:
        found["failed"] = {"stage": failed.stage.value, "error_type": failed.error_type.value, "detail": failed.detail}
        if failed.error_type.startswith("tls_"):
            certificate["problem"] = failed.detail
    if (dialled := dial.dialled) is not None:
        found |= {"network_peer_address": dialled.peer_address, "network_peer_port": dialled.peer_port, "tls": None}
        if (tls := dialled.ssl_object) is not None:
            found["tls"] = {
                "tls_protocol_version": dialled.tls_version,
                "tls_cipher": (tls.cipher() or (None,))[0],
                "tls_next_protocol": tls.selected_alpn_protocol(),
                "tls_resumed": dialled.tls_resumed,
            }
    if dial.origin.scheme == "https":
        found["certificate"] = certificate | (dial.certificate or {"not_shown": ""})
    return found


def _response(trace: Trace, result: Fetched) -> dict[str, object]:
    read, page = trace.response, trace.response and trace.response.page
    assert read is not None
    hop_by_hop = hop_fields(result.head)
    framing = body_framing(result.head, hop_by_hop)
    content = page and {name: value for name, value in asdict(page).items() if name != "links_count"} | {
        "content_coding": result.head.get("content-encoding"),
        "index": read.index,
    }
    links: list[dict[str, str | None]] = [
        {"url_full": found.url, "source": found.source.value} for found in read.discovered
    ]
    links += [
        {"url_full": one.url, "source": trace.link_sources.get(one.url), "deny_reason": one.reason, "rule": one.rule}
        for one in read.skipped
    ]
    return {
        "http_response_status_code": result.head.status_code,
        "response": _lines(result.raw_head),
        "framing": {
            "end": framing.end.name.lower(),
            "length": framing.length if framing.end is BodyEnd.LENGTH else None,
            "keeps_alive": is_persistent(result.head, hop_by_hop),
            "tainted": result.tainted,
            "truncated": result.truncated and result.truncated.value,
        },
        "http_response_body_size": result.payload.size,
        "http_request_resend_count": result.resend_count,
        "content": content,
        "content_digest": read.payload_digest,
        "links": {
            "found": read.links_found,
            "queued": len(read.discovered),
            "refused": Counter(one.reason.value for one in read.skipped),
            "list": links,
        },
    }


def _timings_ms(trace: Trace) -> dict[str, float]:
    """Milliseconds by phase. Opening connections for robots.txt counts as opening, and its exchanges as "robots"."""
    hops = [] if trace.robots is None else [result.timings for _, result in trace.hops]
    page = Timings() if trace.result is None else trace.result.timings
    opening = ("resolve", "connect", "tls")
    phases = {name: sum(getattr(timings, f"{name}_s") for timings in (*hops, page)) for name in opening} | {
        "robots": sum(timings.first_byte_s + timings.body_s for timings in hops),
        "waited": trace.waited_s,
        "first_byte": page.first_byte_s,
        "body": page.body_s,
        "total": trace.total_s,
    }
    return {name: _ms(seconds) for name, seconds in phases.items()}


def _next_step(trace: Trace) -> str:
    """What a crawl would do next, as a sentence without its subject."""
    if trace.scope_denied is not None or trace.retry is None or trace.response is None:
        return "would not request it"
    match trace.retry.state, trace.response.outcome:
        case UrlState.WAITING, _ if trace.backoff is not None:
            return f"would back off from the host for {duration(trace.backoff[0])} ({trace.backoff[1]}), then try again"
        case UrlState.WAITING, _:
            return f"would try again after {duration(trace.retry.after_s or 0.0)} or more"
        case UrlState.GAVE_UP, _:
            return "would give it up"
        case _, Redirected() as redirect:
            verb = "refuse" if trace.response.skipped else "queue"
            added = f", bringing {trace.added_host} into scope" if trace.added_host else ""
            return f"would archive it, and {verb} {redirect.target}{added}"
        case _, Fetched() as response if 200 <= response.head.status_code < 300 and trace.response.page is not None:
            queued = count(len(trace.response.discovered), "URL")
            pages = "list it in pages/" if trace.response.index else "leave it out of pages/ (noindex)"
            return f"would archive it, {pages}, and queue {queued}"
        case _:
            return "would archive it, and be done with it"


def _lines(head: bytes) -> list[str]:
    """The lines of a request or of the head of a response, as they were sent."""
    return [line for line in head.decode("latin-1").replace("\r\n", "\n").split("\n") if line]


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 2)
