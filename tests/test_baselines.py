"""Option files under options/baselines build, and those of one family differ by their terms alone."""

from pathlib import Path

import pytest
import torch
from small_vgg import save_vgg

from kd_plugins.features import Pair
from kd_plugins.models.step import Step
from kd_plugins.models.terms import VIEWS, build_terms
from kd_plugins.options import read_options
from kd_plugins.teachers import Observation

FOLDER = Path(__file__).parents[1] / "options" / "baselines"
FILES = sorted(FOLDER.glob("*.yml")) if FOLDER.is_dir() else []
DERAIN = "no_distillation logits_l1 logits_l2 logits_charbonnier fitnet at fakd channel_kl csd consistency"
OURS = {  # by the file that they are like
    "slkd_derain": [FOLDER / f"{name}_derain.yml" for name in DERAIN.split()],
    "dckd_sr_x4": [FOLDER / f"{name}_sr_x4.yml" for name in ("no_distillation", "logits_l1", "dukd", "augkd")],
}
ALIKE = [(file, reference) for reference, files in OURS.items() for file in files]
every_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
each_of_ours = pytest.mark.parametrize("file", [file for file, _ in ALIKE], ids=lambda file: file.stem)


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory):
    return save_vgg(tmp_path_factory.mktemp("vgg") / "vgg19.pth")


def terms_of(file, vgg_file):
    blocks = read_options(str(file))["train"].get("distill") or {}
    for block in blocks.values():
        if (block.get("extractor") or {}).get("type") == "VGGExtractor":
            block["extractor"]["weights"] = vgg_file
    groups = {group: [Pair(group, group)] for group in ("encoder", "decoder")}
    return build_terms(blocks, groups, torch.device("cpu"))


@every_file
def test_its_terms_build(file, vgg_file):
    blocks = read_options(str(file))["train"].get("distill") or {}
    assert list(terms_of(file, vgg_file)) == list(blocks)


@each_of_ours
def test_its_terms_reach_the_student(file, vgg_file):
    """A student's image and features, half as wide as the teacher's, each a leaf: what a term compares gets a gradient."""
    terms = terms_of(file, vgg_file)
    assert bool(terms) == (not file.stem.startswith("no_distillation"))
    torch.manual_seed(0)
    output = torch.rand(2, 3, 16, 16, requires_grad=True)
    raw = {group: torch.randn(2, 4, 16, 16, requires_grad=True) for group in ("encoder", "decoder")}
    features = {group: feature.repeat(1, 2, 1, 1) for group, feature in raw.items()}
    seen = Observation(torch.rand(2, 3, 16, 16), {group: torch.randn(2, 8, 16, 16) for group in raw})
    zoomed = {view: (torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16, requires_grad=True)) for view in ("zoomed", "zoomed_out")}
    step = Step(output, torch.rand(2, 3, 16, 16), raw, lambda group, *_: features[group], dict.fromkeys(VIEWS, seen), zoomed=zoomed)
    for term in terms.values():
        leaves = [step.seen(term.view)[1]] if term.between == ("output",) else [raw[group] for group in term.between]
        value = term(step)
        assert value.shape == () and value > 0
        for gradient in torch.autograd.grad(value, leaves):
            assert gradient.isfinite().all() and gradient.any()


@pytest.mark.parametrize(("file", "like"), ALIKE, ids=[file.stem for file, _ in ALIKE])
def test_it_is_a_run_under_equal_conditions(file, like):
    """Same data, student, teacher, start and schedule: what a table compares is the term."""
    options = read_options(str(file))
    reference = read_options(str(FOLDER.parent / f"{like}.yml"))
    assert options.pop("name") == file.stem
    assert options.pop("model_type") == "DistillationModel"
    options["train"].pop("distill", None)
    options["train"].pop("transforms", None)
    if file.stem in ("dukd_sr_x4", "augkd_sr_x4"):  # their authors' weight
        assert options["train"]["pixel_opt"].pop("loss_weight") == 5 * reference["train"]["pixel_opt"].pop("loss_weight")
    features = {"encoder": "auto", "decoder": "auto"} if like == "slkd_derain" else None  # SLKD chooses its own stages
    assert options.pop("features", None) == features
    reference["train"].pop("distill", None)
    reference = {key: value for key, value in reference.items() if key not in ("name", "model_type", "features", "dckd")}
    assert options == reference
