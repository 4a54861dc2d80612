"""A traced fetch as one object, for `crawler fetch --json`.

Owns the names of its fields: as in fetch.jsonl where they are the same thing. Invariant: every link is in it, those
that were refused with the reason.
"""

from collections import Counter

from crawler.core.formatting import timestamp
from crawler.core.models import Denied, Failed, Fetched, Redirected
from crawler.core.outcomes import outcome_word
from crawler.fetch.http1.message import BodyEnd
from crawler.trace.dial_observer import Dial
from crawler.trace.traced_words import error_type_of, lines_of, timings_ms, tls_facts, verdict, why_words, would_words
from crawler.trace.tracer import RobotsTrace, Trace


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
        "request": lines_of(trace.request),
        "timings_ms": {name.replace(" ", "_"): value for name, value in timings_ms(trace).items()},
        "would": would_words(trace),
    }
    if trace.block is not None:
        found["block"] = {"name": trace.block.name, "kind": trace.block.kind, "reason": trace.block.reason}
    if trace.fate is not None:
        found["next_state"] = trace.fate.state.value
    if trace.outcome is not None:
        found["outcome"] = outcome_word(trace.outcome).value
    if (error_type := error_type_of(trace)) is not None:
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
                "addresses": [
                    {"address": a.address, "allowed": not a.refused, "why": why_words(a)} for a in each.answers
                ],
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
        found["tls"] = tls_facts(dial)
    if dial.origin.scheme == "https":
        found["certificate"] = _certificate_object(dial, verifies=verifies)
    return found


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
        "response": lines_of(result.raw_head),
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
            "reading_fault": None if page.reading_fault is None else page.reading_fault.value,
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
