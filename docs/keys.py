"""Prints reference/keys.md, the table of all configuration keys: `make generated`."""

from crawler.settings.schema import SECTIONS, ConfigurationKey, keys, table_keys, toml_text
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
for table, about in (
    ("override", "Options of some hosts or URLs ([Overrides](configuration.md#overrides))"),
    ("seed", "Seeds with options of their own ([Seeds](configuration.md#seeds))"),
):
    print(f"## [[{table}]]\n\n{about}; in a file only.\n")
    print("| key | type | default | meaning |\n|---|---|---|---|")
    needed = {"hosts": "hosts or urls must be given", "urls": "hosts or urls must be given", "url": "must be given"}
    for key in table_keys(table).values():
        print(row(key, needed.get(key.name, "none" if key.name == "tags" else "as in the crawl")))
    print()
