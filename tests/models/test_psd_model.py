"""PSDModel, and trust and fades in steps and whole runs."""

import copy
from pathlib import Path

import pytest
import torch

from kd_plugins.cli import main
from kd_plugins.losses import GatedWaveletLoss
from kd_plugins.losses.trust import Trust
from kd_plugins.options import read_options

FOLDER = Path(__file__).parents[2] / "options"


@pytest.fixture
def psd(options):
    options.update(model_type="PSDModel", features=None)
    return options


def images_of(model):
    with torch.no_grad():
        return model.net_g(model.lq), model.teachers["degraded"](model.lq).image, model.gt


# ------------------------------------------------------------------------------------------------ the method


def test_the_sum_is_the_papers(psd, build):
    model = build(psd)
    losses = model.compute_losses()
    student, teacher, gt = images_of(model)
    assert list(losses) == ["l_pix", "l_spec", "l_img"]
    torch.testing.assert_close(losses["l_pix"], (student - gt).abs().mean())
    torch.testing.assert_close(losses["l_spec"], GatedWaveletLoss()(student, teacher, gt))
    torch.testing.assert_close(losses["l_img"], 0.25 * (student - teacher).square().mean())


@pytest.mark.parametrize("task", ["derain", "denoise", "deblur"])
def test_the_option_files_have_the_papers_weights_on_the_data_the_teacher_and_the_length_of_slkds(task):
    psd, slkd = (read_options(str(FOLDER / f"{method}_{task}.yml")) for method in ("psd", "slkd"))
    assert psd["model_type"] == "PSDModel" and not psd["train"].get("distill")
    for key in ("datasets", "network_g", "teacher", "init", "val"):
        assert psd[key] == slkd[key], key
    for key in ("total_iter", "scheduler", "optim_g", "pixel_opt"):
        assert psd["train"][key] == slkd["train"][key], key


def test_super_resolution_by_it(psd, build, tmp_path):
    from basicsr.archs.srresnet_arch import MSRResNet

    torch.save({"params": MSRResNet(3, 3, 8, 2, 2).state_dict()}, tmp_path / "teacher.pth")
    block = {"type": "MSRResNet", "num_block": 2, "upscale": 2}
    psd.update(scale=2, network_g={**block, "num_feat": 4})
    psd["teacher"] = {**block, "num_feat": 8, "checkpoint": str(tmp_path / "teacher.pth")}
    psd["datasets"]["train"]["degradation"] = {"type": "downsample", "scale": 2}
    psd["features"] = {"body": [["body.1", "body.1"]]}
    trust = {"window": 5, "tau": 0.05}
    fit = {"type": "MSELoss", "between": "body", "trust": trust}
    psd["train"]["distill"] = {"img": {"trust": trust}, "fit": fit}
    model = build(psd)
    losses = model.compute_losses()
    images = images_of(model)
    mask = Trust(**trust).mask(*images)
    torch.testing.assert_close(losses["l_img"], 0.25 * (mask * (images[0] - images[1])).square().mean())
    torch.testing.assert_close(model.terms["fit"].share, mask.mean())
    losses["l_fit"].backward()
    assert all(p.grad.any() for p in model.scm.parameters())


# ------------------------------------------------------------------------------------------------ trust in a step


@pytest.mark.parametrize("precision", [{}, {"amp": "bf16", "channels_last": True}], ids=str)
@pytest.mark.parametrize("method", ["SLKD", "SKD", "PSD"])
def test_every_term_of_a_method_may_have_it(method, precision, options, build):
    options.update(model_type=f"{method}Model", **precision)
    names = {"SLKD": ("kl", "nc", "et"), "SKD": ("gk", "cl"), "PSD": ("spec", "img")}[method]
    options["train"]["distill"] = {name: {"trust": {"window": 3}} for name in names}
    model = build(options)
    model.optimize_parameters(1)
    log = model.get_current_log()
    assert model.updater.bad_steps == 0 and set(log) == {"l_pix", *(f"{kind}{name}" for kind in ("l_", "trust/") for name in names)}
    assert all(0 < log[f"trust/{name}"] < 1 for name in names)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.net_g.parameters())


