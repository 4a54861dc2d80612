"""Runs the real command as its users do: a process with a configuration, an output directory, an exit code.

It knows the command line and the files of a crawl, and imports nothing of the crawler. Invariant: no process outlives
its `with` block.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TIMEOUT_S = 90.0  # for a crawl of seconds: only a crawl that hangs reaches it

Sections = Mapping[str, Mapping[str, object]]


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def summary(self) -> dict[str, Any]:
        """The one object of `--json`."""
        found: dict[str, Any] = json.loads(self.stdout)
        return found


def environment(**more: str) -> dict[str, str]:
    """The environment of this process, without variables that configure the crawler."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("CRAWLER_", "NOTIFY_", "WATCHDOG_", "JOURNAL_"))}
    return kept | more


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "crawler", *map(str, arguments)]


def run(*arguments: object, timeout: float = TIMEOUT_S, **more: Any) -> Ran:
    """Run `crawler` to its end. `more` goes to subprocess.run."""
    more.setdefault("env", environment())
    ended = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=timeout, check=False, **more)
    return Ran(ended.returncode, ended.stdout, ended.stderr)


@contextmanager
def running(*arguments: object, **more: Any) -> Iterator[subprocess.Popen[str]]:
    """Start `crawler`. It is killed at the end of the block if it still runs."""
    more.setdefault("env", environment())
    more.setdefault("stderr", subprocess.PIPE)
    with subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, text=True, **more) as process:
        try:
            yield process
        finally:
            process.kill()


def ended(process: subprocess.Popen[str], timeout: float = TIMEOUT_S) -> Ran:
    """Wait for a started command."""
    stdout, stderr = process.communicate(timeout=timeout)
    return Ran(process.returncode, stdout, stderr or "")


def problems(stderr: str) -> str:
    """What a crawl printed, without the sentence that everything was visited before."""
    return "".join(line for line in stderr.splitlines(True) if "`crawler crawl --again` visits them anew" not in line)


def toml(sections: Sections) -> str:
    """Sections as TOML: strings, numbers, lists and tables of strings."""
    lines = []
    for section, keys in sections.items():
        lines.append(f"[{section}]")
        lines += [f"{name} = {_value(value)}" for name, value in keys.items()]
    return "\n".join(lines) + "\n"


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(key)} = {_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(str(value) if isinstance(value, Path) else value)  # a JSON string is a TOML basic string


@dataclass(frozen=True)
class Crawl:
    """A configuration file and an output directory, for any number of runs."""

    config: Path
    output: Path
    logs: Path

    @classmethod
    def of(cls, directory: Path, sections: Sections, output: Path | None = None) -> "Crawl":
        """Write `directory`/crawler.toml; the output is beside it by default."""
        config = directory / "crawler.toml"
        config.write_text(toml(sections))
        output = output or directory / "out"
        return cls(config, output, Path(str(sections.get("log", {}).get("directory", output / "logs"))))

    def arguments(self, *more: object) -> Sequence[object]:
        return ("crawl", "-c", self.config, "--output", self.output, "--json", *more)

    def run(self, *more: object, timeout: float = TIMEOUT_S) -> Ran:
        return run(*self.arguments(*more), timeout=timeout)

    def fetches(self) -> list[dict[str, Any]]:
        """The lines of fetch.jsonl."""
        return read_lines(self.logs / "fetch.jsonl")

    def events(self) -> list[dict[str, Any]]:
        """The lines of events.jsonl."""
        return read_lines(self.logs / "events.jsonl")

    def page_lines(self) -> list[dict[str, Any]]:
        """The lines of every file in pages/."""
        return [line for path in self._files("pages") for line in read_lines(path)]

    def warcs(self) -> list[Path]:
        """The WARC files, open ones too."""
        return self._files("warc")

    def _files(self, folder: str) -> list[Path]:
        """The files of a sink without orphans: those were never committed."""
        return sorted(path for path in (self.output / folder).iterdir() if path.suffix != ".orphan")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read JSON lines. A last line without an end, cut off by a kill, is left out."""
    lines = path.read_bytes().split(b"\n")
    assert b"" not in lines[:-1]
    return [json.loads(line) for line in lines[:-1]]
