"""DCKD: its terms, its history model, the passes of a step, and that a resumed run is the same run."""

import pytest
import torch
from basicsr.archs import build_network
from torch import nn

from kd_plugins.cli import main


def copy(net):
    return {name: value.clone() for name, value in net.state_dict().items()}


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def count_batches(module):
    batches = []
    module.register_forward_hook(lambda module, args, out: batches.append((len(args[0]), out.requires_grad)))
    return batches


# ------------------------------------------------------------------------------------------------ a step


def test_a_step_logs_the_four_losses_and_reaches_the_students_first_layer(dckd_options, build):
    model = build(dckd_options)
    before = copy(model.net_g)
    model.optimize_parameters(1)
    log = model.get_current_log()
    assert list(log) == ["l_pix", "l_logits", "l_dcl", "l_ce"] and all(value > 0 for value in log.values())
    assert not same(before, copy(model.net_g))
    for name in ("dcl", "ce"):
        model.net_g.zero_grad()
        model.compute_losses()[f"l_{name}"].backward()
        gradient = model.net_g.patch_embed.proj.weight.grad
        assert gradient.isfinite().all() and (gradient.flatten(1).abs().amax(1) > 0).all()


def test_default_weights_are_the_papers(dckd_options, build):
    terms = build(dckd_options).terms
    assert {name: term.loss.loss_weight for name, term in terms.items()} == {"logits": 1.0, "dcl": 0.1, "ce": 0.001}


def test_a_step_passes_each_network_once(dckd_options, build):
    model = build(dckd_options)
    extractor = model.terms["dcl"].loss.extractor
    assert extractor is model.terms["ce"].loss.extractor
    student, teacher, history, encoder = (
        count_batches(net)
        for net in (model.net_g, model.teachers["degraded"].net, model.history.net, extractor.net.encoder.conv_in)
    )
    model.optimize_parameters(1)
    assert student == [(2, True)] and teacher == [(2, False)]
    assert history == [(5 * 2, False)]
    assert encoder == [(2 + 5 * 2, False), (2, True)]


def test_what_nobody_reads_is_not_made(dckd_options, build):
    dckd_options["train"]["distill"] = {"dcl": None}
    model = build(dckd_options)
    assert model.history is None and "net_history" not in model.networks()
    batches = count_batches(model.terms["ce"].loss.extractor.net.encoder.conv_in)
    model.optimize_parameters(1)
    assert batches == [(2, False), (2, True)]
    assert list(model.get_current_log()) == ["l_pix", "l_logits", "l_ce"]


def test_nothing_but_the_student_is_trained(dckd_options, build):
    model = build(dckd_options)
    owned = {id(p) for group in model.updater.optimizer.param_groups for p in group["params"]}
    assert owned == {id(p) for p in model.net_g.parameters()}


def test_the_students_layout_and_the_teachers_may_be_of_two_architectures(dckd_options, build):
    dckd_options.update(init="random", network_g={"type": "NAFNet", "width": 4, "enc_blk_nums": [1], "dec_blk_nums": [1]})
    model = build(dckd_options)
    model.optimize_parameters(1)
    assert all(p.grad is not None for p in model.net_g.intro.parameters())


# ------------------------------------------------------------------------------------------------ options


def test_one_key_says_the_variant_and_the_tokenizer_of_both_losses(dckd_options, build, tokenizer_file):
    dckd_options["dckd"]["variant"] = "official"
    dckd_options["train"]["distill"] = {"ce": {"type": "CodeDistributionLoss", "loss_weight": 0.5, "variant": "paper"}}
    terms = build(dckd_options).terms
    assert (terms["dcl"].loss.variant, terms["dcl"].loss.extractor.range) == ("official", "unit")
    assert (terms["ce"].loss.variant, terms["ce"].loss.extractor.range) == ("paper", "symmetric")
    assert terms["ce"].loss.loss_weight == 0.5


