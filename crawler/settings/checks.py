"""Checks that need two keys, the mode, or the disk.

Each rule reads whole Settings and yields CheckResults. A result names the keys that it is about, and is shown at the
first of them. Rules never write. Invariant: a rule yields nothing for the default Settings of `crawler crawl`.
"""

import os
import re
import ssl
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from stat import S_ISDIR
from typing import Final

from crawler.core.calendar_expression import first_after
from crawler.core.formatting import size
from crawler.core.ownership import LEAST_LEASE_S
from crawler.core.scope import doubt_about
from crawler.fetch.net.address import AddressDenied, AddressPolicy
from crawler.settings.configuration_errors import shown
from crawler.settings.schema import OVERRIDE
from crawler.settings.settings import Mode, Settings
from crawler.settings.value_types import format_duration, format_size

_NOT_FOR_FILES: Final = (Path("/proc"), Path("/sys"))
_CONTACT = re.compile(r"https?://[A-Za-z0-9[]|[^\s@]@[^\s@]")


@dataclass(frozen=True, slots=True)
class CheckResult:
    """A message about `keys` ("section.key"). After a warning the configuration is accepted."""

    keys: tuple[str, ...]
    message: str
    hint: str = ""
    is_warning: bool = False
    inner: tuple[str | int, ...] = ()  # where in the value of the first key it is


def findings(settings: Settings, mode: Mode) -> Iterator[CheckResult]:
    """Errors and warnings about values that are valid each by itself."""
    if mode == "run":
        yield from _for_the_daemon(settings)
    for rule in (
        _scope, _politeness, _overrides, _bounds, _schedule, _output, _credentials, _network, _proxy, _paths, _frontier
    ):  # fmt: skip
        yield from rule(settings)


def _for_the_daemon(settings: Settings) -> Iterator[CheckResult]:
    if _CONTACT.search(settings.identity.user_agent) is None:
        yield CheckResult(
            ("identity.user_agent",),
            "identity.user_agent must say how to reach you, by a URL or an e-mail address",
            'as in user_agent = "mybot/1.0 (+https://example.org/bot)"',
        )
    if settings.output.directory is None:
        yield CheckResult(
            ("output.directory",),
            "output.directory must be set for `crawler run`",
            'as in directory = "/var/lib/crawler"',
        )
    if not settings.listed_seeds and not settings.crawl.seed_files:
        yield CheckResult(
            ("crawl.seeds", "crawl.seed_files"),
            "crawl.seeds and crawl.seed_files are empty: nothing is crawled until `crawler add`",
            is_warning=True,
        )


def _scope(settings: Settings) -> Iterator[CheckResult]:
    for key, patterns in (("scope.include", settings.scope.include), ("scope.exclude", settings.scope.exclude)):
        yield from _patterns(key, patterns, (key,))
    for number, override in enumerate(settings.overrides):
        yield from _patterns("override.urls", override.urls, (OVERRIDE,), number, "urls")


def _patterns(name: str, patterns: Iterable[str], keys: tuple[str, ...], *inner: str | int) -> Iterator[CheckResult]:
    """Warnings about patterns of URLs that may mean something else."""
    for pattern in patterns:
        if doubt := doubt_about(pattern):
            yield CheckResult(
                keys,
                f'{name} "{pattern}": {doubt}; there is none here, its characters count one by one',
                r'for a letter write [A-Za-z], for a bracket "\["',
                is_warning=True,
                inner=inner,
            )
        is_regex = pattern.startswith("re:")
        if pattern.endswith("/") and len(pattern) > 1 and not is_regex and not set("*?").intersection(pattern):
            yield CheckResult(
                keys,
                f'{name} "{pattern}" matches that one URL only',
                f'for the folder write "{pattern}**"',
                is_warning=True,
                inner=inner,
            )


def _politeness(settings: Settings) -> Iterator[CheckResult]:
    politeness = settings.politeness
    if politeness.connections_per_host > 1 and politeness.delay > 0:
        yield CheckResult(
            ("politeness.connections_per_host", "politeness.delay"),
            f"politeness.connections_per_host = {politeness.connections_per_host} has an effect only if the delay "
            f"is 0; it is {format_duration(politeness.delay)}",
            is_warning=True,
        )
    per_address = politeness.connections_per_address
    if per_address is not None and per_address < politeness.connections_per_host:
        yield CheckResult(
            ("politeness.connections_per_host", "politeness.connections_per_address"),
            f"politeness.connections_per_host = {politeness.connections_per_host} is more than "
            f"connections_per_address = {per_address} allows",
            is_warning=True,
        )
    if politeness.robots == "ignore":
        yield CheckResult(
            ("politeness.robots",),
            'politeness.robots = "ignore": hosts are crawled against their robots.txt',
            is_warning=True,
        )
    if settings.robots_token.lower() == "mozilla":
        yield CheckResult(
            ("identity.user_agent", "identity.robots_token"),
            f'robots.txt is matched with "{settings.robots_token}", the first product in identity.user_agent',
            "set identity.robots_token to the name of your crawler",
            is_warning=True,
        )


