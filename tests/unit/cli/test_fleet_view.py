"""`crawler fleet`: what it makes of the agents of a database."""

from typing import Any

from crawler.cli.status import fleet_json, fleet_lines
from crawler.frontier.base import Totals
from crawler.frontier.postgresql.fleet_control import AgentView, FleetView

TOTALS = Totals(queued=3, waiting=0, done=7, denied=1, gave_up=0, hosts=4, hosts_with_work=2)
PROGRESS = {"pages_per_s": 2.5, "bottleneck": "politeness", "queued": 99}


def agent(name: str, **more: Any) -> AgentView:
    known: dict[str, Any] = {
        "process": "process 7 on m", "has_left": False, "lease_s": 15.0, "renewed_s": 1.0, "slots": 512,
        "inbox_urls": 0, "queued": 3, "status": PROGRESS,
    }  # fmt: skip
    return AgentView(name, **(known | more))


def fleet(*agents: AgentView, free: int = 0, inbox: int = 0, waits_s: float = 0.0) -> FleetView:
    return FleetView("the database crawl at db", agents, free, inbox, waits_s, TOTALS, 8)


def attention(view: FleetView) -> list[tuple[str, str]]:
    return [(one["level"], one["text"]) for one in fleet_json(view)["attention"]]


def test_nothing_needs_attention_while_all_live_and_all_slots_have_an_agent() -> None:
    """What is in the inbox is on its way; an agent that left did so by itself."""
    view = fleet(agent("a1"), agent("a2"), agent("a0", has_left=True, slots=0, renewed_s=1e6), inbox=5, waits_s=0.4)
    found = fleet_json(view)
    assert (found["attention"], found["alive"], found["pages_per_s"]) == ([], 2, 5.0)
    assert [one["state"] for one in found["agents"]] == ["alive", "alive", "left"]
    assert [one["bottleneck"] for one in found["agents"]] == ["politeness", "politeness", None]


def test_a_lease_that_is_overdue_comes_before_slots_and_urls_that_wait() -> None:
    view = fleet(agent("a1", slots=1), agent("a2", renewed_s=40.0), free=511, inbox=1, waits_s=70.0)
    assert attention(view) == [
        ("bad", "a2 renewed its lease of 15 s 40 s ago; 512 slots are still its own"),
        ("warn", "511 slots of 1,024 have no agent"),
        ("warn", "1 URL is in the inbox, the first for 1 min 10 s"),
    ]


def test_without_an_agent_free_slots_are_no_news() -> None:
    view = fleet(agent("a1", has_left=True, slots=0), free=1024)
    assert attention(view) == [("bad", "no agent lives: nothing is crawled")]


def test_an_agent_that_stands_still_is_named_with_what_helps() -> None:
    """One that waits for its disk for a moment is not."""
    busy = agent("a2", status={"bottleneck": "disk", "state": "crawling"})
    found = fleet_json(fleet(agent("a1", status={"bottleneck": "disk", "state": "paused"}), busy))["attention"]
    assert [(one["text"], "make room" in one["advice"]) for one in found] == [("a1 stands still: disk", True)]


def test_the_view_has_attention_then_agents_then_the_whole_crawl() -> None:
    lines = fleet_lines(fleet_json(fleet(agent("a1"), agent("a2", renewed_s=40.0, queued=None), inbox=2)))
    assert lines[0] == "1 agent lives, 1 overdue in the database crawl at db"
    assert lines[1].startswith("  attention    problem: a2 renewed its lease")
    table = lines.index("") + 1
    assert lines[table].split("  ")[0] == "AGENT"
    assert lines[table + 1].split() == [
        "a1", "alive", "1", "s", "ago", "512", "2.5", "3", "0", "politeness", "process", "7", "on", "m",
    ]  # fmt: skip
    assert lines[table + 2].split()[:6] == ["a2", "overdue", "40", "s", "ago", "512"]
    assert lines[-5:] == [
        "  pages        8 since the crawl began, 2.5/s now",
        "  URLs         11 found: 7 fetched, 1 denied, 3 queued, 0 due later",
        "  hosts        4, 2 with work",
        "  slots        1,024, none free",
        "  inbox        2 URLs that the owners of their slots have not taken in yet",
    ]
