"""The licences of what is installed with the crawler, as docs/LICENSES.md: `python release/licenses.py`.

Invariant: every package of requirements.lock has an SPDX expression, its own or one that somebody read in its licence.
"""

import re
import sys
from importlib.metadata import metadata
from pathlib import Path
from typing import Final

LOCK: Final = Path(__file__).parents[1] / "requirements.lock"
_PINNED: Final = re.compile(r"^([a-z0-9-]+)==(\S+)", re.M)

# Of packages whose metadata has no License-Expression, read in the licence file that each brings
_READ: Final = {
    "aiohappyeyeballs": "PSF-2.0", "aiosignal": "Apache-2.0", "apsw": "Zlib", "brotli": "MIT", "certifi": "MPL-2.0",
    "chardetng-py": "MIT", "endec": "MIT", "frozenlist": "Apache-2.0", "markdown-it-py": "MIT", "mdurl": "MIT",
    "pcre2": "BSD-3-Clause", "propcache": "Apache-2.0", "rich": "MIT", "uvloop": "Apache-2.0 OR MIT",
    "webencodings": "BSD-3-Clause", "xxhash": "BSD-2-Clause", "yarl": "Apache-2.0",
}  # fmt: skip
_HEAD: Final = """\
# Licences

The crawler is under Apache-2.0. What is installed with it (requirements.lock) is under the licences below; each package
brings its text in its folder `*.dist-info`. The status page has uPlot (MIT). `make generated` writes this.

| package | version | licence |
|---|---|---|
"""


def pinned() -> dict[str, str]:
    """Package → version, as requirements.lock has them."""
    return dict(_PINNED.findall(LOCK.read_text()))


def expression(package: str) -> str:
    """The SPDX licence expression of an installed package. Raises KeyError if somebody has to read its licence."""
    return metadata(package).get("License-Expression") or _READ[package]


def page() -> str:
    """The text of docs/LICENSES.md."""
    return _HEAD + "".join(f"| {name} | {version} | {expression(name)} |\n" for name, version in pinned().items())


if __name__ == "__main__":
    sys.stdout.write(page())
