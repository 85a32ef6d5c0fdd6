"""Imports the plugin before any test imports basicsr, which fails on today's torchvision without it."""

import io
import logging
import os
from pathlib import Path

import pytest
import torch
import yaml

import kd_plugins  # noqa: F401
from kd_plugins.cli import main


@pytest.fixture(autouse=True)
def fresh_log():
    """basicsr opens its logger once for a process; each test gets its own, on its own streams."""
    yield
    from basicsr.utils.logger import initialized_logger

    logger = logging.getLogger("basicsr")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    initialized_logger.clear()


@pytest.fixture(autouse=True)
def timed_small(monkeypatch):
    """Networks are timed at the size of a training crop: tests build many models."""
    from kd_plugins.metrics import latency

    monkeypatch.setattr(latency, "_SECONDS", 0.0)


@pytest.fixture
def one_thread():
    """Runs with `num_threads: 1` leave PyTorch's threads as they were."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def shared():
    """A function: the path of something in the folder that KD_SHARED_DATA names; where it is not there, the test is skipped."""

    def find(name):
        path = Path(os.environ.get("KD_SHARED_DATA", "")) / name
        if "KD_SHARED_DATA" not in os.environ or not path.exists():
            pytest.skip(f"set KD_SHARED_DATA to a folder that holds {name}")
        return path

    return find


@pytest.fixture
def said_of(tmp_path, monkeypatch, capsys):
    """Run a command that writes nothing on options, in an empty folder; what it printed, its errors, and its exit code."""

    def run(command, options, *arguments):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "x.yml").write_text(yaml.safe_dump(options))
        code = main([command, "-opt", "x.yml", *arguments])
        assert [file.name for file in tmp_path.iterdir()] == ["x.yml"]
        return (*capsys.readouterr(), code)

    return run


@pytest.fixture
def log():
    """What BasicSR's logger has said so far, as a function."""
    from basicsr.utils import get_root_logger

    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logger = get_root_logger()
    level = logger.level
    logger.setLevel(logging.INFO)  # as basicsr does only for a log with a file
    logger.addHandler(handler)
    yield stream.getvalue
    logger.removeHandler(handler)
    logger.setLevel(level)