def _overrides(settings: Settings) -> Iterator[CheckResult]:
    address_delay = settings.politeness.address_delay
    delay = settings.politeness.delay
    between = min(0.25, delay) if address_delay is None else address_delay
    for number, override in enumerate(settings.overrides):
        name = f'override "{[*override.hosts, *override.urls][0]}"' if override.hosts or override.urls else "override"
        least = override.min_interval or settings.recrawl.min_interval
        most = override.max_interval or settings.recrawl.max_interval
        if least > most and (override.min_interval or override.max_interval):
            yield CheckResult(
                (OVERRIDE, "recrawl.min_interval", "recrawl.max_interval"),
                f"{name}: min_interval ({format_duration(least)}) is longer than max_interval "
                f"({format_duration(most)})",
                inner=(number, "min_interval" if override.min_interval else "max_interval"),
            )
        if override.delay is not None and override.delay < between and settings.network.proxy is None:
            yield CheckResult(
                (OVERRIDE, "politeness.address_delay"),
                f"{name}: delay = {format_duration(override.delay)} has no full effect: there are "
                f"{format_duration(between)} between two requests to one IP address",
                "politeness.address_delay sets that, for all hosts",
                is_warning=True,
                inner=(number, "delay"),
            )
        host_delay = delay if override.delay is None else override.delay
        if (override.connections_per_host or 1) > 1 and host_delay > 0:
            yield CheckResult(
                (OVERRIDE, "politeness.delay"),
                f"{name}: connections_per_host = {override.connections_per_host} has an effect only if the delay "
                f"is 0; it is {format_duration(host_delay)}",
                is_warning=True,
                inner=(number, "connections_per_host"),
            )
        if override.robots == "ignore":
            message = f'{name}: robots = "ignore": these hosts are crawled against their robots.txt'
            yield CheckResult((OVERRIDE,), message, is_warning=True, inner=(number, "robots"))
        total = override.total_timeout or settings.fetch.total_timeout
        for key in ("first_byte_timeout", "read_timeout"):
            if (getattr(override, key) or 0.0) > total:
                yield CheckResult(
                    (OVERRIDE, f"fetch.{key}", "fetch.total_timeout"),
                    f"{name}: {key} ({format_duration(getattr(override, key))}) is longer than total_timeout "
                    f"({format_duration(total)}) and never ends a fetch",
                    is_warning=True,
                    inner=(number, key),
                )
        names = {field.lower(): field for field in override.headers or {}}
        if "cookie" in names and settings.fetch.cookies != "off":
            yield CheckResult(
                (OVERRIDE, "fetch.cookies"),
                f'{name}: headers: {names["cookie"]} cannot be sent beside fetch.cookies = "{settings.fetch.cookies}"',
                inner=(number, "headers"),
            )
        if "authorization" in names or "proxy-authorization" in names:
            field = names.get("authorization") or names["proxy-authorization"]
            yield CheckResult(
                (OVERRIDE,),
                f"{name}: headers: {field} is sent to every port of these hosts, unencrypted over http",
                "identity.secrets keeps credentials for one origin",
                is_warning=True,
                inner=(number, "headers"),
            )


