"""Terms of the `train: distill:` block."""

import re

import pytest
import torch
from made_steps import a_step, pairs, raw
from torch import nn

from kd_plugins.features import Pair, ScaleConversion
from kd_plugins.losses import SpatialKLLoss
from kd_plugins.models.terms import LOSS_REGISTRY, Term, build_terms, merge_terms

CPU = torch.device("cpu")
GROUPS = {"encoder": [Pair("a", "a")], "decoder": [Pair("b", "b")]}


class Strided(nn.Module):
    """Returns the stride it is told, and keeps what it is called with."""

    def __init__(self, loss_weight=1.0):
        super().__init__()
        self.register_buffer("weight", torch.tensor(loss_weight))
        self.seen = []

    def forward(self, student, teacher, stride=1):
        self.seen.append((student, teacher))
        return self.weight * stride


class Plain(Strided):
    def forward(self, student, teacher):
        return super().forward(student, teacher)


class Returns(nn.Module):
    """Returns what it is told."""

    def forward(self, student, teacher):
        return self.found


class WithRaw(nn.Module):
    def forward(self, student, teacher, raw):
        return raw.sum() + 0 * student.sum()


class WithInput(nn.Module):
    def forward(self, student, teacher, lq):
        return (student - lq).abs().sum()


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    for cls in (Strided, Plain, Returns):
        monkeypatch.setitem(LOSS_REGISTRY._obj_map, cls.__name__, cls)


def build(**terms):
    return build_terms(terms, GROUPS, CPU)


# ------------------------------------------------------------------------------------------------ building


def test_an_option_file_changes_replaces_leaves_out_and_adds_terms():
    defaults = {name: {"type": "L1Loss", "view": "clean"} for name in ("changed", "replaced", "left_out", "kept")}
    own = {"changed": {"loss_weight": 2}, "replaced": {"type": "MSELoss"}, "left_out": None, "added": {"type": "L1Loss"}}
    assert merge_terms(defaults, own) == {
        "changed": {"type": "L1Loss", "view": "clean", "loss_weight": 2},
        "replaced": {"type": "MSELoss"},
        "left_out": None,
        "kept": {"type": "L1Loss", "view": "clean"},
        "added": {"type": "L1Loss"},
    }


def test_a_block_becomes_a_term():
    opt = {"type": "SpatialKLLoss", "between": "output", "view": "clean", "loss_weight": 0.5, "tau": 0.1}
    before = dict(opt)
    (term,) = build(kl=opt).values()
    assert (term.name, term.between, term.view) == ("kl", ("output",), "clean")
    assert isinstance(term.loss, SpatialKLLoss) and (term.loss.loss_weight, term.loss.tau) == (0.5, 0.1)
    assert opt == before  # the options are saved beside the run
    term = build(kl={"type": "SpatialKLLoss"})["kl"]
    assert (term.between, term.view) == (("output",), "degraded")


def test_terms_keep_their_order_and_a_tilde_takes_one_out():
    block = {"type": "SpatialKLLoss"}
    assert list(build(b=block, gone=None, a=block)) == ["b", "a"]
    assert build(gone=None) == {} and build() == {}


def test_losses_go_to_the_device_and_upstreams_own_are_terms_too():
    (term,) = build_terms({"s": {"type": "Strided"}}, GROUPS, torch.device("meta")).values()
    assert term.loss.weight.device.type == "meta"
    assert build(logits={"type": "L1Loss", "loss_weight": 2.0})["logits"].loss.loss_weight == 2.0


@pytest.mark.parametrize(
    "between", ["encodr", "outputs", None, "latent", [], ["encoder", "output"], ["encoder", "latent"]], ids=str
)
def test_an_unknown_between_lists_the_known(between):
    message = f"train:distill:nc:between: {between!r}, expected "
    with pytest.raises(ValueError, match=re.escape(message) + "(output, or some of encoder, decoder|text or a list)"):
        build(nc={"type": "BrisqueFeatureLoss", "between": between})


@pytest.mark.parametrize(
    ("block", "second"),
    [({"type": "WeightedTVLoss"}, "weight"), ({"type": "GANLoss", "gan_type": "vanilla"}, "target_is_real")],
    ids=str,
)
def test_a_loss_that_compares_no_two_images_is_refused(block, second):
    with pytest.raises(ValueError, match=f"train:distill:tv: the loss takes '{second}' in place of a second image"):
        build(tv=block)


