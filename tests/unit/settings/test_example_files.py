"""The configuration files that come with the program."""

import re
import subprocess
import sys
from pathlib import Path

import certifi
import pytest

from crawler.settings.generated_files import annotated
from crawler.settings.loading import load
from crawler.settings.schema import keys
from crawler.settings.settings import Mode, Settings

CONFIG = Path(__file__).resolve().parents[3] / "config"
_KEY_LINE = re.compile(r"^#(?=[a-z0-9_]+ = )", re.MULTILINE)


def test_the_annotated_file_is_what_the_models_say() -> None:
    """Write it anew with `make generated`."""
    assert (CONFIG / "crawler.toml").read_text(encoding="utf-8") == annotated()


def test_the_annotated_file_changes_nothing_as_it_is() -> None:
    """Every key in it is a comment."""
    assert load(CONFIG / "crawler.toml", [], {}, "crawl").settings == Settings()


def test_the_annotated_file_uncommented_gives_every_key_its_default(tmp_path: Path) -> None:
    """But for those whose default follows from others, where an example stands; files have to exist."""
    path = tmp_path / "crawler.toml"
    path.write_text(_KEY_LINE.sub("", annotated()), encoding="utf-8")
    secrets = tmp_path / "secrets.toml"
    secrets.touch(mode=0o600)
    loaded = load(path, [f"network.ca_file={certifi.where()}", f"identity.secrets={secrets}"], {}, "crawl")
    for dotted, key in keys().items():
        assert loaded.origins[dotted] != "default", dotted
        if not (key.default is None and key.derived):
            assert loaded.settings.get(dotted) == key.default, dotted


def test_the_annotated_file_is_written_by_a_command() -> None:
    """On stdout, nothing else."""
    command = [sys.executable, "-m", "crawler", "config", "show", "--default"]
    run = subprocess.run(command, cwd=CONFIG.parent, capture_output=True, text=True, check=True, timeout=60)
    assert (run.stdout, run.stderr) == (annotated(), "")


@pytest.mark.parametrize("mode", ["crawl", "run"])
def test_the_development_file_is_fit_for_a_server_on_this_machine(mode: Mode) -> None:
    """It loads in both modes, asks at once, and may dial loopback."""
    loaded = load(CONFIG / "dev.toml", ["crawl.seeds=localhost:8443"], {}, mode)
    assert loaded.warnings == []
    assert loaded.settings.politeness.delay == 0
    assert loaded.settings.network.allow_private == ("127.0.0.0/8", "::1/128")
    assert loaded.settings.tls.verify
