"""A teacher is frozen, sees all its views in one forward, and is built from an option block."""

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from kd_plugins.archs import Restormer
from kd_plugins.teachers import Teacher, build_registered, build_teacher, checkpoint, observe

SMALL = {"dim": 4, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1, "heads": [1, 1, 1, 1]}


class Net(nn.Module):
    """With dropout and batch statistics, so that the wrong mode shows."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Dropout(0.5))
        self.tail = nn.Conv2d(8, 3, 1)

    def forward(self, x):
        return self.tail(self.body(x))


@pytest.fixture
def teacher():
    torch.manual_seed(0)
    return Teacher(Net())


def count_forwards(teacher):
    batches = []
    teacher.net.register_forward_hook(lambda module, args, output: batches.append(len(args[0])))
    return batches


# ------------------------------------------------------------------------------------------------ frozen


def test_it_stays_in_eval_whatever_its_parent_does(teacher):
    parent = nn.ModuleList([teacher, nn.Dropout()])
    parent.train()
    assert parent[1].training
    assert not any(module.training for module in teacher.modules())
    statistics = teacher.net.body[1].running_mean.clone()
    x = torch.rand(2, 3, 8, 8)
    assert torch.equal(teacher(x).image, teacher(x).image)  # no dropout
    assert torch.equal(teacher.net.body[1].running_mean, statistics)
    assert teacher.train() is teacher


def test_it_asks_for_no_gradient_and_gives_none(teacher):
    teacher.tap(["body.0", "tail"])
    assert not any(p.requires_grad for p in teacher.parameters())
    x = torch.rand(1, 3, 8, 8, requires_grad=True)
    seen = teacher(x)
    for tensor in (seen.image, *seen.features.values()):
        assert not tensor.requires_grad and tensor.grad_fn is None
    assert not seen.image.is_inference()


def test_its_tensors_can_be_targets_of_losses_that_save_them(teacher):
    teacher.tap(["body.0"])
    seen = teacher(torch.rand(1, 3, 8, 8))
    student = nn.Conv2d(3, 3, 1)
    loss = nn.functional.mse_loss(student(torch.rand(1, 3, 8, 8)), seen.image)
    loss.backward()
    assert student.weight.grad.any() and all(p.grad is None for p in teacher.parameters())


def test_it_returns_what_the_network_returns(teacher):
    teacher.tap(["body.0", "body"])
    x = torch.rand(2, 3, 8, 8)
    seen = teacher(x)
    assert torch.equal(seen.image, teacher.net(x))
    assert torch.equal(seen.features["body.0"], teacher.net.body[0](x))  # a ReLU in place follows
    assert torch.equal(seen.features["body"], teacher.net.body(x))


def test_taps_are_replaced_and_wrong_ones_are_said(teacher):
    teacher.tap(["body.0"])
    teacher.tap(["tail"])
    assert list(teacher(torch.rand(1, 3, 4, 4)).features) == ["tail"]
    with pytest.raises(KeyError, match="Net has no layer 'tial'; nearest: tail"):
        teacher.tap(["tial"])


# ------------------------------------------------------------------------------------------------ views


def test_two_views_of_one_teacher_are_one_forward_equal_to_two(teacher):
    teacher.tap(["body.0"])
    views = {"degraded": torch.rand(2, 3, 8, 8), "clean": torch.rand(3, 3, 8, 8)}
    apart = {name: teacher(view) for name, view in views.items()}
    batches = count_forwards(teacher)
    together = observe({"degraded": teacher, "clean": teacher}, views)
    assert batches == [5]
    assert list(together) == ["degraded", "clean"]
    for name in views:
        torch.testing.assert_close(together[name].image, apart[name].image)
        torch.testing.assert_close(together[name].features["body.0"], apart[name].features["body.0"])


def test_one_view_is_not_copied(teacher):
    x, seen = torch.rand(2, 3, 8, 8), []
    teacher.net.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    observed = observe({"degraded": teacher, "clean": teacher}, {"clean": x})
    assert list(observed) == ["clean"] and len(seen) == 1 and seen[0] is x


def test_two_teachers_are_two_forwards(teacher):
    other = Teacher(Net())
    batches = count_forwards(teacher), count_forwards(other)
    x = torch.rand(2, 3, 8, 8)
    seen = observe({"degraded": teacher, "clean": other}, {"degraded": x, "clean": x})
    assert batches == ([2], [2])
    assert torch.equal(seen["degraded"].image, teacher(x).image)
    assert torch.equal(seen["clean"].image, other(x).image)
    assert not torch.allclose(seen["clean"].image, seen["degraded"].image)


def test_views_of_two_sizes_are_refused():
    teacher = Teacher(nn.Conv2d(3, 3, 1))
    views = {"degraded": torch.rand(2, 3, 8, 8), "clean": torch.rand(2, 3, 32, 32)}
    with pytest.raises(ValueError, match="above 1 there is no clean view"):
        observe(dict.fromkeys(views, teacher), views)


def test_a_part_of_an_observation(teacher):
    teacher.tap(["tail"])
    seen = teacher(torch.rand(4, 3, 8, 8))
    part = seen.part(1, 3)
    assert torch.equal(part.image, seen.image[1:3]) and torch.equal(part.features["tail"], seen.features["tail"][1:3])


# ------------------------------------------------------------------------------------------------ built from options


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return Restormer(**SMALL).eval()


def restores_like(teacher, net):
    x = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        return isinstance(teacher, Teacher) and torch.equal(teacher(x).image, net(x))


@pytest.mark.parametrize("form", ["params", "params_ema", "module.", "plain"])
def test_from_a_basicsr_checkpoint(tmp_path, net, form):
    weights, wrong = net.state_dict(), {key: value + 1 for key, value in net.state_dict().items()}
    content = {
        "params": {"params": weights},
        "params_ema": {"params": wrong, "params_ema": weights},
        "module.": {"params": {f"module.{key}": value for key, value in weights.items()}},
        "plain": weights,
    }[form]
    torch.save(content, tmp_path / "net.pth")
    opt = {"checkpoint": str(tmp_path / "net.pth"), "type": "Restormer", **SMALL}
    before = dict(opt)
    assert restores_like(build_teacher(opt), net)
    assert opt == before
    if form == "params_ema":
        assert not restores_like(build_teacher({**opt, "param_key": "params"}), net)


def test_from_safetensors_that_describe_their_network(tmp_path, net, monkeypatch):
    path = tmp_path / "small.safetensors"
    save_file(net.state_dict(), path, metadata={"network": json.dumps({"type": "Restormer", **SMALL})})
    assert restores_like(build_teacher({"checkpoint": path}), net)
    monkeypatch.setattr(checkpoint, "BUNDLED", tmp_path)
    assert restores_like(build_teacher({"checkpoint": "small"}), net)
    with pytest.raises(FileNotFoundError, match="nearest: small"):
        build_teacher({"checkpoint": "smal"})


def test_without_type_and_description_it_says_so(tmp_path):
    save_file({"layer.weight": torch.rand(3, 3)}, tmp_path / "net.safetensors")
    with pytest.raises(ValueError, match=r"no `type`, and net\.safetensors does not describe its architecture"):
        build_teacher({"checkpoint": str(tmp_path / "net.safetensors")})


def test_arguments_without_type_are_refused_even_if_described(tmp_path, net):
    path = tmp_path / "net.safetensors"
    save_file(net.state_dict(), path, metadata={"network": json.dumps({"type": "Restormer", **SMALL})})
    with pytest.raises(ValueError, match="no `type`"):
        build_teacher({"checkpoint": str(path), "dim": 8})


@pytest.mark.parametrize("opt", [{}, {"type": "Restormer"}, {"checkpoint": ""}, None, "net.pth"], ids=repr)
def test_without_a_checkpoint_it_says_what_to_write(opt):
    with pytest.raises(ValueError, match="teacher: .*expected at least `checkpoint: FILE`"):
        build_teacher(opt)


def test_weights_of_another_width_do_not_fit(tmp_path, net):
    torch.save({"params": net.state_dict()}, tmp_path / "net.pth")
    total = len(net.state_dict())
    with pytest.raises(ValueError, match=r"does not fit Restormer: \d+ of another shape \(patch_embed") as error:
        build_teacher({"checkpoint": str(tmp_path / "net.pth"), "type": "Restormer", **SMALL, "dim": 8})
    temperatures = sum(key.endswith("temperature") for key in net.state_dict())
    assert f"{total - temperatures} of another shape" in str(error.value)  # temperatures depend on the heads only


def test_an_unknown_architecture_names_the_nearest(tmp_path, net):
    torch.save({"params": net.state_dict()}, tmp_path / "net.pth")
    with pytest.raises(KeyError, match="teacher: type: no architecture 'Restorme'; nearest: Restormer"):
        build_teacher({"checkpoint": str(tmp_path / "net.pth"), "type": "Restorme"})


def test_an_argument_that_the_architecture_does_not_take_is_one_error():
    with pytest.raises(ValueError, match="student: Restormer: .*'depth'"):
        build_registered({"type": "Restormer", "depth": 3}, "student")


# ------------------------------------------------------------------------------------------------ in a model


def test_a_model_trains_the_student_and_leaves_the_teacher_alone(tmp_path, net):
    from kd_plugins.models import DistillationModel

    torch.save({"params": net.state_dict()}, tmp_path / "net.pth")
    model = DistillationModel(
        {
            "name": "teacher_alone",
            "model_type": "DistillationModel",
            "is_train": True,
            "dist": False,
            "num_gpu": 0,
            "rank": 0,
            "path": {},
            "datasets": {"train": {"gt_size": 16}},
            "network_g": {"type": "Restormer", **SMALL, "dim": 2},
            "teacher": {"checkpoint": str(tmp_path / "net.pth"), "type": "Restormer", **SMALL},
            "features": {"encoder": [["latent", "latent"]]},
            "train": {
                "optim_g": {"type": "Adam", "lr": 1e-2},
                "scheduler": {"type": "MultiStepLR", "milestones": [10]},
                "pixel_opt": {"type": "L1Loss"},
                "distill": {
                    "kl": {"type": "SpatialKLLoss", "view": "degraded"},
                    "nc": {"type": "BrisqueFeatureLoss", "between": "encoder", "view": "clean"},
                },
            },
        }
    )
    teacher = model.teachers["degraded"]
    held = {id(p) for group in model.updater.optimizer.param_groups for p in group["params"]}
    assert not held & {id(p) for p in teacher.parameters()}
    assert held == {id(p) for p in [*model.net_g.parameters(), *model.scm.parameters()]}

    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    student = [p.detach().clone() for p in model.net_g.parameters()]
    batches = count_forwards(teacher)
    model.feed_data({"lq": torch.rand(2, 3, 16, 16), "gt": torch.rand(2, 3, 16, 16)})
    model.optimize_parameters(1)
    assert batches == [4]  # both views at once
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())
    assert all(p.grad is None for p in teacher.parameters())
    assert not all(torch.equal(old, new) for old, new in zip(student, model.net_g.parameters(), strict=True))
