"""Commands that are for all agents of a crawl: each of them carries them out on the hosts that it owns, and the results
are added up.

They come over the control socket of any agent, or from a program that only reaches the database.
Invariant: a result says what all agents did, and names those that refused or did not answer.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Final, Self

import orjson

from crawler.admin.control_socket import Arguments, Command
from crawler.admin.unix_socket import CommandRefused
from crawler.core.enums import Exit
from crawler.frontier.base import Agents, FrontierFull

# `pause`, `resume`, `stop` and `reload` are for the processes, the others for the hosts.
FOR_ALL: Final = frozenset(
    ("pause", "resume", "stop", "reload", "requeue", "retry", "forget", "release", "block", "unblock")
)
# What one agent does for all: it sends on what it does not own, and all have the same blocks.
FOR_ONE: Final = frozenset(("add", "blocks"))
END_S: Final = 0.2  # between two looks whether an agent still runs
_SAME_FOR_ALL: Final = frozenset(("reload",))  # each agent's numbers are those of the whole

Answers = Mapping[str, Mapping[str, Any]]  # agent → {"result": …}, or {"refused": message, "exit_code": …}
Ask = Callable[[str, Arguments], Awaitable[Answers]]


class FleetCommands:
    """The commands of an agent (`own`), of which those of FOR_ALL are passed on to all agents."""

    def __init__(self, own: Mapping[str, Command], agents: Agents) -> None:
        self._own = own
        self._agents = agents

    def table(self) -> dict[str, Command]:
        return {name: partial(self._for_all, name) if name in FOR_ALL else one for name, one in self._own.items()}

    async def carry_out(self, name: str, arguments: Arguments) -> dict[str, Any]:
        """The answer of this agent to a command that was passed on."""
        if name not in self._own:
            return {"refused": f"there is no command {name}", "exit_code": int(Exit.USAGE)}
        try:
            # As a client would get it: numbers by id become text
            return {
                "result": orjson.loads(orjson.dumps(await self._own[name](arguments), option=orjson.OPT_NON_STR_KEYS))
            }
        except CommandRefused as refused:
            return {"refused": str(refused), "exit_code": refused.exit_code, "details": refused.details}

    async def _for_all(self, name: str, arguments: Arguments) -> object:
        try:
            return await asked(name, arguments, self._agents.ask)
        except FrontierFull as error:
            raise CommandRefused(f"the other agents cannot be reached: {error}", Exit.IO) from None


async def asked(name: str, arguments: Arguments, ask: Ask) -> object:
    """The result of a command that is for all agents. Before a reload all of them read their configuration: it is
    refused as a whole if one of them refuses it, or has other rules. Raises CommandRefused.
    """
    if name == "reload" and not arguments.get("dry_run"):
        plans = await ask(name, {**arguments, "dry_run": True})
        merged(plans, name)
        for agent, answer in plans.items():
            if "refused" in answer:
                raise _refused(agent, answer)
        if len({answer["result"].get("rules") for answer in plans.values()}) > 1:
            names = ", ".join(plans)
            raise CommandRefused(
                f"the configurations of the agents ({names}) differ in rules of scope or politeness: none was changed",
                Exit.CONFIGURATION,
            )
    return merged(await ask(name, arguments), name)


def merged(answers: Answers, name: str = "") -> Any:
    """The results of all agents as one: numbers are added up, lists joined. Raises CommandRefused if all refused, if
    one could not do its part, or if none answered.
    """
    results = [answer["result"] for answer in answers.values() if "result" in answer]
    for agent, answer in answers.items():
        if answer.get("exit_code", Exit.FINDINGS) != Exit.FINDINGS:  # not only that the host is of another agent
            raise _refused(agent, answer)
    if results:
        return _merged(results, max if name in _SAME_FOR_ALL else sum)
    if not answers:
        raise CommandRefused("no agent of the crawl answers: start one, and give the command again", Exit.WAITING)
    raise _refused(*next(iter(answers.items())))


def _refused(agent: str, answer: Mapping[str, Any]) -> CommandRefused:
    return CommandRefused(f"{agent}: {answer['refused']}", answer["exit_code"], answer.get("details"))


def _merged(values: Sequence[Any], add: Callable[[list[Any]], Any]) -> Any:
    first = next((one for one in values if one is not None), None)
    match first:
        case bool():
            return any(values)
        case int():
            return add([one for one in values if one is not None])
        case dict():
            names = dict.fromkeys(name for one in values if one is not None for name in one)
            return {
                name: _merged([one[name] for one in values if one is not None and name in one], add) for name in names
            }
        case list():
            found = [item for one in values if one is not None for item in one]
            if all(isinstance(item, dict) and "target" in item for item in found):  # what each did with it
                targets = dict.fromkeys(item["target"] for item in found)
                return [_merged([item for item in found if item["target"] == target], add) for target in targets]
            return [item for at, item in enumerate(found) if item not in found[:at]]
        case _:
            return first


class FleetControl:
    """The agents of a crawl, reached through its database: `with FleetControl(dsn) as control: control.call("pause")`.
    It stands in for the control socket of a daemon where none runs here.
    """

    def __init__(self, dsn: str, password: str | None) -> None:
        self._dsn, self._password = dsn, password

    def call(self, command: str, arguments: Arguments | None = None, *, timeout_s: float = 0.0) -> Any:
        """The command's result. Raises CommandRefused, FrontierError."""
        return asyncio.run(self._call(command, arguments or {}))

    async def _call(self, command: str, arguments: Arguments) -> Any:
        from crawler.frontier.postgresql.fleet_control import session  # its library is an extra

        async with session(self._dsn, self._password) as ask:
            if command in FOR_ONE:
                return merged(await ask(command, arguments, by_one=True))
            return await asked(command, arguments, ask)

    def wait_for_end(self, timeout_s: float) -> bool:
        """Wait until all agents have ended; False if they have not after `timeout_s`."""
        from crawler.frontier.postgresql.fleet_control import living

        end = time.monotonic() + timeout_s
        while asyncio.run(living(self._dsn, self._password)):
            if time.monotonic() > end:
                return False
            time.sleep(END_S)
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return
