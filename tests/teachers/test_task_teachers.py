"""A teacher for each task: every sample is shown to its own, and what differs between them is said."""

import pytest
import torch
from torch import nn

from kd_plugins.teachers import TaskTeachers, Teacher, build_source, build_teacher, main_block, observe

DNCNN = {"type": "DnCNN", "in_nc": 3, "out_nc": 3, "nc": 4, "nb": 8, "act_mode": "R"}


def net(width=4, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.Dropout(0.5), nn.Conv2d(width, 3, 3, padding=1))


def members(**nets):
    return {task: Teacher(each, f"teacher:tasks:{task}") for task, each in nets.items()}


@pytest.fixture
def three():
    return TaskTeachers(members(rain=net(seed=1), noise=net(seed=2), blur=net(seed=3)))


def count_batches(teacher):
    batches = []
    teacher.net.register_forward_hook(lambda module, args, output: batches.append(len(args[0])))
    return batches


# ------------------------------------------------------------------------------------------------ what it does


def test_each_samples_image_and_features_in_both_views_are_its_own_teachers(three):
    tasks = ["noise", "rain", "noise", "noise", "rain"]
    views = {"degraded": torch.rand(5, 3, 8, 8), "clean": torch.rand(5, 3, 8, 8)}
    batches = {task: count_batches(member) for task, member in zip(three.names, three.members, strict=True)}
    three.tap(layer for layer in ("0", "2"))
    seen = observe(dict.fromkeys(views, three), views, tasks)
    assert batches == {"rain": [4], "noise": [6], "blur": []}  # once each, both views together
    for task, member in zip(three.names, three.members, strict=True):
        mine = [place for place, other in enumerate(tasks) if other == task]
        if not mine:
            continue
        together = member(torch.cat([view[mine] for view in views.values()]))
        for view, expected in zip(views, (together.part(0, len(mine)), together.part(len(mine), 2 * len(mine))), strict=True):
            assert torch.equal(seen[view].image[mine], expected.image)
            assert seen[view].features.keys() == {"0", "2"}
            for layer, feature in expected.features.items():
                assert torch.equal(seen[view].features[layer][mine], feature)
        single = member(views["clean"][mine[:1]]).image
        torch.testing.assert_close(seen["clean"].image[mine[:1]], single)
    others = three.members[0](views["degraded"]).image
    assert not torch.allclose(seen["degraded"].image[0], others[0], atol=1e-3)


def test_one_task_alone_leaves_the_memory_layout_as_it_is(three):
    x = torch.rand(2, 3, 8, 8).to(memory_format=torch.channels_last)
    three.to(memory_format=torch.channels_last)
    kept = []
    three.members[1].net.register_forward_hook(lambda module, args, output: kept.append(args[0]))
    assert torch.equal(three(x, ["noise"] * 2).image, three.members[1](x).image)
    assert all(seen.is_contiguous(memory_format=torch.channels_last) for seen in kept)


def test_a_teacher_of_all_takes_no_notice_of_tasks(three):
    plain, x = Teacher(net(seed=4)), torch.rand(3, 3, 8, 8)
    seen = observe({"degraded": three, "clean": plain}, {"degraded": x, "clean": x}, ["rain", "blur", "rain"])
    assert torch.equal(seen["clean"].image, plain(x).image)
    assert torch.equal(seen["degraded"].image[1:2], three.members[2](x[1:2]).image)


def test_it_is_frozen_without_gradient_and_its_network_is_the_first_ones(three):
    three.train()
    assert not any(module.training for module in three.modules())
    assert not any(parameter.requires_grad for parameter in three.parameters())
    assert not three(torch.rand(1, 3, 8, 8, requires_grad=True), ["blur"]).image.requires_grad
    assert three.net is three.members[0].net and isinstance(three, Teacher)
    x = torch.rand(2, 3, 8, 8)
    three.tap(["0"])
    assert torch.equal(three.try_out(x).image, three.members[0](x).image)


# ------------------------------------------------------------------------------------------------ what is said


@pytest.mark.parametrize(
    ("tasks", "said"),
    [
        (
            None,
            r"teacher: tasks: rain, noise, blur, but the batch has no names of tasks \(`task`\) for 2 samples, expected",
        ),
        (["rain"], "but the batch has 1 names of tasks"),
        (["rain", "nose"], "teacher: tasks: no teacher for 'nose'; nearest: noise"),
    ],
    ids=str,
)
def test_samples_without_a_teacher_are_refused(three, tasks, said):
    with pytest.raises(ValueError, match=said):
        three(torch.rand(2, 3, 8, 8), tasks)


