"""What a training step of the distillation models does, and what it leaves alone."""

import argparse

import pytest
import torch
from basicsr.archs import build_network
from safetensors.torch import save_file

from kd_plugins.training.precision import Precision


def snapshot(net):
    return {name: value.clone() for name, value in net.state_dict().items()}


def changed(net, before):
    return [name for name, value in net.state_dict().items() if not torch.equal(value, before[name])]


@pytest.mark.parametrize("form", ["safetensors", "compiled", "framework", "params_ema"])
def test_a_student_starts_from_weights_as_people_have_them(options, build, tmp_path, form):
    options["init"] = "random"
    weights = {key: torch.rand_like(value) for key, value in build(options).net_g.state_dict().items()}
    file = tmp_path / ("net.safetensors" if form == "safetensors" else "net.pth")
    if form == "safetensors":
        save_file(weights, file)
    if form == "compiled":
        torch.save({"params": {f"module._orig_mod.{key}": value for key, value in weights.items()}}, file)
    if form == "framework":
        state = {"loss.0.weight": torch.zeros(1), **{f"model.{key}": value for key, value in weights.items()}}
        torch.save({"state_dict": state, "args": argparse.Namespace(lr=1)}, file)
    if form == "params_ema":
        torch.save({"params": {key: value + 1 for key, value in weights.items()}, "params_ema": weights}, file)
        options["path"]["param_key_g"] = "params_ema"
    options["path"]["pretrain_network_g"] = str(file)
    model = build(options)
    for net in (model.net_g, model.net_g_ema):
        assert all(torch.equal(value, weights[key]) for key, value in net.state_dict().items())


def test_a_step_moves_student_and_conversion_and_nothing_of_the_teacher(options, build):
    model = build(options)
    teacher = model.teachers["degraded"]
    before = [snapshot(net) for net in (model.net_g, model.scm, teacher)]
    for _ in range(3):
        model.optimize_parameters(1)
    assert all(
        p.grad is not None and p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in model.net_g.patch_embed.parameters()
    )
    assert len(changed(model.net_g, before[0])) == len(before[0])
    assert changed(model.scm, before[1])
    assert not changed(teacher, before[2])
    owned = {id(p) for group in model.updater.optimizer.param_groups for p in group["params"]}
    assert owned == {id(p) for net in (model.net_g, model.scm) for p in net.parameters()}
    assert not any(p.requires_grad or p.grad is not None for p in teacher.parameters())


def test_the_conversion_starts_as_the_selection_of_the_layer_that_a_stage_was_copied_from(options, build, tmp_path):
    block = {"type": "Restormer", "dim": 8, "num_blocks": [2, 1, 1, 1], "num_refinement_blocks": 1, "heads": [1, 1, 1, 1]}
    torch.save({"params": build_network(dict(block)).state_dict()}, tmp_path / "teacher.pth")
    options.update(init="teacher", model_type="DistillationModel", teacher={**block, "checkpoint": str(tmp_path / "teacher.pth")})
    options["network_g"] = {**block, "dim": 4, "num_blocks": [1, 1, 1, 1]}  # its first block is the teacher's second
    pairs = [["encoder_level1.0", f"encoder_level1.{number}"] for number in (1, 0)]
    options["features"] = {"encoder": pairs}
    options["train"]["distill"] = {"hint": {"type": "FitNetFeatureLoss", "between": "encoder"}}
    copied, other = build(options).scm.project["encoder"]
    assert sorted(copied.weight.flatten().tolist()) == [0.0] * 28 + [1.0] * 4 and not copied.bias.any()
    assert other.weight.unique().numel() == 32


def test_slkd_logs_its_four_terms_and_shows_both_views_in_one_teacher_pass(options, build):
    model = build(options)
    passes = []
    model.teachers["degraded"].net.register_forward_hook(lambda module, args, out: passes.append(len(args[0])))
    model.optimize_parameters(1)
    assert passes == [4]  # two degraded, two clean
    assert list(model.get_current_log()) == ["l_pix", "l_kl", "l_nc", "l_et"]
    assert all(value > 0 for value in model.get_current_log().values())


def test_a_student_that_is_the_teacher_starts_without_distillation_loss(options, build, teacher_network):
    options["network_g"] = teacher_network
    model = build(options)
    losses = model.compute_losses()
    assert losses["l_kl"].item() == pytest.approx(0, abs=1e-6)
    assert losses["l_nc"].item() == pytest.approx(0, abs=1e-5)
    assert losses["l_et"].item() > 0  # its decoder follows a teacher that sees the clean image


