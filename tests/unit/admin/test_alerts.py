"""The alert rules, evaluated by promtool over two daemons: one is well, and the other has what a rule is for."""

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

RULES = Path(__file__).parents[3] / "config" / "prometheus-alerts.yml"
TEXTS = dict(re.findall(r"- alert: (\w+)\n(.*?)(?=\n      - alert|\Z)", RULES.read_text(), re.S))
STEP_S, STEPS = 30, 480  # four hours

# Metric and labels → values, in promtool's notation, of a daemon that is well
WELL = {
    "up": "1x480",
    "crawler_response_bytes_total": "0+9000x480",
    "crawler_last_progress_timestamp_seconds": "0+30x480",
    'crawler_fetches_total{outcome="ok"}': "0+30x480",
    'crawler_fetches_total{outcome="error"}': "0+1x480",
    'crawler_hosts{state="backoff"}': "1x480",
    'crawler_hosts{state="ready"}': "9x480",
    "crawler_config_last_reload_success": "1x480",
    "crawler_event_loop_lag_seconds": "0.01x480",
    "crawler_log_dropped_total": "0x480",
    'crawler_memory_held_bytes{structure="log lines"}': "0x480",
    'crawler_memory_limit_bytes{structure="log lines"}': "100x480",
    "crawler_oldest_ready_seconds": "0x480",
    'crawler_state{state="outage"}': "0x480",
    'crawler_state{state="paused"}': "0x480",
    'crawler_bottleneck{bottleneck="disk"}': "0x480",
    'crawler_bottleneck{bottleneck="operator"}': "0x480",
    "crawler_output_free_bytes": "100000000000x480",
    "crawler_output_min_free_bytes": "1000000000x480",
    "crawler_uncommitted_visits": "20x480",
    "crawler_lease_age_seconds": "5x480",
    "crawler_lease_seconds": "15x480",
    "crawler_inbox_urls": "20000x480",
}
# What is otherwise of a daemon for which the rule fires, and fires alone
ILL: dict[str, dict[str, str | None]] = {
    "CrawlerDown": dict.fromkeys(WELL) | {"up": "1x240 0x240"},
    "CrawlerRestarts": {"crawler_response_bytes_total": "0+9000x380 0+9000x30 0+9000x30 0+9000x40"},
    "CrawlerStandsStill": {"crawler_last_progress_timestamp_seconds": "0+30x450 13500x30"},
    "CrawlerOutage": {'crawler_state{state="outage"}': "0x440 1x40"},
    "CrawlerStoresNothing": {
        'crawler_state{state="paused"}': "0x470 1x10",
        'crawler_bottleneck{bottleneck="disk"}': "0x470 1x10",
    },
    "CrawlerPaused": {
        'crawler_state{state="paused"}': "0x100 1x380",
        'crawler_bottleneck{bottleneck="operator"}': "0x100 1x380",
    },
    "CrawlerDiskFilling": {"crawler_output_free_bytes": "100000000000-100000000x480"},
    "CrawlerCommitLag": {"crawler_uncommitted_visits": "20x440 2000x40"},
    "CrawlerLeaseOverdue": {"crawler_lease_age_seconds": "5x470 60x10"},
    "CrawlerInboxGrows": {"crawler_inbox_urls": "0x300 0+500x180"},
    "CrawlerErrors": {'crawler_fetches_total{outcome="error"}': "0+1x400 400+90x80"},
    "CrawlerHostsBackOff": {'crawler_hosts{state="backoff"}': "1x240 30x240"},
    "CrawlerReloadFailed": {"crawler_config_last_reload_success": "1x470 0x10"},
    "CrawlerLoopLag": {"crawler_event_loop_lag_seconds": "0.01x440 3x40"},
    "CrawlerLogLost": {"crawler_log_dropped_total": "0x470 12x10"},
    "CrawlerMemoryNearLimit": {'crawler_memory_held_bytes{structure="log lines"}': "0x440 95x40"},
    "CrawlerDueNotAsked": {"crawler_oldest_ready_seconds": "0x440 120x40"},
}
# Labels of a metric that an alert keeps
KEPT = {
    "CrawlerOutage": {"state": "outage"},
    "CrawlerStoresNothing": {"state": "paused"},
    "CrawlerPaused": {"state": "paused"},
    "CrawlerMemoryNearLimit": {"structure": "log lines"},
}
# What no rule may fire for
HARMLESS: dict[str, dict[str, str | None]] = {
    "a restart": {"up": "1x400 0x4 1x76", "crawler_response_bytes_total": "0+9000x400 _x4 0+9000x76"},
    "nothing to do": {
        'crawler_fetches_total{outcome="ok"}': "900x480",
        'crawler_fetches_total{outcome="error"}': "9x480",
    },
    "a few errors": {'crawler_fetches_total{outcome="error"}': "0+10x480"},
    "an hour of a busy loop, in moments": {"crawler_event_loop_lag_seconds": "0.9x480"},
    "a pause of an hour": {
        'crawler_state{state="paused"}': "0x300 1x180",
        'crawler_bottleneck{bottleneck="operator"}': "0x300 1x180",
    },
    "a crawl that fills a large disk in a month": {"crawler_output_free_bytes": "100000000000-1000000x480"},
    "a refused reload, mended": {"crawler_config_last_reload_success": "1x400 0x20 1x60"},
    "one structure that is always full": {
        'crawler_memory_held_bytes{structure="recent URL keys"}': "100x480",
        'crawler_memory_limit_bytes{structure="recent URL keys"}': "100x480",
    },
}