@pytest.mark.parametrize("value", [0.5, "SpatialKLLoss", {"loss_weight": 1.0}, [], {}], ids=repr)
def test_what_is_no_term_says_what_one_looks_like(value):
    with pytest.raises(ValueError, match=r"train:distill:kl.*: (.*expected \{type: a registered loss|missing)"):
        build(kl=value)


# ------------------------------------------------------------------------------------------------ calling


def test_a_term_between_outputs_sees_both_images(seen):
    step = a_step(seen)
    term = Term("t", Plain(), ("output",), "degraded")
    assert term(step) == 1
    ((student, teacher),) = term.loss.seen
    assert student is step.output and teacher is seen.image


def test_a_term_between_features_is_the_sum_over_stages(seen):
    mine = [torch.rand(2, 4, 4, 4), torch.rand(2, 4, 32, 32)]
    term = Term("t", Plain(loss_weight=3.0), ("encoder",), "degraded", {"encoder": pairs("latent", "level1")})
    assert term(a_step(seen, features={"encoder": mine, "decoder": []}, raw=raw("latent", "level1"))) == 6
    assert [student is feature for (student, _), feature in zip(term.loss.seen, mine, strict=True)] == [True, True]
    assert term.loss.seen[0][1] is seen.features["latent"] and term.loss.seen[1][1] is seen.features["level1"]


def test_a_term_between_several_groups_is_the_sum_over_their_stages(seen):
    blocks = {"nc": {"type": "Plain", "between": ["decoder", "encoder"]}}
    term = build_terms(blocks, {"encoder": pairs("level1", "level2"), "decoder": pairs("latent")}, CPU)["nc"]
    features = {"encoder": [seen.features["level1"], seen.features["level2"]], "decoder": [seen.features["latent"]]}
    assert term(a_step(seen, features=features, raw=raw("latent", "level1", "level2"))) == 3
    for (_, teacher), layer in zip(term.loss.seen, ("latent", "level1", "level2"), strict=True):
        assert teacher is seen.features[layer]


@pytest.mark.parametrize(("layer", "side", "stride"), [("level1", 32, 1), ("level2", 32, 2), ("latent", 32, 8), ("level1", 8, 1)])
def test_stride_is_told_to_losses_that_take_it_and_is_one_for_a_map_larger_than_the_image(seen, layer, side, stride):
    step = a_step(seen, "clean", torch.rand(2, 3, side, side), {"encoder": [seen.features[layer]]}, raw(layer))
    assert Term("t", Strided(), ("encoder",), "clean", {"encoder": pairs(layer)})(step) == stride
    assert Term("t", Plain(), ("encoder",), "clean", {"encoder": pairs(layer)})(step) == 1


@pytest.mark.parametrize("loss", ["BrisqueFeatureLoss", "CrossNetAttentionLoss"])
def test_of_a_stage_seen_through_a_window_that_alone_is_converted(seen, loss):
    scm = ScaleConversion({"encoder": [2]}, {"encoder": [4]})
    sizes, values, gradients = [], [], []
    for through in (True, False):
        own = {"my_level1": torch.rand(2, 2, 32, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()}
        step = a_step(seen, raw=own)
        step.convert = lambda *args: sizes.append(args[3]) or scm(*args)
        term = build_terms({"t": {"type": loss, "between": "encoder"}}, {"encoder": pairs("level1")}, CPU)["t"]
        size = term.window
        term.window = term.window if through else None  # else the loss takes its window itself, of the converted whole
        torch.manual_seed(0)
        values.append(term(step))
        gradients.append(torch.autograd.grad(values[-1], own["my_level1"])[0])
    assert sizes == [(size, size), (32, 32)]
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*gradients)


def test_whole_features_are_converted_once_for_all_terms(seen):
    calls = []
    step = a_step(seen, raw={"my_latent": seen.features["latent"]})
    step.convert = lambda group, stage, x, size: calls.append((group, stage)) or x
    for name in ("a", "b"):
        Term(name, Plain(), ("encoder",), "degraded", {"encoder": pairs("latent")})(step)
    assert calls == [("encoder", 0)]


