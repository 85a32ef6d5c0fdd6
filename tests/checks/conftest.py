"""The command, and classes of a user's own."""

import re
from pathlib import Path

import pytest

from kd_plugins.cli import main

GOOD = (Path(__file__).parents[2] / "options" / "slkd_derain.yml").read_text(encoding="utf-8")


@pytest.fixture
def check(tmp_path, monkeypatch, capsys):
    """The lines that the command says, and its exit code, about a text and `--force_yml` entries."""
    monkeypatch.chdir(tmp_path)
    Path("images").mkdir()
    Path("images/a.png").touch()  # its name is looked at

    def run(text=GOOD, *entries, code=2):
        Path("a.yml").write_text(text, encoding="utf-8")
        assert main(["check", "-opt", "a.yml", *(["--force_yml", *entries] if entries else [])]) == code
        said = capsys.readouterr()
        lines = (said.out + said.err).splitlines()
        return [line for line in lines if not re.match(r"basicsr check: a\.yml: \d+ error", line)]

    return run


@pytest.fixture
def register(monkeypatch):
    """Register a class for one test, as a user's module does."""

    def add(registry, cls):
        monkeypatch.setitem(registry._obj_map, cls.__name__, cls)
        return cls

    return add
