"""A student of several tasks: every method trains it, each sample under the teacher of its own task."""

import json
from pathlib import Path

import pytest
import torch
from basicsr.data import build_dataset
from safetensors.torch import save_file

from kd_plugins.archs import Restormer
from kd_plugins.models.student_init import _batches
from kd_plugins.run_options import parse_options

NETWORK = {"type": "Restormer", "dim": 8, "num_blocks": [1, 1, 1, 2], "num_refinement_blocks": 1, "heads": [1, 1, 2, 2]}


def other_teacher(folder, name="other", weight=0.0, **arguments):
    block = {**NETWORK, **arguments}
    torch.manual_seed(1)
    net = Restormer(**{key: value for key, value in block.items() if key != "type"})
    net.output.weight.data.add_(weight)
    save_file(net.state_dict(), folder / f"{name}.safetensors", metadata={"network": json.dumps(block)})
    return {"checkpoint": str(folder / f"{name}.safetensors")}


def of_tasks(options, other, photo_folder):
    """The options with the data of two tasks, and the fixture's teacher for the first one."""
    train = options["datasets"]["train"]
    own = {key: train.pop(key) for key in ("photos", "degradation", "gt_size")}
    own.update(type=train["type"], photos=str(photo_folder))
    tasks = {"rain": own, "noise": {**own, "degradation": {"type": "noise", "sigma": 25}}}
    options["datasets"]["train"] = {**train, "type": "TaskDataset", "tasks": tasks}
    options["teacher"] = {"tasks": {"rain": options["teacher"], "noise": other}}
    return options


@pytest.fixture
def tasks(options, photo_folder, tmp_path):
    return of_tasks(options, other_teacher(tmp_path), photo_folder)


def feed(model):
    """A batch of both tasks; their names."""
    data = build_dataset({**model.opt["datasets"]["train"]})
    torch.manual_seed(0)
    items = [data[index] for index in (1, 0, 3)]
    batch = {key: torch.stack([item[key] for item in items]) for key in ("lq", "gt")}
    model.feed_data({**batch, "task": [item["task"] for item in items]})
    return [item["task"] for item in items]


@pytest.mark.parametrize("method", ["SLKDModel", "SKDModel", "DCKDModel", "DistillationModel"])
def test_each_method_trains_it(method, options, dckd_options, tasks, build):
    tasks["model_type"] = method
    if method != "DCKDModel":
        tasks.pop("dckd")
        tasks["features"] = "auto"
    if method == "DistillationModel":
        tasks["train"]["distill"] = {"logits": {"type": "L1Loss"}, "fit": {"type": "MSELoss", "between": "encoder"}}
        tasks["teacher_clean"] = tasks["teacher"]
        tasks["train"]["distill"]["clean"] = {"type": "L1Loss", "view": "clean"}
    model = build(tasks)
    assert feed(model) == ["noise", "rain", "noise"]
    model.optimize_parameters(1)
    first = next(model.get_bare_model(model.net_g).parameters())
    assert first.grad is not None and first.grad.abs().sum() > 0
    assert all(0 < value < 10 for value in model.get_current_log().values())


def test_what_a_sample_is_compared_with_is_its_own_teachers(tasks, build):
    model = build(tasks)
    names = feed(model)
    targets = model.show()
    for view, x in (("degraded", model.lq), ("clean", model.gt)):
        for place, task in enumerate(names):
            right, wrong = model.teachers[view].members if task == "rain" else list(model.teachers[view].members)[::-1]
            torch.testing.assert_close(targets[view].image[place], right(x[place : place + 1]).image[0])
            assert not torch.allclose(targets[view].image[place], wrong(x[place : place + 1]).image[0], atol=1e-3)


def test_data_that_tells_no_task_is_one_sentence(tasks, build):
    model = build(tasks)  # fed with a batch without tasks
    with pytest.raises(ValueError, match="teacher: tasks: rain, noise, but the batch has no names of tasks"):
        model.optimize_parameters(1)


def test_many_tasks_can_have_one_teacher(tasks, build):
    tasks["teacher"] = tasks["teacher"]["tasks"]["noise"]
    model = build(tasks)
    feed(model)
    model.optimize_parameters(1)
    assert model.updater.losses["l_kl"] > 0


