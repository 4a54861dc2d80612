"""Commands that all agents of a crawl carry out, and how their results are joined."""

from collections.abc import Mapping
from typing import Any

import pytest

from crawler.admin.fleet_commands import FOR_ALL, asked, merged
from crawler.admin.unix_socket import CommandRefused
from crawler.core.enums import Exit


def results(*values: Any) -> dict[str, dict[str, Any]]:
    return {f"a{n}": {"result": value} for n, value in enumerate(values, 1)}


REFUSED = {"refused": "the store knows no host x.test", "exit_code": 1}


def test_numbers_are_added_and_lists_joined() -> None:
    """Of what is the same everywhere one is left."""
    assert merged(results({"urls": 3, "hosts": 1, "dry_run": False}, {"urls": 2, "hosts": 1, "dry_run": False})) == {
        "urls": 5, "hosts": 2, "dry_run": False,
    }  # fmt: skip
    assert merged(results({"changed": True, "in_flight": 2}, {"changed": False, "in_flight": 1})) == {
        "changed": True, "in_flight": 3,
    }  # fmt: skip
    assert merged(results({"name": "x", "was": None}, {"name": "x", "was": {"at": 12.5}})) == {
        "name": "x", "was": {"at": 12.5},
    }  # fmt: skip
    assert merged(results({"effects": {"ready": 1}}, {"effects": {"ready": 2, "woken": 1}})) == {
        "effects": {"ready": 3, "woken": 1}
    }
    assert merged(results(["x"], ["x", "y"])) == ["x", "y"]


def test_what_each_did_with_a_target_is_one_entry() -> None:
    """A takedown names each target once."""
    of = [
        [{"target": "x.test", "urls": n, "again": False}, {"target": "y.test", "urls": 0, "again": False}]
        for n in (0, 7)
    ]
    assert merged(results(*({"forgotten": one} for one in of))) == {
        "forgotten": [
            {"target": "x.test", "urls": 7, "again": False}, {"target": "y.test", "urls": 0, "again": False},
        ]
    }  # fmt: skip


def test_a_refusal_counts_if_all_refuse() -> None:
    """An agent that does not own a host does not know it."""
    assert merged({"a1": REFUSED, "a2": {"result": {"urls": 1}}}) == {"urls": 1}
    with pytest.raises(CommandRefused, match=r"a1: the store knows no host") as refused:
        merged({"a1": REFUSED, "a2": REFUSED})
    assert refused.value.exit_code == 1
    with pytest.raises(CommandRefused, match="no agent of the crawl answers") as nobody:
        merged({})
    assert nobody.value.exit_code == Exit.WAITING


class Fleet:
    """Answers of agents by command, and what they were asked."""

    def __init__(self, plans: Mapping[str, Any]) -> None:
        self.plans = plans
        self.was_asked: list[dict[str, Any]] = []

    async def ask(self, name: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        self.was_asked.append({"command": name, **arguments})
        return self.plans


def test_an_agent_that_could_not_do_its_part_is_named() -> None:
    ending = {"refused": "the crawl is ending", "exit_code": 75}
    with pytest.raises(CommandRefused, match="a2: the crawl is ending") as refused:
        merged({**results({"urls": 0}), "a2": ending})
    assert refused.value.exit_code == 75


async def test_a_reload_is_refused_as_a_whole() -> None:
    """If one agent refuses its configuration, or has other rules: then none is told to reload."""
    for plans in (
        {**results({"rules": "a"}), "a2": {"refused": "line 3 is wrong", "exit_code": 78}},
        results({"rules": "a"}, {"rules": "b"}),
    ):
        fleet = Fleet(plans)
        with pytest.raises(CommandRefused) as refused:
            await asked("reload", {}, fleet.ask)
        assert refused.value.exit_code == Exit.CONFIGURATION
        assert fleet.was_asked == [{"command": "reload", "dry_run": True}]


async def test_a_reload_reaches_all_after_all_agreed() -> None:
    """Their numbers are those of the whole: they are not added up."""
    fleet = Fleet(results({"rules": "a", "new_seeds": 2}, {"rules": "a", "new_seeds": 2}))
    assert await asked("reload", {}, fleet.ask) == {"rules": "a", "new_seeds": 2}
    assert [one.get("dry_run", False) for one in fleet.was_asked] == [True, False]
    assert "reload" in FOR_ALL
