"""The copy of a run's curves at Weights & Biases, with a stand-in of the package."""

import sys
from types import SimpleNamespace

import pytest

from kd_plugins.training import curves


@pytest.mark.parametrize(("resume_id", "expected"), [(None, "first"), ("given", "given")])
def test_a_run_that_goes_on_keeps_its_id(resume_id, expected, monkeypatch, tmp_path):
    begun = []

    def begin(opt):
        begun.append(opt["logger"]["wandb"].get("resume_id"))
        package.run.id = begun[-1] or "first"

    package = SimpleNamespace(run=SimpleNamespace(id=""), util=SimpleNamespace(generate_id=None))
    monkeypatch.setitem(sys.modules, "wandb", package)
    monkeypatch.setattr(curves, "init_tb_loggers", begin)
    for resumes, block in ((False, {"project": "p"}), (True, {"project": "p", "resume_id": resume_id})):
        opt = {"name": "a", "rank": 0, "path": {"experiments_root": str(tmp_path)}, "logger": {"wandb": block}}
        curves.open_curves(opt, resumes)
    assert begun == [None, expected]
    assert (tmp_path / "wandb_id.txt").read_text() == f"{expected}\n"
    curves.open_curves({**opt, "logger": {"wandb": {"project": "p"}}}, resumes=False)  # a new run of that name
    assert begun[-1] is None
