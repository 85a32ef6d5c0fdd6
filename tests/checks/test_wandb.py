"""`logger: wandb`: what would end a run after its folder is made is said before."""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest
from option_texts import GOOD

from kd_plugins import _compat

WANDB = "logger:wandb={project: mine, resume_id: ~}"


@pytest.fixture
def wandb(monkeypatch, tmp_path):
    """A stand-in, nobody logged in."""
    module = ModuleType("wandb")
    module.__spec__ = ModuleSpec("wandb", None)
    monkeypatch.setitem(sys.modules, "wandb", module)
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    return module


def test_a_run_without_the_package_is_refused(check, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr("kd_plugins.checks.wandb.find_spec", lambda name: None)
    (line,) = check(GOOD, WANDB)
    assert "logger:wandb:project: 'mine', expected the package wandb" in line
    check(GOOD, "logger:wandb={project: ~}", code=0)
    check(GOOD, WANDB, "name=debug_it", code=0)


def test_somebody_is_logged_in_or_the_run_is_offline(check, wandb, monkeypatch, tmp_path):
    (line,) = check(GOOD, WANDB)
    assert "logger:wandb:project: 'mine', expected somebody logged in" in line
    (line,) = check(GOOD, WANDB, "logger:use_tb_logger=false")
    assert "logger:use_tb_logger: False, expected true: wandb sends TensorBoard's log" in line
    (tmp_path / "netrc").write_text("machine api.wandb.ai\n  login user\n  password x\n")
    check(GOOD, WANDB, code=0)
    (tmp_path / "netrc").unlink()
    monkeypatch.setenv("WANDB_MODE", "offline")
    check(GOOD, WANDB, code=0)


def test_a_wandb_without_the_function_that_basicsr_calls_gets_it(wandb):
    wandb.util = ModuleType("wandb.util")
    _compat.repair_wandb()
    one, other = wandb.util.generate_id(), wandb.util.generate_id()
    assert one != other and len(one) == 8 and one.isalnum()
