"""A user's own method with state, as docs/methods.md has it: saved, resumed with the same bits, left alone by a skipped step."""

import re
from pathlib import Path

import pytest
import torch
from basicsr.utils.registry import MODEL_REGISTRY

from kd_plugins.cli import main

DOCS = Path(__file__).parents[2] / "docs" / "methods.md"


@pytest.fixture
def own(options):
    """Options of a run of the class in docs/methods.md."""
    (code,) = [
        block for block in re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.S) if "build_state" in block
    ]
    exec(code, {})
    options.update(model_type="SlowTeacherModel", teacher=None, init="random", features=None)
    options["train"]["pixel_opt"] = {"type": "L1Loss"}
    yield options
    del MODEL_REGISTRY._obj_map["SlowTeacherModel"]


def test_its_state_is_saved_and_resumed(own, write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = write(own)
    assert main(["train", "-opt", file, "--force_yml", "train:total_iter=2"]) == 0
    assert main(["train", "-opt", file, "--auto_resume"]) == 0
    own["name"] = "straight"
    assert main(["train", "-opt", write(own)]) == 0
    for label in ("net_g", "net_mean"):
        mine, theirs = (
            torch.load(tmp_path / f"experiments/{name}/models/{label}_4.pth", weights_only=True)["params"]
            for name in ("tiny", "straight")
        )
        assert mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in theirs)
    assert mine["num_batches_tracked"] == 4 and mine["running_mean"].any()


def test_its_loss_is_minimised_and_logged(own, build):
    model = build(own)
    model.optimize_parameters(1)
    assert list(model.get_current_log()) == ["l_pix", "l_mean"]