def test_a_teacher_that_is_worse_everywhere_teaches_nothing(options, build):
    trust = {"trust": {"window": 1}}
    feature = {"between": "encoder", "loss_weight": 1.0, **trust}
    options["model_type"] = "DistillationModel"
    options["train"].update(
        pixel_opt=None,
        distill={
            "logits": {"type": "L1Loss", **trust},
            "kl": {"type": "SpatialKLLoss", **trust},
            "spec": {"type": "GatedWaveletLoss"},
            "fit": {"type": "FitNetFeatureLoss", **feature},
            "gk": {"type": "CrossNetAttentionLoss", **feature},
            "at": {"type": "AttentionTransferFeatureLoss", **feature},
        },
    )
    model = build(options)
    model.gt = model.net_g(model.lq).detach()  # the student is right as it is
    losses = model.compute_losses()
    torch.stack(list(losses.values())).sum().backward()
    assert all(float(share) == 0 for share in (term.share for term in model.terms.values()))
    assert losses["l_logits"] == losses["l_fit"] == 0
    assert not any(p.grad is not None and p.grad.any() for p in model.net_g.parameters())


def test_the_transformed_view_is_measured_with_the_transform_undone(options, build):
    options["model_type"] = "DistillationModel"
    term = {"type": "L1Loss", "view": "transformed", "trust": {"window": 3}}
    options["train"].update(pixel_opt={"type": "L1Loss"}, distill={"consistency": term})
    options["train"]["transforms"] = {"invert": 0, "hflip": 1, "vflip": 0, "transpose": 0}
    model = build(options)
    losses = model.compute_losses()
    with torch.no_grad():
        teacher = model.teachers["degraded"](model.lq.flip(-1)).image.flip(-1)
    mask = Trust(3).mask(model.output, teacher, model.gt)
    assert 0 < mask.mean() < 1
    torch.testing.assert_close(losses["l_consistency"], (mask * (model.output - teacher)).abs().mean())


def test_encodings_are_those_of_the_images_as_trusted(dckd_options, build):
    terms = {name: {"trust": {"window": 3}} for name in ("dcl", "ce")}
    dckd_options["train"]["distill"] = terms
    dckd_options["dckd"]["negatives"] = {"count": 1, "noise": 0}
    dckd_options["train"]["distill"]["free"] = {"type": "CodeDistributionLoss", **model_extractor(dckd_options)}
    model = build(dckd_options)
    seen = []
    for term in (model.terms["dcl"], model.terms["ce"], model.terms["free"]):
        term.loss.register_forward_pre_hook(lambda _, args, kwargs: seen.append((args[0], kwargs["encodings"])), with_kwargs=True)
    model.optimize_parameters(1)
    (first, shared), (second, same), (free, other) = seen
    assert shared is same and shared is not other
    assert torch.equal(first, second) and torch.equal(shared.student, first) and torch.equal(other.student, free)
    teacher = shared.teacher
    mask = Trust(3).mask(free, teacher, model.gt).bool().expand_as(free)
    assert torch.equal(first[mask], free[mask]) and torch.equal(first[~mask], teacher[~mask])


def model_extractor(dckd_options):
    return {"extractor": {"type": "TokenizerExtractor", **dckd_options["dckd"]["tokenizer"]}}


@pytest.mark.parametrize("key", ["ensemble", "tasks"])
def test_an_ensemble_and_teachers_of_tasks_are_measured_by_their_own_image(key, psd, build, teacher_file):
    own = {"checkpoint": str(teacher_file)}
    psd.update(init="random", teacher={key: [own, own] if key == "ensemble" else {"rain": own}})
    psd["train"]["distill"] = {"img": {"trust": {}}}
    model = build(psd)
    model.tasks = ["rain", "rain"]
    losses = model.compute_losses()
    teacher = model.teachers["degraded"](model.lq, model.tasks).image
    mask = Trust().mask(model.output, teacher, model.gt)
    assert 0 < mask.mean() < 1
    torch.testing.assert_close(losses["l_img"], 0.25 * (mask * (model.output - teacher)).square().mean())


def test_without_clean_images_it_is_refused_with_what_to_write(psd, build):
    psd["datasets"]["train"]["unlabelled"] = True
    psd["train"]["distill"] = {"img": {"trust": {}}}
    said = "train:distill:spec: expected `spec: ~`; train:distill:img: expected no `trust`: where a teacher is right is measured by"
    with pytest.raises(ValueError, match=said):
        build(psd)
    psd["train"]["distill"] = {"spec": None}
    assert list(build(psd).compute_losses()) == ["l_img"]


# ------------------------------------------------------------------------------------------------ fades in a step


def four_steps(model):
    """What of teacher, conversion and history model ran in each of four steps, and the terms that were logged."""
    ran, found = set(), []
    parts = {"teacher": model.teachers["degraded"], "scm": model.scm, "history": model.history.net}
    for name, part in parts.items():
        if part is not None:
            part.register_forward_pre_hook(lambda *_, name=name: ran.add(name))
    for iteration in (1, 2, 3, 4):
        ran.clear()
        model.optimize_parameters(iteration)
        found.append((set(ran), set(model.get_current_log()) - {"l_pix"}))
    return found


