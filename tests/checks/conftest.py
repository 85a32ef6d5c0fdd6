"""The command, and classes of a user's own."""

import re
from pathlib import Path

import pytest
from option_texts import GOOD

from kd_plugins.cli import main


@pytest.fixture
def run_check(tmp_path, monkeypatch, capsys):
    """The command's exit code, output and errors about a text and `--force_yml` entries."""
    monkeypatch.chdir(tmp_path)
    Path("images").mkdir()
    Path("images/a.png").touch()  # its name is looked at

    def run(text, *entries):
        Path("a.yml").write_text(text, encoding="utf-8")
        code = main(["check", "-opt", "a.yml", *(["--force_yml", *entries] if entries else [])])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def check(run_check):
    """The lines that the command says, whose exit code is checked, about a text and `--force_yml` entries."""

    def run(text=GOOD, *entries, code=2):
        found, out, err = run_check(text, *entries)
        assert found == code
        return [line for line in (out + err).splitlines() if not re.match(r"basicsr check: a\.yml: \d+ error", line)]

    return run


@pytest.fixture
def register(monkeypatch):
    """Register a class for one test, as a user's module does."""

    def add(registry, cls):
        monkeypatch.setitem(registry._obj_map, cls.__name__, cls)
        return cls

    return add
