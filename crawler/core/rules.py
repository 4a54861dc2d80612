"""The rules a crawl judges URLs by, as it writes them into run.json and as an inspector reads them back.

Values only, without secrets: no header field and no seed is in it, only the hosts of the seeds. It does not know how
the rules came about (`settings`) nor how they judge (`core.scope`, `engine.pages.url_policy`).
Invariant: `load(dump(rules)) == rules`; what a newer version added is passed over.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

import orjson

from crawler.core.options import PolitenessOptions, ScopeOptions, ScopeRule, TrapOptions

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Rules:
    """`robots_token` is the product token for robots.txt; `allow_private` and `resolve` are those of [network]."""

    scope: ScopeOptions = field(default_factory=ScopeOptions)
    politeness: PolitenessOptions = field(default_factory=PolitenessOptions)
    traps: TrapOptions = field(default_factory=TrapOptions)
    seed_hosts: tuple[str, ...] = ()
    robots_token: str = ""
    allow_private: tuple[str, ...] = ()
    resolve: tuple[tuple[str, tuple[str, ...]], ...] = ()


def dump(rules: Rules) -> dict[str, Any]:
    """As JSON holds it."""
    table: dict[str, Any] = orjson.loads(orjson.dumps(rules))
    return table


def load(table: object) -> Rules | None:
    """From JSON; None for what no crawl of ours wrote."""
    if not isinstance(table, Mapping):
        return None
    try:
        known = _known(Rules, table)
        known["scope"] = _scope(known.get("scope", {}))
        known["politeness"] = PolitenessOptions(**_known(PolitenessOptions, known.get("politeness", {})))
        known["traps"] = TrapOptions(**_known(TrapOptions, known.get("traps", {})))
        return Rules(**known)
    except (TypeError, AttributeError):
        return None


def _scope(table: Mapping[str, Any]) -> ScopeOptions:
    known = _known(ScopeOptions, table)
    for name in ("include", "exclude"):
        known[name] = tuple(ScopeRule(rule["pattern"], rule.get("place", "")) for rule in table.get(name, ()))
    return ScopeOptions(**known)


def _known(kind: type[Any], table: object) -> dict[str, Any]:
    """The fields of a dataclass that a table has, arrays as tuples. Raises TypeError for what is no table."""
    if not isinstance(table, Mapping):
        raise TypeError
    return {one.name: _tupled(table[one.name]) for one in fields(kind) if one.name in table}


def _tupled(value: Any) -> Any:
    return tuple(map(_tupled, value)) if isinstance(value, list) else value
