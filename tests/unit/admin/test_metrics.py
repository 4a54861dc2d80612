"""The metrics: names of the contract, a format that scrapers read, and dashboards that name what is there."""

import json
import re
from pathlib import Path

import pytest

from crawler.admin.metrics import exposition
from crawler.core.body import BytesBody
from crawler.core.enums import Bottleneck, CloseReason, CrawlState, DenyReason, ErrorType
from crawler.core.models import ConnectionInfo, Denied, Failed, Fetched, Head, Timings
from crawler.engine.fleet import FleetFigures
from crawler.engine.monitoring.counters import BOUNDS_S, Histogram, LatencyMeters, Rates, quantile_s
from crawler.engine.monitoring.status import Bounded, Counts, InFlight, Status
from crawler.fetch.pool_statistics import REQUEST_BOUNDS, PoolStats

CONFIG = Path(__file__).parents[3] / "config"
_SAMPLE = re.compile(r'([a-z_]+)(?:\{((?:[a-z_]+="(?:[^"\\\n]|\\["\\n])*",?)*)\})? (-?[0-9.e+-]+|\+Inf)')


FLEET = FleetFigures("a1", 3, 342, 1.5, 15.0, 70, 0.002)


def page(fleet: FleetFigures | None = FLEET) -> str:
    stats = PoolStats(
        opened=5,
        closed={CloseReason.IDLE_TIMEOUT: 3},
        failed=1,
        requests=50,
        reused=45,
        tls_handshakes=5,
        tls_resumed=2,
        requests_at_close=(1, 0, 2, *[0] * (len(REQUEST_BOUNDS) - 2)),
        requests_closed=11,
        open=2,
        idle=1,
        opening=0,
        waiting=0,
    )
    counts = Counts(
        responses=50,
        html=0,
        pages=40,
        bytes=12_345,
        errors=2,
        denied=1,
        links_found=0,
        links_new=0,
        page_responses={"ok": 40},
        auxiliary=10,
        gave_up=0,
        outcomes={"ok": 40, "error": 2},
        error_types={"reset": 2},
        deny_reasons={"robots": 1},
    )
    status = Status(
        at=0.0,
        elapsed_s=1.0,
        state=CrawlState.CRAWLING,
        bottleneck=Bottleneck.NETWORK,
        sentence="",
        opens_at=None,
        rates=Rates(loop_lag_s=0.25),
        counts=counts,
        urls={"queued": 7},
        held_back=0,
        eta_s=None,
        hosts={"ready": 3, "total": 3, "with_work": 1},
        connections=stats,
        in_flight=[InFlight("https://a.test/", "page", 1, "body", 0.1)],
        rss_bytes=1,
        max_rss_bytes=2,
        uncommitted=0,
        oldest_ready_s=0.5,
        last_url="https://a.test/",
        fleet=fleet,
    )
    meters = LatencyMeters()
    timings = Timings(resolve_s=0.0, connect_s=0.002, tls_s=0.003, first_byte_s=0.2, body_s=0.0)
    head = Head(200, "OK", "1.1", ())
    info = ConnectionInfo(1, 1, "192.0.2.1")
    meters.attempted(Fetched(head, b"", b"", BytesBody(b""), BytesBody(b""), timings, info, 0.0), 0.205)
    meters.attempted(Failed(ErrorType.RESET, "", retryable=True), 700.0)
    meters.attempted(Denied(DenyReason.ROBOTS, ""), 9.0)
    memory = [Bounded('odd "name"', "bytes", 5, 10), Bounded("hosts", "entries", 3, None)]
    return exposition(
        status,
        meters,
        memory,
        version="0.1.0",
        log_dropped=4,
        last_reload_succeeded=False,
        progress_at=1_700_000_000.5,
        free_bytes=3_000,
        min_free_bytes=1_000,
    )


def samples(text: str) -> dict[str, dict[str, float]]:
    """Name → labels as written → value; fails on a line that is not of the format, or that stands before its TYPE."""
    found: dict[str, dict[str, float]] = {}
    typed: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in typed
            typed[name] = kind
        elif not line.startswith("# HELP "):
            match = _SAMPLE.fullmatch(line)
            assert match is not None, line
            name, labels, value = match[1], match[2] or "", float(match[3])
            base = re.sub(r"_(bucket|sum|count)$", "", name)
            assert name in typed or typed.get(base) == "histogram", line
            assert labels not in found.setdefault(name, {}), line
            found[name][labels] = value
    return found


def test_what_agents_share_is_served_only_where_they_do() -> None:
    shared, alone = samples(page()), samples(page(None))
    assert {name: shared[name][""] for name in shared.keys() - alone.keys()} == {
        "crawler_agents_alive": 3, "crawler_slots_owned": 342, "crawler_lease_age_seconds": 1.5,
        "crawler_lease_seconds": 15, "crawler_inbox_urls": 70, "crawler_database_look_seconds": 0.002,
    }  # fmt: skip