def test_a_term_can_be_left_out_changed_and_added(options, build):
    options["train"]["distill"] = {
        "kl": None,
        "nc": {"type": "L1Loss", "between": "encoder", "loss_weight": 0.5},
        "logits": {"type": "CharbonnierLoss", "between": "output", "view": "degraded"},
    }
    model = build(options)
    model.optimize_parameters(1)
    assert list(model.get_current_log()) == ["l_pix", "l_nc", "l_et", "l_logits"]
    assert isinstance(model.terms["nc"].loss, torch.nn.Module) and type(model.terms["nc"].loss).__name__ == "L1Loss"


def test_without_terms_no_taps_and_no_conversion_are_made(options, build):
    options.update(model_type="DistillationModel")
    options["train"]["pixel_opt"] = {"type": "L1Loss"}
    model = build(options)
    model.optimize_parameters(1)
    assert model.scm is None and list(model.get_current_log()) == ["l_pix"]


def test_inherited_start_is_closer_to_the_teacher_than_a_random_one(options, build):
    losses = {init: build({**options, "init": init}).compute_losses()["l_nc"].item() for init in ("random", "teacher")}
    assert losses["teacher"] < losses["random"]


def test_a_student_with_weights_of_its_own_starts_from_them(options, build, log, tmp_path):
    block = options["network_g"]
    own = build_network(dict(block)).state_dict()
    save_file(own, tmp_path / "own.safetensors")
    model = build({**options, "network_g": {**block, "checkpoint": str(tmp_path / "own.safetensors")}, "init": "teacher"})
    assert "starts from network_g:checkpoint, not from the teacher" in log() and not changed(model.net_g, own)


def test_channels_may_be_those_that_matter_on_the_training_data(options, build):
    weights = {
        channels: build({**options, "init": {"from": "teacher", "channels": channels, "batches": 1}}).net_g.state_dict()
        for channels in ("magnitude", "importance", "first")
    }
    names = [name for name in weights["first"] if name.endswith("project_in.weight")]
    for one, other in (("magnitude", "importance"), ("importance", "first")):
        assert any(not torch.equal(weights[one][name], weights[other][name]) for name in names)


@pytest.mark.parametrize("data", ["photos", "unlabelled"])
def test_a_refitted_student_is_nearer_to_its_teacher_and_draws_no_random_numbers(options, build, log, data):
    options.update(model_type="DistillationModel", features=None)
    options["train"]["distill"] = {"logits": {"type": "L1Loss", "between": "output"}}
    init = {"from": "teacher", "channels": "magnitude", "batches": 1}
    plain = build({**options, "init": {**init, "refit": False}})
    drawn = torch.get_rng_state()
    options["datasets"]["train"]["unlabelled"] = data == "unlabelled"
    model = build({**options, "init": {**init, "refit": True}})
    assert torch.equal(drawn, torch.get_rng_state())
    assert "(channels: magnitude, refit)" in log()
    losses = []
    for each in (plain, model):
        each.feed_data({"lq": model.lq})
        losses.append(each.compute_losses()["l_logits"].item())
    assert losses[1] < losses[0]


def test_a_student_made_of_the_teacher_is_a_plain_network_from_then_on(options, build, log):
    student = options.pop("network_g")
    model = build({**options, "network_g": {"from_teacher": {"params": 0.46}}})
    block = model.opt["network_g"]
    assert block["type"] == student["type"] and "from_teacher" not in block and block["dim"] == 6
    assert f"network_g: {{type: {student['type']}, dim: {block['dim']}," in log() and "of its params" in log()
    mine, theirs = (sum(p.numel() for p in net.parameters()) for net in (model.net_g, model.teachers["degraded"]))
    assert abs(mine / theirs / 0.46 - 1) <= 0.1
    again = build({**options, "network_g": block, "init": "random"})
    again.net_g.load_state_dict(model.net_g.state_dict())
    model.optimize_parameters(1)
    with pytest.raises(ValueError, match="'type' beside `from_teacher`"):
        build({**options, "network_g": {"from_teacher": {"params": 0.4}, "type": "NAFNet"}})


def test_a_pretrained_student_is_not_overwritten_by_the_teacher(options, build, tmp_path):
    torch.manual_seed(5)
    net = build_network(options["network_g"])
    torch.save({"params": net.state_dict()}, tmp_path / "student.pth")
    options["path"]["pretrain_network_g"] = str(tmp_path / "student.pth")
    assert not changed(build(options).net_g, snapshot(net))


