"""tools/study.py: many runs from one file, one by one or as a stack, come to the same students and scores."""

import csv
import importlib
import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
import torch
import yaml
from basicsr.metrics import calculate_psnr

from kd_plugins.models import building, distillation_model

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("one_thread")
ROWS = ("no teacher", "hint first", "hint first, every 2", "SLKD", "PSD, L1")


@pytest.fixture
def tools(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    for module, name in ((distillation_model, "start_student"), (building, "compare_networks")):
        monkeypatch.setattr(module, name, getattr(module, name))  # which the tool replaces in its own process
    return {name: importlib.import_module(name) for name in ("graphed", "plot_study", "score_stack", "study")}


@pytest.fixture
def study(tmp_path):
    """A study of two tasks and four steps of a small student; what the tool is called with."""
    (tmp_path / "photos").mkdir()
    cv2.imwrite(str(tmp_path / "photos" / "cat.png"), skimage.data.chelsea()[100:148, 100:164, ::-1])
    plan = yaml.safe_load((ROOT / "options" / "study.yml").read_text())
    crops = ["num_gpu=0", "datasets:train:photos=DATA/photos", "datasets:train:gt_size=16", "datasets:train:batch_size_per_gpu=2"]
    plan.update(steps=4, milestones=[2], force_yml=[*plan["force_yml"], *crops], long={task: {} for task in ("derain", "denoise")})
    plan["rows"] = {row: plan["rows"][row] for row in ROWS}
    for task in list(plan["tasks"]):
        if task in plan["long"]:
            block = plan["tasks"][task]
            val = "datasets:val={name: cat, type: DegradedPhotoDataset, photos: DATA/photos, degradation: {type: rain}}"
            block.update(base=str(ROOT / block["base"]), force_yml=[*block["force_yml"], val])
            plan["long"][task] = dict.fromkeys(ROWS, [3])
    (tmp_path / "study.yml").write_text(yaml.safe_dump(plan))
    return [str(tmp_path / "study.yml"), "--out", str(tmp_path / "out"), "--data", str(tmp_path)]


def scores(folder):
    with (folder / "scores.csv").open(newline="") as stream:
        return {(r["task"], r["row"], int(r["iteration"])): float(r["psnr"]) for r in csv.DictReader(stream)}


def test_a_stack_comes_to_what_single_runs_come_to(tools, study, tmp_path, monkeypatch):
    common = ["--device", "cpu", "--workers", "0", "--pool", "6", "--seeds", "3"]
    tools["study"].main([*study, *common, "--tasks", "derain", "denoise"])
    single, out = scores(tmp_path / "out"), tmp_path / "out"
    assert set(single) == set(itertools.product(("derain", "denoise"), ROWS, (0, 2, 4)))

    (out / "scores.csv").unlink()
    tools["study"].main([*study, *common, "--stacked", "5", "--tasks"])
    stack = torch.load(out / "stack_4.pth", weights_only=True)
    for (task, row, seed), weights in zip(stack["runs"], stack["weights"], strict=True):
        alone = torch.load(out / f"{task}_{row.replace(' ', '_').replace(',', '')}_4_{seed}.pth", weights_only=True)["params_ema"]
        torch.testing.assert_close(weights, torch.cat([value.flatten() for value in alone.values()]), rtol=0, atol=2e-4)

    monkeypatch.setattr("sys.argv", ["score_stack.py", *study])
    tools["score_stack"].main()
    stacked = scores(out)
    assert set(stacked) == {entry for entry in single if entry[2]}
    assert all(
        abs(value - single[entry]) < (0.005 if entry[2] == 4 else 0.1) for entry, value in stacked.items()
    )  # half on the way
    assert any(abs(stacked[("derain", row, 4)] - stacked[("derain", "no teacher", 4)]) > 1e-3 for row in ROWS[1:])

    tables = tools["plot_study"].read(out / "scores.csv")
    text = tools["plot_study"].table(tables["derain"], "no teacher")
    assert f"{stacked[('derain', 'no teacher', 4)]:.2f}" in text and "hint first" in text
    base, row = ({task: [stacked[task, row, stop] for stop in (2, 4)] for task in tables} for row in ("no teacher", "hint first"))
    ahead = {task: " / ".join(f"{v - b:+.2f}" for v, b in zip(row[task], base[task], strict=True)) for task in tables}
    line = f"| hint first | {'* | '.join(ahead.values())}* |".replace("-0.00", "+0.00")
    assert line in tools["plot_study"].leads(tables, "no teacher")


def test_a_view_that_is_drawn_anew_is_the_teachers_own_in_each_step(tools, study, tmp_path):
    plan = yaml.safe_load(Path(study[0]).read_text())
    views = "{zoomed: {type: L1Loss, view: zoomed}, turned: {type: L1Loss, view: transformed}}"
    plan["rows"] = {"DUKD": ["model_type=DistillationModel", f"train:distill={views}"]}
    plan["long"] = {"derain": {"DUKD": [3]}}
    Path(study[0]).write_text(yaml.safe_dump(plan))
    common = ["--device", "cpu", "--workers", "0", "--pool", "6", "--seeds", "3"]
    seen, compute = [], distillation_model.DistillationModel.compute_losses

    def compared(model):
        losses = compute(model)
        theirs = model.teachers["degraded"](model.zoomed["zoomed"][0]).image
        seen.append((losses["l_zoomed"], (model.zoomed["zoomed"][1] - theirs).abs().mean()))
        return losses

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distillation_model.DistillationModel, "compute_losses", compared)
        tools["study"].main([*study, *common, "--tasks", "derain"])
    assert len(seen) == 4
    torch.testing.assert_close(*zip(*seen, strict=True))
    with pytest.raises(ValueError, match="view: zoomed is drawn anew in each step"):
        tools["study"].main([*study, *common, "--stacked", "5", "--tasks"])


def test_a_random_start_is_no_measure_of_what_seeds_do_to_an_inherited_one(tools):
    rows = {"no teacher": {500: {"0": 30.0, "1": 30.2}}, "logits": {500: {"0": 31.0}}}
    far = {"no teacher, random start": {500: {"0": 20.0, "1": 25.0}}}
    deviation = tools["plot_study"].seed_deviation
    assert deviation({**rows, **far}, 500) == pytest.approx(0.2 / 2**0.5)
    assert np.isnan(deviation(far, 500))


@pytest.mark.parametrize(("luma", "border"), [(False, 0), (True, 0), (True, 4)])
def test_the_scorer_is_basicsrs_metric(tools, luma, border):
    rng = np.random.RandomState(0)
    truth = [torch.from_numpy(rng.rand(3, 24, 32).astype(np.float32)) for _ in range(2)]
    data = [{"lq": (gt + 0.1 * torch.randn(gt.shape)).clamp(0, 1), "gt": gt} for gt in truth]
    block = {"crop_border": border, "test_y_channel": luma}
    found = tools["graphed"].Scorer(data, block, torch.device("cpu"))(lambda image: image)

    def as_file(tensor):
        return (tensor * 255).round().numpy().astype(np.uint8).transpose(1, 2, 0)[..., ::-1]

    expected = np.mean([calculate_psnr(as_file(item["lq"]), as_file(item["gt"]), **block) for item in data])
    assert found == pytest.approx(expected, abs=1e-4)