def series(instance: str, values: Mapping[str, str | None]) -> list[dict[str, str]]:
    """None: the daemon does not say."""
    own = f'job="crawler-{instance}", instance="{instance}:9090"'
    named = {name.rstrip("}").replace("{", ", ", 1): text for name, text in values.items() if text is not None}
    found = []
    for name, text in named.items():
        metric, _, labels = name.partition(", ")
        found.append({"series": f"{metric}{{{own}{', ' if labels else ''}{labels}}}", "values": text})
    return found


def firing(tmp_path: Path, input_series: list[dict[str, str]], expected: list[dict[str, str]]) -> None:
    """At the end exactly the expected alerts fire; each is given by its labels."""
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed")
    samples = [{"labels": "ALERTS" + json.dumps(labels), "value": 1} for labels in expected]
    for sample in samples:
        sample["labels"] = re.sub(r'"(\w+)": ', r"\1=", str(sample["labels"]))
    test = {
        "interval": f"{STEP_S}s",
        "input_series": input_series,
        "promql_expr_test": [
            {"expr": 'ALERTS{alertstate="firing"}', "eval_time": f"{STEPS * STEP_S}s", "exp_samples": samples}
        ],
    }
    path = tmp_path / "rules_test.json"  # JSON is YAML
    path.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [test]}))
    done = subprocess.run(["promtool", "test", "rules", path], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", ILL)
def test_each_fires_for_the_daemon_it_is_about(tmp_path: Path, alert: str) -> None:
    """For that one of two, and no other alert beside it."""
    labels = {"alertname": alert, "alertstate": "firing", "instance": "b:9090", "job": "crawler-b"}
    severity = re.search(r"severity: (\w+)", TEXTS[alert])
    assert severity is not None
    labels |= {"severity": severity[1]} | KEPT.get(alert, {})
    firing(tmp_path, series("a", WELL) + series("b", WELL | ILL[alert]), [labels])


@pytest.mark.parametrize("what", HARMLESS)
def test_none_fires_for_what_passes(tmp_path: Path, what: str) -> None:
    """Two daemons, one of them with something that needs nobody."""
    firing(tmp_path, series("a", WELL) + series("b", WELL | HARMLESS[what]), [])


def test_without_any_daemon_one_fires(tmp_path: Path) -> None:
    """Also if the job was never there."""
    labels = {"alertname": "CrawlerNotScraped", "alertstate": "firing", "severity": "page"}
    firing(tmp_path, [{"series": 'up{job="node", instance="a:9100"}', "values": "1x480"}], [labels])


def test_each_says_what_is_wrong_and_what_to_do() -> None:
    """Every rule is tried above; each has a severity, a summary and a description."""
    assert set(TEXTS) == {*ILL, "CrawlerNotScraped"}
    for alert, text in TEXTS.items():
        for part in ("severity: (page|warn)", 'summary: "', "description: "):
            assert re.search(part, text), (alert, part)
