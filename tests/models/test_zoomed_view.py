"""DUKD's zoomed views: student and teacher both see a crop of the clean image, or the input made smaller."""

import pytest
import torch
from basicsr.archs.srresnet_arch import MSRResNet
from basicsr.utils.matlab_functions import imresize
from basicsr.utils.registry import ARCH_REGISTRY

from kd_plugins.options import OptionError
from kd_plugins.teachers import zoom_in, zoom_out

ZOOMED = {"type": "L1Loss", "between": "output", "view": "zoomed", "loss_weight": 1.0}
OUT = {**ZOOMED, "view": "zoomed_out"}
each_zoom = pytest.mark.parametrize("view", ["zoomed", "zoomed_out"])


@pytest.fixture
def enlarging(options, tmp_path):
    """x2: of a student and a teacher of two residual blocks."""
    torch.manual_seed(1)
    torch.save({"params": MSRResNet(3, 3, 8, 2, 2).state_dict()}, tmp_path / "teacher.pth")
    block = {"type": "MSRResNet", "num_block": 2, "upscale": 2}
    options.update(
        model_type="DistillationModel",
        scale=2,
        features=None,
        network_g={**block, "num_feat": 4},
        teacher={**block, "num_feat": 8, "checkpoint": str(tmp_path / "teacher.pth")},
    )
    options["datasets"]["train"]["degradation"] = {"type": "downsample", "scale": 2}
    options["train"].update(pixel_opt={"type": "L1Loss"}, distill={"zoomed": ZOOMED})
    return options


def test_a_crop_is_one_of_the_tiles_and_each_is_drawn():
    torch.manual_seed(0)
    gt, lq = torch.rand(2, 3, 12, 18), torch.rand(2, 3, 4, 6)
    tiles = [gt[..., 4 * i : 4 * i + 4, 6 * j : 6 * j + 6] for i in range(3) for j in range(3)]
    drawn = [zoom_in(gt, lq) for _ in range(200)]
    found = [next(n for n, tile in enumerate(tiles) if torch.equal(tile, crop)) for crop in drawn]
    assert set(found) == set(range(9))


def test_without_enlargement_it_is_the_clean_image():
    gt = torch.rand(2, 3, 8, 8)
    assert torch.equal(zoom_in(gt, torch.rand(2, 3, 8, 8)), gt)


def test_zoomed_out_it_is_the_input_by_matlabs_resize_but_for_the_borders():
    torch.manual_seed(0)
    lq = torch.rand(2, 3, 24, 48)
    small = zoom_out(lq, torch.rand(2, 3, 96, 192))
    assert small.shape == (2, 3, 6, 12)
    theirs = torch.stack([imresize(image, 1 / 4) for image in lq])
    torch.testing.assert_close(small[..., 2:-2, 2:-2], theirs[..., 2:-2, 2:-2], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("side", "said"), [(8, "scale is 1, expected one that"), (24, "8x8, expected sides that 3, the scale")])
def test_what_cannot_be_zoomed_out_is_refused(side, said):
    with pytest.raises(ValueError, match=f"view: zoomed_out: .*{said}"):
        zoom_out(torch.rand(1, 3, 8, 8), torch.rand(1, 3, side, side))


@each_zoom
def test_both_networks_see_what_is_zoomed(enlarging, build, view):
    enlarging["train"]["distill"] = {"zoomed": {**ZOOMED, "view": view}, "logits": {"type": "L1Loss"}}
    model = build(enlarging)
    losses = model.compute_losses()
    seen, image = model.zoomed[view]
    assert seen.shape == (model.lq.shape if view == "zoomed" else zoom_out(model.lq, model.output).shape)
    torch.testing.assert_close(losses["l_zoomed"], (image - model.teachers["degraded"](seen).image).abs().mean())
    torch.testing.assert_close(image, model.net_g(seen))
    torch.testing.assert_close(model.output, model.net_g(model.lq))
    torch.testing.assert_close(losses["l_logits"], (model.output - model.teachers["degraded"](model.lq).image).abs().mean())
    torch.testing.assert_close(losses["l_pix"], (model.output - model.gt).abs().mean())


@each_zoom
def test_its_gradient_reaches_the_students_first_layer(enlarging, build, view):
    enlarging["train"]["distill"] = {"zoomed": {**ZOOMED, "view": view}}
    model = build(enlarging)
    model.compute_losses()["l_zoomed"].backward()
    gradient = next(model.net_g.parameters()).grad
    assert gradient.isfinite().all() and gradient.any()