def test_layers_that_differ_in_shape_are_refused_with_task_layer_and_shapes():
    teacher, x = TaskTeachers(members(rain=net(4), noise=net(6))), torch.rand(2, 3, 8, 8)
    teacher.tap(["2"])
    teacher.try_out(x)
    teacher.tap(["2", "0"])
    said = r"teacher:tasks:noise: features: its layer '0' is \(6, 8, 8\), that of teacher:tasks:rain \(4, 8, 8\), expected one"
    for call in (lambda: teacher.try_out(x), lambda: teacher(x, ["noise", "rain"])):
        with pytest.raises(ValueError, match=said):
            call()


def test_images_that_differ_in_shape_are_refused():
    larger = nn.Sequential(net(), nn.Upsample(scale_factor=2))
    with pytest.raises(ValueError, match=r"teacher:tasks:b: its image is \(3, 16, 16\), that of teacher:tasks:a \(3, 8, 8\)"):
        TaskTeachers(members(a=net(), b=larger)).try_out(torch.rand(1, 3, 8, 8))


def test_the_member_that_does_not_work_is_named():
    broken, x = net(), torch.rand(1, 3, 8, 8)
    nn.init.constant_(broken[2].bias, float("nan"))
    with pytest.raises(ValueError, match="teacher:tasks:noise: its image has numbers that are not finite"):
        TaskTeachers(members(rain=net(), noise=broken)).try_out(x)
    gray = nn.Conv2d(1, 3, 1)
    with pytest.raises(ValueError, match=r"teacher:tasks:noise: Conv2d does not take an image of shape \(1, 3, 8, 8\)"):
        TaskTeachers(members(rain=net(), noise=gray)).try_out(x)
    with pytest.raises(KeyError, match="teacher:tasks:noise: features: Conv2d has no layer '0'"):
        TaskTeachers(members(rain=net(), noise=gray)).tap(["0"])
    gray.untappable = "it has no layers"
    with pytest.raises(ValueError, match="teacher:tasks:noise: features: it has no layers"):
        TaskTeachers(members(rain=net(), noise=gray)).tap(["0"])


# ------------------------------------------------------------------------------------------------ built from options


@pytest.fixture
def file(tmp_path):
    torch.save(build_source(DNCNN, "teacher").state_dict(), tmp_path / "a.pth")
    return str(tmp_path / "a.pth")


def test_each_from_its_own_source(file):
    several = {"ensemble": [{"checkpoint": file}, {**DNCNN, "checkpoint": file, "weight": 2}]}
    teacher = build_teacher({"tasks": {"a.b": {"checkpoint": file, "pad_to": 4}, 25: several, "train": {"checkpoint": file}}})
    assert teacher.names == ["a.b", "25", "train"]
    assert [type(member.net).__name__ for member in teacher.members] == ["DnCNN", "Ensemble", "DnCNN"]
    assert teacher(torch.rand(2, 3, 9, 9), ["25", "a.b"]).image.shape == (2, 3, 9, 9)


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        ({"tasks": {}}, ValueError, r"teacher: .*expected nothing but `tasks: \{TASK: \{checkpoint: FILE\}, ...\}`"),
        ({"tasks": ["a"]}, ValueError, "expected nothing but `tasks"),
        ({"tasks": {"a": {"checkpoint": "a"}}, "pad_to": 8}, ValueError, "expected nothing but `tasks"),
        ({"tasks": {"a": None}}, ValueError, "teacher:tasks:a: None, expected at least `checkpoint: FILE`"),
        ({"tasks": {"a": {"checkpoint": "none.pth"}}}, FileNotFoundError, "'none.pth' is no file"),
        ({"tasks": {"a": {"type": "Restomer", "checkpoint": "restormer_derain"}}}, KeyError, "teacher:tasks:a: type: .*Restormer"),
        ({"tasks": {"a": {"tasks": {}, "checkpoint": "a"}}}, ValueError, "teacher:tasks:a: tasks: {} can stand at the top of a"),
        ({"ensemble": [{"tasks": {}, "checkpoint": "a"}]}, ValueError, "teacher:ensemble:0: tasks: {} can stand at the top of a"),
    ],
    ids=str,
)
def test_another_form_or_a_wrong_member_is_refused(wrong, error, said):
    with pytest.raises(error, match=said):
        build_teacher(wrong)


def test_the_block_that_stands_for_all_is_the_first_ones():
    assert main_block({"tasks": {"a": {"checkpoint": "x"}, "b": {"checkpoint": "y"}}}) == {"checkpoint": "x"}
    for plain in ({"checkpoint": "x"}, {"tasks": {}}, {"tasks": 3}, {"tasks": {"a": None}}):
        assert main_block(plain) == plain
