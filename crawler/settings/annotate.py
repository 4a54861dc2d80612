"""Writes config/crawler.toml: every key with its meaning, unit and default, each commented out.

`python -m crawler.settings.annotate > config/crawler.toml`; a test keeps the file in step. Invariant: with the "#"
before each key taken away, the file gives every key, and loads.
"""

import sys
import textwrap
from typing import Final

from crawler.settings.kinds import number_text
from crawler.settings.schema import SECTIONS, ConfigurationKey, keys, toml_text

_WIDTH: Final = 100
_HEAD: Final = """\
#:schema ./crawler.schema.json
# Configuration of the crawler. Every key is here with its default; uncomment what you change.
#
# `crawler run` needs three: identity.user_agent with a way to reach you, crawl.seeds (or seed_files), output.directory.
#
# Durations: "500ms", "1s", "1h30m" (units d, h, m, s, ms) or a number of seconds. Sizes: "32MiB", "1GB" or a number of
# bytes. "none": no limit. Relative paths are taken from the directory of the file they stand in.
# Files of conf.d/ beside this one are read after it, in the order of their names; then the environment,
# CRAWLER_SECTION__KEY; then -o section.key=value. Each replaces a key whole.
# "live": a reload brings the key into force; "restart": only a restart does.
"""


def annotated() -> str:
    """The whole file."""
    return _HEAD + "".join(_section(name) for name in SECTIONS)


def _section(name: str) -> str:
    about = _comment(SECTIONS[name].__doc__ or "")
    return f"\n\n{about}[{name}]\n" + "".join(_key(key) for key in keys().values() if key.section == name)


def _key(key: ConfigurationKey) -> str:
    value = key.example if key.derived else toml_text(key, key.default)
    kind = key.kind.value
    force = "restart" if key.restart else "live"
    if key.most is not None:
        kind += f", at most {number_text(key.kind, key.most)}"
    return f"\n{_comment(key.description)}# {kind}; default: {key.derived or value}; {force}\n#{key.name} = {value}\n"


def _comment(text: str) -> str:
    return "".join(f"# {line}\n" for line in textwrap.wrap(text, _WIDTH, break_long_words=False))


if __name__ == "__main__":
    sys.stdout.write(annotated())
