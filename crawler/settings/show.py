"""The effective configuration for a person's eyes: every key, its value, where it came from.

Secrets are masked here and nowhere else is a value shown whole. Invariant: no header value, and no userinfo of a seed
or a proxy, leaves this module, but for the header fields named in _HARMLESS.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from crawler.settings.schema import ConfigurationKey, keys, toml_text
from crawler.settings.settings import Settings

DEFAULT_ORIGIN: Final = "default"
MASK: Final = "***"

# Everything else may be a credential, whatever it is called.
_HARMLESS: Final = frozenset(
    (
        "accept",
        "accept-charset",
        "accept-language",
        "cache-control",
        "dnt",
        "pragma",
        "sec-gpc",
        "upgrade-insecure-requests",
    )
)
_USERINFO = re.compile(r"\A((?:[A-Za-z][A-Za-z0-9+.-]*:)?/*)[^/?#]*@")


@dataclass(frozen=True, slots=True)
class Shown:
    """One key. `value` is fit for JSON: None where there is no limit or nothing is set; `text` is the same as TOML.

    `note` says in words what a value stands for that follows from other keys; `origin` is "default" or a place.
    """

    key: str
    value: object
    text: str
    origin: str
    note: str
    description: str
    restart: bool


def masked(settings: Settings, origins: Mapping[str, str]) -> list[Shown]:
    """Every key of `settings`, in the order of the file."""
    return [_shown(key, settings, origins.get(dotted, DEFAULT_ORIGIN)) for dotted, key in keys().items()]


def _shown(key: ConfigurationKey, settings: Settings, origin: str) -> Shown:
    value, note = settings.get(str(key)), ""
    if value is None:
        value, note = _worked_out(settings).get(str(key)), key.derived
    match str(key), value:
        case "fetch.headers", dict():
            value = {name: text if name.lower() in _HARMLESS else MASK for name, text in value.items()}
        case "network.proxy", str():
            value = _without_userinfo(value)
        case "crawl.seeds", tuple():
            value = tuple(map(_without_userinfo, value))
    return Shown(
        key=str(key),
        value=list(value) if isinstance(value, tuple) else value,
        text="" if value is None and note else toml_text(key, value),
        origin=origin,
        note=note,
        description=key.description,
        restart=key.restart,
    )


def _without_userinfo(url: str) -> str:
    return _USERINFO.sub(rf"\g<1>{MASK}@", url)


def _worked_out(settings: Settings) -> dict[str, str]:
    """What keys that are not set come to, where `settings` knows."""
    return {
        "identity.robots_token": settings.robots_token,
        "output.directory": str(settings.output_directory),
        "frontier.path": str(settings.frontier_path),
        "log.directory": str(settings.log_directory),
        "admin.socket": str(settings.control_socket),
    }