# ------------------------------------------------------------------------------------------------ before the first step


@pytest.mark.parametrize("key", ["teacher", "teacher_clean"])
def test_a_member_that_restores_nothing_is_named(key, tasks, build, tmp_path):
    tasks[key] = {"tasks": {**tasks["teacher"]["tasks"], "noise": other_teacher(tmp_path, "broken", weight=3e38)}}
    with pytest.raises(ValueError, match=f"{key}:tasks:noise: its image has numbers that are not finite"):
        build(tasks)


def test_members_whose_layers_differ_are_named_and_may_teach_by_their_images(tasks, build, tmp_path):
    tasks["teacher"]["tasks"]["noise"] = other_teacher(tmp_path, dim=4)
    said = r"teacher:tasks:noise: features: its layer 'encoder_level1' is \(4, 32, 32\), that of teacher:tasks:rain \(8, 32, 32\)"
    with pytest.raises(ValueError, match=said):
        build(tasks)
    tasks["train"]["distill"] = {"nc": None, "et": None}
    assert feed(build(tasks)) == ["noise", "rain", "noise"]


def test_a_start_by_importance_sees_the_data_of_the_first_teacher_alone(tasks, tmp_path, write):
    opt, _ = parse_options(str(tmp_path), True, ["-opt", write(tasks)])
    rain = {**opt["datasets"]["train"]["tasks"]["rain"], "name": "rain", "phase": "train", "scale": 1, "batch_size_per_gpu": 2}
    alone = {**opt, "datasets": {"train": rain}}
    for mine, theirs in zip(_batches(opt, 2), _batches(alone, 2), strict=True):
        assert torch.equal(mine["lq"], theirs["lq"])


# ------------------------------------------------------------------------------------------------ validation


def test_validation_shows_the_teacher_of_the_task_and_test_saves_every_image(tasks, build, write, tmp_path):
    from kd_plugins.test import test_pipeline

    blocks = tasks["datasets"]["train"]["tasks"]
    val = {"name": "both", "type": "TaskDataset", "tasks": {task: {**block} for task, block in blocks.items()}}
    for block in val["tasks"].values():
        block.pop("gt_size")
    model = build(tasks)
    data = build_dataset({**val, "phase": "val", "scale": 1})
    for index, member in ((0, 0), (3, 1)):
        item = data[index]
        batch = {"lq": item["lq"][None], "gt": item["gt"][None], "task": [item["task"]]}
        expected = model.teachers["degraded"].members[member](batch["lq"]).image
        assert torch.equal(model.restore(batch, True)["teacher"], expected)
    metrics = {"psnr": {"type": "calculate_psnr", "crop_border": 0}}
    tasks["datasets"], tasks["val"] = {"test": val}, {"save_img": True, "metrics": metrics, "suffix": "x"}
    (tmp_path / "experiments/tiny/models").mkdir(parents=True)
    model.save_network(model.net_g, "net_g", -1)
    scores = test_pipeline(str(tmp_path), ["-opt", write(tasks)]).scores["both"]
    assert scores["teacher"]["psnr"] > 0
    saved = sorted(file.name for file in Path(tmp_path, "results").rglob("*.png"))
    assert saved == [f"{name}_{task}_x.png" for name in ("astronaut", "coffee") for task in ("noise", "rain")]


def test_a_run_that_goes_on_has_the_same_bits(tasks, write, tmp_path):
    from kd_plugins.train import train_pipeline

    tasks["init"], tasks["logger"]["use_tb_logger"] = "random", False
    tasks["train"]["distill"] = {"nc": None, "et": None}
    whole = train_pipeline(str(tmp_path / "a"), ["-opt", write(tasks)])
    train_pipeline(str(tmp_path / "b"), ["-opt", write(tasks), "--force_yml", "train:total_iter=2"])
    on = train_pipeline(str(tmp_path / "b"), ["-opt", write(tasks), "--auto_resume"])
    assert all(torch.equal(p, q) for p, q in zip(whole.net_g.parameters(), on.net_g.parameters(), strict=True))