def test_a_loss_gets_the_students_own_feature_or_the_degraded_input_where_it_asks(seen):
    own = raw("latent")
    step = a_step(seen, features={"encoder": [seen.features["latent"]]}, raw=own)
    assert Term("t", WithRaw(), ("encoder",), "degraded", {"encoder": pairs("latent")})(step) == own["my_latent"].sum()
    step = a_step(seen)
    assert Term("t", WithInput(), ("output",), "degraded")(step) == (step.output - step.lq).abs().sum()


@pytest.mark.parametrize(("loss", "between", "lacks"), [(WithRaw, "output", "raw"), (WithInput, "encoder", "lq")])
def test_what_a_term_does_not_have_is_refused_when_it_is_built(loss, between, lacks):
    with pytest.raises(ValueError, match=f"between: {between}: the loss needs '{lacks}'"):
        Term("t", loss(), (between,), "degraded", {"encoder": pairs("latent")})


def test_a_fade_is_a_factor_and_a_term_of_factor_zero_does_not_count(seen):
    fade = {"from": 0, "to": 2, "start": 0.5, "end": 1.0, "shape": "linear"}
    term = build_terms({"t": {"type": "Plain", "fade": fade}}, GROUPS, CPU, total_iter=8)["t"]
    values = []
    for iteration in range(1, 11):
        step = a_step(seen)
        step.iteration = iteration
        values.append(float(term(step)))
        assert term.weight(iteration) == values[-1]
    assert values == [0, 0, 0, 0, 0.5, 1, 1.5, 2, 2, 2]


def test_a_term_of_every_third_step_counts_three_times_there(seen):
    fade = {"from": 0, "to": 2, "start": 0.5, "end": 1.0, "shape": "linear"}
    faded, constant = (
        build_terms({"t": {"type": "Plain", "every": 3, **more}}, GROUPS, CPU, total_iter=8)["t"] for more in ({"fade": fade}, {})
    )
    assert [constant.weight(iteration) for iteration in range(1, 10)] == [0, 0, 3] * 3
    assert [faded.weight(iteration) for iteration in range(1, 10)] == [0, 0, 0, 0, 0, 3, 0, 0, 6]
    step = a_step(seen)
    step.iteration = 6
    assert faded(step) == constant(step) == 3


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({"type": "L1Los"}, "type: 'L1Los', no registered loss; nearest: L1Loss"),
        ({"type": "SpatialKLLoss", "temperature": 1.0}, "temperature: "),
        *(({"view": view}, f"view: {view!r}, expected one of degraded, clean") for view in ("dirty", None, "gt")),
        ({"trust": True}, "trust: True, expected a mapping"),
        ({"trust": {"widnow": 7}}, "trust:widnow: 7, Trust has no such key; nearest: window"),
        ({"trust": {"window": 0}}, "trust:window: 0, expected a whole number from 1 to 16"),
        ({"trust": {}, "view": "zoomed"}, "trust: view: zoomed has no clean image to measure by, expected another view"),
        ({"fade": {"from": 0}}, "fade: from 0 to 0.0 is no change"),
        ({"fade": 0.5}, "fade: 0.5, expected a mapping"),
        *(({"every": value}, f"every: {value!r}, expected a whole number of at least 1") for value in (0, -1, 1.5, True, "2")),
        ({"type": "GatedWaveletLoss", "view": "zoomed"}, "the loss needs 'gt'; here it can have lq, encodings"),
        ({"type": "GatedWaveletLoss", "between": "encoder"}, "the loss needs 'gt'; here it can have raw, stride"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused_by_the_terms_name(block, said):
    with pytest.raises(ValueError, match=f"train:distill:a: ?.*{re.escape(said)}"):
        build(a={"type": "L1Loss", **block})


def test_the_parts_of_a_loss_are_summed_and_what_is_no_number_is_refused_by_the_terms_name(seen):
    term = build(look={"type": "Returns"})["look"]
    one = torch.ones(())
    for found, value in ((one, 1), ((one, None), 1), ((one, 2 * one), 3)):  # BasicSR's PerceptualLoss: perceptual and style loss
        term.loss.found = found
        assert term(a_step(seen)) == value
    for found in (torch.ones(2), (None, None), 1.0, [one]):
        term.loss.found = found
        with pytest.raises(ValueError, match="train:distill:look: Returns returns .*, expected one number"):
            term(a_step(seen))