def test_negatives_and_history_take_their_options(dckd_options, build):
    dckd_options["dckd"].update(negatives={"count": 2, "own": False, "sigma": 50}, history={"decay": 0.5, "every": [7], "block": 3})
    model = build(dckd_options)
    assert model.make_negatives().shape == (2, 2, 3, 32, 32)
    assert (model.history.decay, model.history.schedule.every, model.history.schedule.block) == (0.5, (7,), 3)


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({"tokeniser": {}}, "dckd:tokeniser: .*, dckd has no such key; nearest: tokenizer"),
        ("official", "dckd: 'official', expected a mapping"),
        ({"variant": "oficial"}, "nearest: official"),
        ({"negatives": {"cuont": 3}}, "dckd:negatives:cuont: 3, .*nearest: count"),
        ({"negatives": {"gray": 2}}, "dckd:negatives:gray: 2"),
        ({"history": {"decay": 2}}, "dckd:history:decay: 2"),
        ({"history": {"step": 2}}, "dckd:history:step: 2"),
        ({"tokenizer": {"weights": "nowhere.ckpt"}}, "nowhere.ckpt"),
        ({"tokenizer": "nowhere.ckpt"}, "dckd:tokenizer: 'nowhere.ckpt', expected"),
    ],
)
def test_wrong_options_are_named_before_training(dckd_options, build, block, said):
    dckd_options["dckd"] = {**dckd_options["dckd"], **block} if isinstance(block, dict) else block
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        build(dckd_options)


def test_a_model_that_makes_no_negatives_refuses_a_term_that_needs_them(options, build, tokenizer_file):
    options["train"]["distill"] = {"dcl": {"type": "ContrastRatioLoss", "extractor": {"weights": str(tokenizer_file)}}}
    with pytest.raises(
        ValueError, match="train:distill:dcl: it needs negatives, which SLKDModel does not make, expected .*DCKDModel"
    ):
        build(options)


def test_an_update_that_never_comes_is_said(dckd_options, build, log):
    dckd_options["dckd"]["history"] = {}
    build(dckd_options)
    assert "dckd:history:every: 1000 is more than train:total_iter, 4" in log()


# ------------------------------------------------------------------------------------------------ the history model


@pytest.mark.parametrize("ema_decay", [0.9, 0])
def test_the_history_model_follows_the_ema_student_or_without_one_the_student(dckd_options, build, ema_decay):
    dckd_options["train"]["ema_decay"] = ema_decay
    model = build(dckd_options)
    start = copy(model.net_g)
    assert same(copy(model.history.net), start)
    model.optimize_parameters(1)
    assert same(copy(model.history.net), start)
    model.optimize_parameters(2)
    followed = copy(model.net_g_ema if ema_decay else model.net_g)
    for name, value in model.history.net.state_dict().items():
        torch.testing.assert_close(value, 0.1 * start[name] + 0.9 * followed[name], rtol=1e-5, atol=1e-7)


def test_negatives_are_what_the_history_model_makes_of_the_input_and_of_noisy_copies(dckd_options, build):
    model = build(dckd_options)
    with torch.no_grad():
        nn.init.constant_(model.net_g.output.weight, 0.0)  # the student is another one by now
        negatives = model.make_negatives()
        assert not negatives.requires_grad and negatives.shape == (5, 2, 3, 32, 32)
        torch.testing.assert_close(negatives[0], model.history.net(model.lq))
    noise = (negatives[1:] - negatives[0]).flatten(2).std(-1)
    assert (noise > 1e-3).all()


def run(model, batches, first):
    """Train on given batches; what it logs of each step. BasicSR restores no random state: each step is seeded."""
    logs = []
    for step, batch in enumerate(batches, first):
        torch.manual_seed(step)
        model.update_learning_rate(step)
        model.feed_data(batch)
        model.optimize_parameters(step)
        logs.append({name: value.item() for name, value in model.updater.losses.items()})
    return logs


@pytest.fixture
def batches():
    generator = torch.Generator().manual_seed(5)
    return [{key: torch.rand(2, 3, 32, 32, generator=generator) for key in ("lq", "gt")} for _ in range(8)]