def _bounds(settings: Settings) -> Iterator[CheckResult]:
    fetch = settings.fetch
    if settings.engine.memory < fetch.spool_over:
        # A body up to spool_over is kept in memory. If the budget is smaller, it would wait for ever.
        yield CheckResult(
            ("engine.memory", "fetch.spool_over"),
            f"engine.memory must be at least fetch.spool_over ({format_size(fetch.spool_over)}), "
            f"not {format_size(settings.engine.memory)}",
        )
    for name in ("connect_timeout", "tls_timeout", "first_byte_timeout", "read_timeout"):
        timeout: float = getattr(fetch, name)
        if timeout > fetch.total_timeout:
            yield CheckResult(
                (f"fetch.{name}", "fetch.total_timeout"),
                f"fetch.{name} ({format_duration(timeout)}) is longer than fetch.total_timeout "
                f"({format_duration(fetch.total_timeout)}) and never ends a fetch",
                is_warning=True,
            )
    if fetch.bandwidth is not None and (fetch.bandwidth_per_host or 0) > fetch.bandwidth:
        yield CheckResult(
            ("fetch.bandwidth_per_host", "fetch.bandwidth"),
            f"fetch.bandwidth_per_host ({format_size(fetch.bandwidth_per_host or 0)}) is more than fetch.bandwidth "
            f"({format_size(fetch.bandwidth)}) lets through",
            is_warning=True,
        )
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if settings.engine.memory > memory:
        yield CheckResult(
            ("engine.memory",),
            f"engine.memory = {format_size(settings.engine.memory)} is more than the machine has, {size(memory)}",
            is_warning=True,
        )
    least, most = settings.recrawl.min_interval, settings.recrawl.max_interval
    if least > most:
        yield CheckResult(
            ("recrawl.min_interval", "recrawl.max_interval"),
            f"recrawl.min_interval ({format_duration(least)}) is longer than recrawl.max_interval "
            f"({format_duration(most)})",
        )


def _schedule(settings: Settings) -> Iterator[CheckResult]:
    for expression in settings.schedule.at:
        if first_after([expression], time.time()) is None:
            yield CheckResult(
                ("schedule.at",),
                f'schedule.at "{expression}" never comes from now on',
                "leave it out, or write a date that is still to come",
                is_warning=True,
            )


def _output(settings: Settings) -> Iterator[CheckResult]:
    types = settings.fetch.content_types
    if types and not any(fnmatchcase("text/html", glob) for glob in types):
        yield CheckResult(
            ("fetch.content_types",),
            "fetch.content_types leaves out text/html: no page is read, and no link is found",
            is_warning=True,
        )
    if not settings.output.warc and not settings.output.pages:
        yield CheckResult(
            ("output.warc", "output.pages"), "output.warc and output.pages are off: no page is kept", is_warning=True
        )


def _network(settings: Settings) -> Iterator[CheckResult]:
    network = settings.network
    if network.bind_address is not None:
        version = ip_address(network.bind_address).version
        if network.address_family != "any" and network.address_family != f"ipv{version}":
            yield CheckResult(
                ("network.bind_address", "network.address_family"),
                f"network.bind_address is an IPv{version} address, "
                f'network.address_family is "{network.address_family}"',
            )
    policy = AddressPolicy(network.allow_private)
    for name, addresses in network.resolve.items():
        for address in addresses:
            try:
                policy.check(address)
            except AddressDenied as denied:
                yield CheckResult(
                    ("network.resolve", "network.allow_private"),
                    f"network.resolve: {name} will not be connected to: {denied}",
                    "network.allow_private lists the exceptions",
                    is_warning=True,
                )
    if not settings.tls.verify:
        yield CheckResult(
            ("tls.verify",), "tls.verify = false: anybody on the network path can impersonate a server", is_warning=True
        )
    if network.ca_file is not None and (problem := _problem_of_ca_file(network.ca_file)):
        yield CheckResult(("network.ca_file",), f"network.ca_file {network.ca_file}: {problem}")


def _credentials(settings: Settings) -> Iterator[CheckResult]:
    """Credentials must be sent to one origin only, and encrypted."""
    names = {name.lower(): name for name in settings.fetch.headers}
    for lower in ("authorization", "proxy-authorization"):
        if lower in names:
            yield CheckResult(
                ("fetch.headers",),
                f"fetch.headers: {names[lower]} is sent to every host that is crawled",
                "identity.secrets keeps credentials for one origin",
                is_warning=True,
            )
    if "cookie" in names and settings.fetch.cookies != "off":
        yield CheckResult(
            ("fetch.headers", "fetch.cookies"),
            f'fetch.headers: {names["cookie"]} cannot be sent beside fetch.cookies = "{settings.fetch.cookies}"',
        )
    for origin in settings.secrets.authorization:
        if origin.scheme != "https":
            yield CheckResult(
                ("identity.secrets",),
                f"identity.secrets: the credentials for {origin} are sent unencrypted",
                is_warning=True,
            )