def test_the_documented_metrics_are_those_that_are_served() -> None:
    """Name, type, label and meaning, in the table of docs/reference/metrics.md."""
    text = page()
    helps = dict(re.findall(r"^# HELP (\S+) (.+)$", text, re.MULTILINE))
    kinds = dict(re.findall(r"^# TYPE (\S+) (.+)$", text, re.MULTILINE))
    documented = Path(__file__).parents[3].joinpath("docs/reference/metrics.md").read_text()
    table = re.findall(r"^\| `(crawler_\w+)` \| (\w+) \| (?:`(\w+)`)? *\| (.+) \|$", documented, re.MULTILINE)
    assert {(name, kind, meaning) for name, kind, _, meaning in table} == {
        (name, kinds[name], meaning) for name, meaning in helps.items()
    }
    for name, _, label, _ in table:
        found = set(re.findall(rf"^{name}(?:_bucket|_sum|_count)?\{{(\w+)=", text, re.MULTILINE)) - {"le"}
        assert found == ({label} if label else set()), name
    assert not any("a.test" in labels for by_labels in samples(text).values() for labels in by_labels)


def test_values_are_what_was_counted() -> None:
    """Outcomes that never happened are 0, not missing; booleans and escapes as the format has them."""
    found = samples(page())
    assert found["crawler_fetches_total"]['outcome="ok"'] == 40
    assert found["crawler_fetches_total"]['outcome="truncated"'] == 0
    assert found["crawler_connections"] == {
        'state="idle"': 1,
        'state="lent"': 1,
        'state="opening"': 0,
        'state="waiting"': 0,
    }
    assert found["crawler_tls_handshakes_total"] == {'resumed="false"': 3, 'resumed="true"': 2}
    assert found["crawler_config_last_reload_success"][""] == 0
    assert found["crawler_last_progress_timestamp_seconds"][""] == 1_700_000_000.5
    assert found["crawler_memory_held_bytes"] == {r'structure="odd \"name\""': 5}
    assert sum(found["crawler_state"].values()) == found["crawler_state"]['state="crawling"'] == 1
    assert sum(found["crawler_bottleneck"].values()) == found["crawler_bottleneck"]['bottleneck="network"'] == 1
    assert found["crawler_output_free_bytes"] == {"": 3_000}
    assert found["crawler_hosts"] == {'state="ready"': 3}


def test_histograms_add_up() -> None:
    """Buckets are cumulative and end with the count; what was denied took no time."""
    found = samples(page())
    buckets = list(found["crawler_fetch_duration_seconds_bucket"].values())
    assert buckets == sorted(buckets)
    assert found["crawler_fetch_duration_seconds_bucket"]['le="0.25"'] == 1
    assert found["crawler_fetch_duration_seconds_bucket"]['le="600"'] == 1
    assert found["crawler_fetch_duration_seconds_bucket"]['le="+Inf"'] == 2
    assert found["crawler_fetch_duration_seconds_count"][""] == 2
    assert found["crawler_fetch_duration_seconds_sum"][""] == pytest.approx(700.205)
    assert found["crawler_fetch_phase_seconds_count"]['phase="resolve"'] == 0
    assert found["crawler_fetch_phase_seconds_count"]['phase="body"'] == 1
    assert found["crawler_connection_requests_sum"][""] == 11
    assert found["crawler_connection_requests_count"][""] == 3
    assert found["crawler_connection_requests_bucket"]['le="1"'] == 1


@pytest.mark.parametrize("name", ["grafana-dashboard.json", "prometheus-alerts.yml"])
def test_dashboard_and_alerts_name_what_is_there(name: str) -> None:
    """Every metric they ask for is exposed, and every label value they compare with exists."""
    text = (CONFIG / name).read_text()
    exposed = set(samples(page()))
    asked = set(re.findall(r"\bcrawler_[a-z_]+", text))
    assert len(asked) >= 7
    assert asked <= exposed, asked - exposed
    if name.endswith(".json"):
        dashboard = json.loads(text)
        assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
        assert all(
            'instance=~"$instance"' in target["expr"] for panel in dashboard["panels"] for target in panel["targets"]
        )
        everything = {re.sub(r"_(bucket|sum|count)$", "", one) for one in asked}
        not_drawn = {"crawler_config_last_reload_success", "crawler_memory_limit_bytes"}
        served = set(re.findall(r"^# HELP (\S+) ", page(), re.MULTILINE))
        assert served - everything - not_drawn == set()


@pytest.mark.parametrize(
    ("values", "share", "low", "high"),
    [([0.002] * 10, 0.5, 0.001, 0.0025), ([0.002] * 9 + [4.0], 0.95, 2.5, 5.0), ([9_999.0], 0.5, 600.0, 600.0)],
)
def test_quantiles_lie_in_their_bucket(values: list[float], share: float, low: float, high: float) -> None:
    """As exact as the buckets are; beyond the last bound, that bound."""
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    found = quantile_s(histogram.counts, share)
    assert found is not None
    assert low <= found <= high
    assert quantile_s([0] * (len(BOUNDS_S) + 1), 0.5) is None