def test_features_of_other_terms_are_those_of_the_degraded_images(options, build):
    options["model_type"] = "DistillationModel"
    fit = {"type": "MSELoss", "between": ["encoder", "decoder"], "view": "degraded", "loss_weight": 1.0}
    options["train"].update(pixel_opt={"type": "L1Loss"}, distill={"fit": fit})
    alone = build(options).compute_losses()
    options["train"]["distill"]["zoomed"] = ZOOMED
    both = build(options).compute_losses()
    for name, value in alone.items():
        torch.testing.assert_close(both[name], value)
    assert both["l_zoomed"] > 0


def test_what_is_zoomed_out_is_trusted_by_the_input(enlarging, build):
    enlarging["train"]["distill"] = {"zoomed": {**OUT, "trust": {"window": 1}}}
    model = build(enlarging)
    value = model.compute_losses()["l_zoomed"]
    seen, image = model.zoomed["zoomed_out"]
    theirs = model.teachers["degraded"](seen).image
    right = (theirs - model.lq).abs().mean(1, keepdim=True) < (image - model.lq).abs().mean(1, keepdim=True)
    torch.testing.assert_close(value, ((image - theirs).abs() * right).mean())
    torch.testing.assert_close(model.terms["zoomed"].share, right.float().mean())


def test_a_loss_that_encodes_images_encodes_those_of_the_crop(enlarging, build, tokenizer_file):
    extractor = {"type": "TokenizerExtractor", "weights": str(tokenizer_file)}
    enlarging["train"]["distill"] = {"codes": {**ZOOMED, "type": "CodeDistributionLoss", "extractor": extractor}}
    model = build(enlarging)
    value = model.compute_losses()["l_codes"]
    model.lq, model.output = model.zoomed["zoomed"]
    model.terms["codes"].view = "degraded"
    torch.testing.assert_close(value, model.terms["codes"](model._observe()))


@pytest.mark.parametrize(
    ("term", "said"),
    [
        ({"type": "MSELoss", "between": "encoder"}, "view: zoomed: between: encoder, expected output"),
        ({"type": "ContrastRatioLoss"}, "the loss needs 'negatives'; here it can have lq, encodings"),
    ],
)
def test_what_it_does_not_have_is_refused(dckd_options, build, term, said):
    dckd_options["features"] = {"encoder": "auto"}
    dckd_options["train"]["distill"] = {"x": {**ZOOMED, **term}}
    with pytest.raises(ValueError, match=f"train:distill:x: .*{said}"):
        build(dckd_options)


def test_a_network_that_does_not_take_it_is_refused_before_the_run(enlarging, build, tmp_path):
    class Pooling(MSRResNet):
        def forward(self, x):
            torch.nn.functional.max_pool2d(x, 7)
            return super().forward(x)

    ARCH_REGISTRY._obj_map["Pooling"] = Pooling
    try:
        enlarging.update(network_g={**enlarging["network_g"], "type": "Pooling"}, init="random")
        enlarging["datasets"]["train"]["gt_size"] = 24
        enlarging["train"]["distill"] = {"zoomed": OUT}
        said = r"view: zoomed_out: network_g: Pooling does not take .*\(1, 3, 6, 6\).*`gt_size` makes it larger"
        with pytest.raises(ValueError, match=said):
            build(enlarging)
    finally:
        del ARCH_REGISTRY._obj_map["Pooling"]


def test_zoomed_out_needs_none(enlarging, build):
    enlarging["train"].update(pixel_opt=None, distill={"zoomed": {**OUT, "trust": {}}})
    enlarging["datasets"]["train"]["unlabelled"] = True
    model = build(enlarging)
    model.feed_data({"lq": model.lq})
    assert model.compute_losses()["l_zoomed"] > 0


def test_a_crop_needs_clean_images(enlarging, build):
    model = build(enlarging)
    model.feed_data({"lq": model.lq})
    with pytest.raises(OptionError, match=r"the batch \(no `gt`\) has no clean images, .*train:distill:zoomed"):
        model.compute_losses()
    enlarging["train"]["pixel_opt"] = None
    enlarging["datasets"]["train"]["unlabelled"] = True
    with pytest.raises(OptionError, match="has no clean images, which these compare with: train:distill:zoomed"):
        build(enlarging)