def test_a_resumed_run_is_the_same_run(dckd_options, build, batches, tmp_path):
    dckd_options["dckd"]["history"] = {"every": 3}  # an update before the stop, and two after it
    for folder in ("models", "training_states"):
        (tmp_path / "experiments/tiny" / folder).mkdir(parents=True)
    whole = build(dckd_options)
    run(whole, batches[:4], 1)
    whole.save(0, 4)
    kept = copy(whole.history.net)
    expected = run(whole, batches[4:], 5)

    dckd_options["path"].update(
        pretrain_network_g=str(tmp_path / "experiments/tiny/models/net_g_4.pth"), param_key_g="params", strict_load_g=True
    )
    resumed = build(dckd_options)
    assert not same(copy(resumed.history.net), kept)
    resumed.resume_training(torch.load(tmp_path / "experiments/tiny/training_states/4.state", weights_only=False))
    assert same(copy(resumed.history.net), kept)
    assert run(resumed, batches[4:], 5) == expected
    for net in ("net_g", "net_g_ema"):
        assert same(copy(getattr(resumed, net)), copy(getattr(whole, net)))
    assert same(copy(resumed.history.net), copy(whole.history.net))


def test_the_command_trains_and_resumes(dckd_options, write, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    file = write(dckd_options)
    assert main(["train", "-opt", file]) == 0
    assert "l_dcl:" in capfd.readouterr().err
    assert main(["train", "-opt", file, "--auto_resume", "--force_yml", "train:total_iter=6"]) == 0
    assert (tmp_path / "experiments/tiny/models/net_history_6.pth").is_file()


# ------------------------------------------------------------------------------------------------ super-resolution


def test_super_resolution(dckd_options, build, tmp_path):
    network = {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_block": 1, "upscale": 2}
    torch.manual_seed(0)
    teacher = build_network({**network, "num_feat": 8})
    torch.save({"params": teacher.state_dict()}, tmp_path / "teacher.pth")
    dckd_options.update(scale=2, init="random", network_g={**network, "num_feat": 4})
    dckd_options["teacher"] = {"checkpoint": str(tmp_path / "teacher.pth"), **network, "num_feat": 8}
    dckd_options["datasets"]["train"]["degradation"] = {"type": "downsample", "scale": 2}
    dckd_options["train"]["distill"] = {"consistency": {"type": "L1Loss", "view": "transformed"}}
    model = build(dckd_options)
    model.optimize_parameters(1)
    assert model.make_negatives().shape == (5, 2, 3, 32, 32)
    assert list(model.get_current_log()) == ["l_pix", "l_logits", "l_dcl", "l_ce", "l_consistency"]
    assert model.net_g.conv_first.weight.grad.any()


# ------------------------------------------------------------------------------------------------ label consistency


CONSISTENCY = {"type": "L1Loss", "between": "output", "view": "transformed", "loss_weight": 1.0}


def test_consistency_is_one_line_in_the_options_of_any_method(options, build):
    options["train"]["distill"] = {"consistency": CONSISTENCY}
    model = build(options)
    teacher = count_batches(model.teachers["degraded"].net)
    model.optimize_parameters(1)
    assert teacher == [(3 * 2, False)]  # degraded, clean and transformed in one pass
    assert list(model.get_current_log()) == ["l_pix", "l_kl", "l_nc", "l_et", "l_consistency"]
    assert model.get_current_log()["l_consistency"] > 0


def test_the_transformed_view_is_undone_on_the_teachers_image(options, build):
    options.update(model_type="DistillationModel", features=None)
    options["train"].update(pixel_opt={"type": "L1Loss"}, distill={"consistency": CONSISTENCY})
    options["train"]["transforms"] = {"invert": 1.0, "hflip": 0.0, "vflip": 1.0, "transpose": 1.0}
    model = build(options)
    model.output = model.net_g(model.lq)
    seen = model.show()["transformed"].image
    expected = model.teachers["degraded"]((1 - model.lq).flip(-2).transpose(-1, -2)).image
    torch.testing.assert_close(seen, 1 - expected.transpose(-1, -2).flip(-2))
    value = model.terms["consistency"](model._observe())
    torch.testing.assert_close(value, (model.output - seen).abs().mean())


def test_features_cannot_be_transformed_back(options, build):
    options["train"]["distill"] = {"nc": {"type": "BrisqueFeatureLoss", "between": "encoder", "view": "transformed"}}
    with pytest.raises(ValueError, match="train:distill:nc: .*view: transformed: between: encoder, expected output"):
        build(options)


def test_wrong_transforms_are_named(options, build):
    options["train"]["transforms"] = {"rotate": 0.5}
    with pytest.raises(ValueError, match="train:transforms:rotate: 0.5, .* nearest"):
        build(options)