@pytest.mark.parametrize(
    ("key", "value", "tolerance"), [("amp", "bf16", 5e-2), ("amp", "fp16", 1e-2), ("channels_last", True, 1e-4)]
)
@pytest.mark.parametrize("method", ["SLKD", "SKD"])
def test_precision_and_layout_change_a_step_only_slightly(options, build, method, key, value, tolerance):
    options["model_type"] = f"{method}Model"
    reference = build(options)
    other = build({**options, key: value})
    for model in (reference, other):
        torch.manual_seed(0)  # the same windows of the features
        model.optimize_parameters(1)
    if key == "channels_last":
        assert other.net_g.patch_embed.proj.weight.is_contiguous(memory_format=torch.channels_last)
    for name, value in reference.get_current_log().items():
        assert other.get_current_log()[name] == pytest.approx(value, rel=tolerance)


@pytest.mark.parametrize("faster", [True, False])
def test_the_faster_layout_is_taken_and_said(options, build, faster, log, monkeypatch):
    from kd_plugins.models import memory_layout

    taken = {torch.channels_last: 1.0, torch.contiguous_format: 2.0 if faster else 0.5}

    def time_step(net, x, precision):
        step(net, x, precision)
        layout = torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
        assert net.patch_embed.proj.weight.is_contiguous(memory_format=layout) and len(x) == 1  # in two parts
        assert net.latent[0].attn.qkv.dilation == (dilation if layout is torch.channels_last else (1, 1))
        return taken[layout]

    step = memory_layout._time_step
    monkeypatch.setattr(memory_layout, "_time_step", time_step)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    dilation = Precision({"channels_last": True}).to_memory_format(torch.nn.Conv2d(1, 1, 1)).dilation
    options["train"]["accumulate"] = 2
    options["init"] = "random"  # another layout rounds otherwise
    start = torch.get_rng_state()
    before = build({**options, "channels_last": False})
    drawn = torch.get_rng_state()
    torch.set_rng_state(start)
    model = build({**options, "channels_last": "auto"})
    said = f"channels_last: auto: {str(faster).lower()}; a step of the student takes 1000 ms with channels last, "
    assert said in log() and torch.equal(drawn, torch.get_rng_state())
    assert model.precision.channels_last == faster and not changed(model.net_g, snapshot(before.net_g))
    assert model.net_g.latent[0].attn.qkv.dilation == (dilation if faster else (1, 1))
    assert all(p.grad is None for p in model.net_g.parameters())


def test_the_gradient_bound_is_kept(options, build):
    options["train"]["use_grad_clip"] = True
    model = build(options)
    model.optimize_parameters(1)
    assert torch.nn.utils.get_total_norm([p.grad for p in model.net_g.parameters()]) <= 0.01 * 1.001


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"teacher": None}, "no `teacher` block"),
        ({"init": "techer"}, "init: 'techer'"),
        ({"init": {"from": "teacher", "channel": "first"}}, "init:channel: 'first', init has no such key; nearest: channels"),
        ({"init": {"from": "teacher", "channels": "importance", "batches": 0}}, "init:batches: 0"),
        ({"init": {"from": "teacher", "refit": "yes"}}, "init:refit: 'yes', expected true or false"),
        ({"features": {"encoder": [["encoder_levl1", "encoder_level1"]], "decoder": "auto"}}, "encoder_level1"),
        ({"features": {"encoder": "auto"}}, "between: 'decoder'"),
        ({"amp": "fp8"}, "expected bf16"),
        ({"teacher": {"checkpoint": "restormer_deran"}}, "no bundled checkpoint"),
    ],
)
def test_wrong_options_are_named_before_training(options, build, change, said):
    with pytest.raises((ValueError, KeyError, FileNotFoundError)) as error:
        build({**options, **change})
    assert said in str(error.value)


def test_skd_logs_its_three_terms_and_shows_the_teacher_the_degraded_view_only(options, build):
    options["model_type"] = "SKDModel"
    model = build(options)
    passes = []
    model.teachers["degraded"].net.register_forward_hook(lambda module, args, out: passes.append(len(args[0])))
    model.optimize_parameters(1)
    assert passes == [2]  # its encoder, for the contrast, ends early
    assert list(model.get_current_log()) == ["l_pix", "l_gk", "l_cl"]
    assert all(value > 0 for value in model.get_current_log().values())
    assert all(p.grad.isfinite().all() and p.grad.any() for p in model.net_g.patch_embed.parameters())


def test_skd_without_others_in_the_batch_says_so(options, build):
    options["model_type"] = "SKDModel"
    model = build(options)
    model.feed_data({"lq": model.lq[:1], "gt": model.gt[:1]})
    with pytest.raises(ValueError, match="batch of 1"):
        model.optimize_parameters(1)


def test_arguments_of_a_student_that_its_class_cannot_work_with_are_its_own(options, build):
    edsr = {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_block": 1}
    with pytest.raises(ValueError, match="network_g: EDSR: unsupported operand"):
        build({**options, "network_g": {**edsr, "upscale": 1e9}, "features": None})