def _proxy(settings: Settings) -> Iterator[CheckResult]:
    network = settings.network
    if network.proxy is None:
        if settings.secrets.proxy_authorization is not None:
            yield CheckResult(
                ("identity.secrets", "network.proxy"),
                "identity.secrets has credentials for a proxy, and network.proxy names none",
                is_warning=True,
            )
        return
    if "@" in network.proxy and settings.secrets.proxy_authorization is not None:
        yield CheckResult(
            ("network.proxy", "identity.secrets"),
            "network.proxy and identity.secrets both have credentials for the proxy",
            "leave those in network.proxy out",
        )
    if network.resolve or network.nameservers:
        yield CheckResult(
            ("network.proxy", "network.resolve", "network.nameservers"),
            "network.resolve and network.nameservers only serve to find the proxy, which resolves other names",
            is_warning=True,
        )
    if settings.politeness.address_delay is not None or settings.politeness.connections_per_address is not None:
        yield CheckResult(
            ("politeness.address_delay", "politeness.connections_per_address", "network.proxy"),
            "politeness.address_delay and connections_per_address have no effect behind a proxy: only the proxy "
            "knows the addresses",
            is_warning=True,
        )


def _problem_of_ca_file(path: str) -> str:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cafile=path)
    except ssl.SSLError:
        return "holds no certificate in PEM form, or a damaged one"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return "" if context.cert_store_stats()["x509"] else "holds no certificate"


def _paths(settings: Settings) -> Iterator[CheckResult]:
    for key, path, is_folder in (
        ("output.directory", settings.output_directory, True),
        ("log.directory", settings.log_directory, True),
        ("frontier.path", settings.frontier_path, False),
        ("admin.socket", settings.control_socket, False),
    ):
        if settings.get(key) is None and key != "output.directory":
            continue
        if not _is_utf_8(path.absolute()):
            yield CheckResult((key,), f"{key} {shown(str(path.absolute()))} is not UTF-8, as paths in run.json must be")
        elif not is_folder and _is_directory(path):
            yield CheckResult((key,), f"{key} {path}: is a directory")
        elif (file := _file_in_the_way(path if is_folder else path.parent)) is not None:
            yield CheckResult((key,), f"{key} {path}: {file} is not a directory")
        elif is_folder:
            yield from _cannot_be_created(key, path)


def _frontier(settings: Settings) -> Iterator[CheckResult]:
    if settings.frontier.store != "postgresql":
        for key in ("dsn", "agent", "lease"):
            if key in settings.frontier.model_fields_set:
                message = f'frontier.{key} has no effect with frontier.store = "sqlite"'
                yield CheckResult((f"frontier.{key}",), message, is_warning=True)
        return
    if settings.frontier.duplicates != "exact":
        message = 'frontier.duplicates = "filter" is of SQLite: a PostgreSQL store finds known URLs by an index'
        yield CheckResult(("frontier.duplicates", "frontier.store"), message)
    if settings.frontier.lease < LEAST_LEASE_S:
        yield CheckResult(("frontier.lease",), f"frontier.lease must be at least {LEAST_LEASE_S:.0f}s")
    if find_spec("asyncpg") is None:
        message = 'frontier.store = "postgresql" needs the library asyncpg'
        yield CheckResult(("frontier.store",), message, hint="pip install 'crawlerd[postgresql]'")


def _is_utf_8(path: Path) -> bool:
    try:
        return bool(str(path).encode())
    except UnicodeEncodeError:  # half a surrogate pair: so Python represents other bytes
        return False


def _cannot_be_created(key: str, directory: Path) -> Iterator[CheckResult]:
    """An error if nobody can create the directory; a warning if only this user cannot: another may run the crawl."""
    try:
        if directory.exists():
            return
        above = next(path for path in directory.absolute().parents if path.exists())
    except OSError:  # opening it will fail with a message
        return
    if top := next((top for top in _NOT_FOR_FILES if above.is_relative_to(top)), None):
        yield CheckResult((key,), f"{key} {directory}: no directory can be created in {top}")
    elif os.statvfs(above).f_flag & os.ST_RDONLY:
        yield CheckResult((key,), f"{key} {directory}: cannot be created: {above} is on a read-only file system")
    elif not os.access(above, os.W_OK | os.X_OK):
        message = f"{key} {directory}: this user cannot create it: {above} may not be written to"
        yield CheckResult((key,), message, is_warning=True)


def _file_in_the_way(directory: Path) -> Path | None:
    """The part of the path that exists and is no directory."""
    for path in (directory, *directory.parents):
        if (is_directory := _is_directory(path)) is not None:
            return None if is_directory else path
    return None


def _is_directory(path: Path) -> bool | None:
    """Whether a path is a directory; None if it does not exist or is not readable: to open it fails with a message."""
    try:
        return S_ISDIR(path.stat().st_mode)
    except OSError:
        return None
