"""Prints reference/keys.md, the table of all configuration keys: `make generated`."""

from crawler.settings.schema import SECTIONS, ConfigurationKey, keys, override_keys, toml_text
from crawler.settings.value_types import number_text

HEAD = """\
# Configuration keys

Made of the code by `make generated`. Durations are `"500ms"`, `"1h30m"` or a number of seconds; sizes are `"32MiB"` or
a number of bytes; `"none"` means no limit. A reload brings a key into force unless it needs a restart.
"""


def cell(text: str) -> str:
    return text.replace("|", r"\|").replace("<", "&lt;")


def row(key: ConfigurationKey, default: str) -> str:
    most = "" if key.most is None else f", at most {number_text(key.kind, key.most)}"
    meaning = cell(key.description) + (" Needs a restart." if key.restart else "")
    return f"| `{key.name}` | {key.kind.value}{most} | {default} | {meaning} |"


print(HEAD)
for section, model in SECTIONS.items():
    print(f"## {section}\n\n{cell(model.__doc__ or '')}\n")
    print("| key | type | default | meaning |\n|---|---|---|---|")
    for key in keys().values():
        if key.section == section:
            print(row(key, cell(key.derived) or f"`{cell(toml_text(key, key.default))}`"))
    print()
print("## [[override]]\n\nOptions of some hosts or URLs ([Overrides](configuration.md#overrides)); in a file only.\n")
print("| key | type | default | meaning |\n|---|---|---|---|")
for key in override_keys().values():
    print(row(key, "hosts or urls must be given" if key.name in ("hosts", "urls") else "as in the crawl"))
print()
