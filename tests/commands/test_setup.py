"""`basicsr setup` builds BasicSR where it is missing, in the order that its build needs."""

import importlib.util
import shutil
import sys

import pytest

from kd_plugins.cli import main


@pytest.fixture
def without(monkeypatch):
    """Let modules not be found."""

    def hide(*names):
        find = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in names else find(name, *rest))

    return hide


def test_it_does_nothing_where_basicsr_is(capsys):
    assert main(["setup"]) == 0
    assert "is installed" in capsys.readouterr().out


def test_the_build_uses_what_is_there(without, capsys):
    without("basicsr")
    assert main(["setup", "--dry-run"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{sys.executable} -m pip install") and "cython" in first
    assert second.endswith("--no-build-isolation --no-deps basicsr==1.4.2")


@pytest.mark.parametrize("missing", ["torch", "torchvision"])
def test_pytorch_comes_first(without, capsys, missing):
    without("basicsr", missing)
    assert main(["setup", "--dry-run"]) == 2
    assert f"{missing} is not installed" in capsys.readouterr().err


def test_uv_serves_where_there_is_no_pip(without, monkeypatch, capsys):
    without("basicsr", "pip")
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    assert main(["setup", "--dry-run"]) == 0
    assert f"/bin/uv pip install --python {sys.executable}" in capsys.readouterr().out