def test_what_has_faded_costs_nothing(dckd_options, build):
    gone = {"fade": {"end": 3}}
    dckd_options["features"] = {"encoder": "auto"}
    fit = {"type": "FitNetFeatureLoss", "between": "encoder", "fade": {"end": 2}}
    dckd_options["train"]["distill"] = {"dcl": gone, "ce": {"fade": {"end": 4}}, "logits": {"fade": {"end": 4}}, "fit": fit}
    assert four_steps(build(dckd_options)) == [
        ({"teacher", "scm", "history"}, {"l_dcl", "l_ce", "l_logits", "l_fit"}),
        ({"teacher", "history"}, {"l_dcl", "l_ce", "l_logits"}),
        ({"teacher"}, {"l_ce", "l_logits"}),
        (set(), set()),
    ]


def test_a_step_that_terms_leave_out_costs_nothing(dckd_options, build):
    dckd_options["train"]["distill"] = {"dcl": {"every": 2}, "ce": {"every": 4}, "logits": {"every": 2}}
    model = build(dckd_options)
    both = {"teacher", "history"}
    assert four_steps(model) == [
        (set(), set()),
        (both, {"l_dcl", "l_logits"}),
        (set(), set()),
        (both, {"l_dcl", "l_ce", "l_logits"}),
    ]
    assert model.period == 4


def test_a_view_that_nobody_asks_for_any_more_is_not_shown(options, build):
    options["train"]["distill"] = {"et": {"fade": {"end": 2}}}
    model = build(options)
    batches = []
    model.teachers["degraded"].register_forward_pre_hook(lambda _, args: batches.append(len(args[0])))
    for iteration in (1, 2):
        model.optimize_parameters(iteration)
    assert batches == [4, 2]


def test_a_weight_that_fades_in_is_none_before(psd, build):
    psd["train"]["distill"] = {"spec": {"fade": {"from": 0, "to": 1, "start": 2}}}
    model = build(psd)
    found = []
    for iteration in (1, 2, 3, 4):
        model.iteration = iteration
        found.append(float(model.compute_losses().get("l_spec", torch.zeros(())).detach()))
    assert found[:2] == [0, 0] and found[2] == pytest.approx(found[3] / 2) and found[3] > 0


def test_a_run_that_would_come_to_a_step_without_any_loss_is_refused(psd, build):
    psd["train"].update(pixel_opt=None, distill={"spec": {"fade": {"end": 3}}, "img": {"fade": {"from": 0, "to": 1, "start": 3}}})
    said = "train: no pixel_opt, and at iteration 3 every term is faded to 0, expected one at least to train by"
    with pytest.raises(ValueError, match=said):
        build(psd)
    psd["train"]["distill"]["img"]["fade"]["start"] = 2
    model = build(psd)
    for iteration in (1, 2, 3, 4):
        model.optimize_parameters(iteration)
        assert 1 <= len(model.get_current_log()) <= 3


# ------------------------------------------------------------------------------------------------ whole runs


def test_the_log_and_tensorboard_show_shares_and_a_fade_by_shares_follows_the_length(psd, write, tmp_path, monkeypatch, capfd):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.chdir(tmp_path)
    psd["logger"]["print_freq"] = 1
    psd["train"]["distill"] = {"img": {"trust": {"window": 3}, "fade": {"start": 0, "end": 0.5}}}
    assert main(["train", "-opt", write(psd), "--force_yml", "train:total_iter=6"]) == 0
    log = capfd.readouterr().err
    assert log.count("trust/spec: ") == 6 and log.count("trust/img: ") == log.count("l_img: ") == 2  # 3 of 6 is 0
    events = EventAccumulator(str(tmp_path / "tb_logger/tiny"))
    events.Reload()
    found = {
        tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in ("trust/spec", "trust/img", "losses/l_img")
    }
    assert [step for step, _ in found["trust/spec"]] == [1, 2, 3, 4, 5, 6]
    assert [step for step, _ in found["trust/img"]] == [step for step, _ in found["losses/l_img"]] == [1, 2]
    assert all(0 < value < 1 for tag in ("trust/spec", "trust/img") for _, value in found[tag])


def test_a_teacher_is_trusted_less_as_the_student_overtakes_it(psd, build):
    model = build(psd)
    clean = copy.deepcopy(model.gt)
    shares = []
    for progress in (0.0, 0.9):
        model.gt = clean + progress * (model.net_g(model.lq).detach() - clean)  # as if the student had come nearer
        model.compute_losses()
        shares.append(float(model.terms["spec"].share))
    assert shares[1] < shares[0]
