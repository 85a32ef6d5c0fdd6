"""The option files of each method and task: a step under the bundled teacher, and alike but for the task."""

from pathlib import Path

import pytest
import torch

from kd_plugins.options import read_options

FOLDER = Path(__file__).parents[2] / "options"
METHODS, TASKS = ("slkd", "skd", "dckd"), ("derain", "denoise", "deblur")


@pytest.mark.parametrize("name", [*(f"{method}_{task}" for method in METHODS for task in TASKS), "dckd_sr_x4"])
def test_a_step_under_the_bundled_teacher(name, build):
    options = read_options(str(FOLDER / f"{name}.yml"))
    options["num_gpu"] = 0
    options["datasets"].pop("val")
    model = build(options)
    first, before = next((name, value.detach().clone()) for name, value in model.net_g.named_parameters())
    model.optimize_parameters(1)
    log = model.get_current_log()
    assert set(log) == {"l_pix", *(f"l_{term}" for term in model.default_terms)}
    assert all(0 < value < 10 for value in log.values())
    after = dict(model.net_g.named_parameters())
    assert all(torch.isfinite(value).all() for value in after.values())
    assert not torch.equal(after[first], before)


@pytest.mark.parametrize(
    "name", [*(f"{method}_derain" for method in (*METHODS, "psd", "distill")), "slkd_tasks", "unlabelled_denoise"]
)
def test_the_students_expansion_can_be_read_back_from_weights(name):
    """Spandrel takes it for the width of the first level's feed-forward network over that level's width."""
    block = read_options(str(FOLDER / f"{name}.yml"))["network_g"]
    widths = [block["dim"] * 2**level for level in range(4)]
    hidden = [int(width * block["ffn_expansion_factor"]) for width in widths]
    assert [int(width * (hidden[0] / widths[0])) for width in widths] == hidden


@pytest.mark.parametrize("task", TASKS[1:])
@pytest.mark.parametrize("method", (*METHODS, "teacher"))
def test_tasks_differ_by_their_degradation_teacher_weights_and_metrics_alone(method, task):
    derain, other = (read_options(str(FOLDER / f"{method}_{name}.yml")) for name in ("derain", task))
    for options, name in ((derain, "derain"), (other, task)):
        assert options.pop("name") == f"{method}_{name}"
        assert options.pop("teacher", {"checkpoint": f"restormer_{name}"}) == {"checkpoint": f"restormer_{name}"}
        degradations = [dataset.pop("degradation") for dataset in options["datasets"].values()]
        assert degradations[0] == degradations[1]
        for metric in options["val"]["metrics"].values():
            assert metric.pop("test_y_channel") == (name == "derain")
        options["train"].pop("distill", None)  # weights of its own
    if method == "teacher":
        derain["datasets"]["train"].pop("gt_size"), other["datasets"]["train"].pop("gt_size")
    assert other == derain
