"""The published recipes of options/paper: networks of the published size, and a step of each on random data."""

from pathlib import Path

import pytest
import torch
from basicsr.archs import build_network
from basicsr.models import build_model

from kd_plugins.options import parse_options, read_options

FOLDER = Path(__file__).parents[2] / "options" / "paper"
PUBLISHED = {  # millions of parameters, teacher and student; RCAN's as its own authors count it
    "dckd_swinir_x4": (11.90, 1.24),
    "dckd_rcan_x2": (15.44, 5.02),
    "dckd_nafnet_gopro": (17.11, 2.68),
    "dckd_restormer_derain": (26.13, 3.81),
}
every_recipe = pytest.mark.parametrize("name", PUBLISHED)


def network(options, key):
    return build_network({name: value for name, value in options[key].items() if name != "checkpoint"})


def millions(net):
    return round(sum(p.numel() for p in net.parameters()) / 1e6, 2)


@pytest.mark.parametrize(
    "name", ["dckd_rcan_x2", "dckd_nafnet_gopro", "dckd_restormer_derain"]
)  # SwinIR reads values as it is built
def test_the_networks_have_the_published_size(name):
    options = read_options(str(FOLDER / f"{name}.yml"))
    with torch.device("meta"):
        assert (millions(network(options, "teacher")), millions(network(options, "network_g"))) == PUBLISHED[name]


@every_recipe
def test_the_recipe_holds_the_published_constants(name):
    options = read_options(str(FOLDER / f"{name}.yml"))
    assert options["dckd"]["history"] == {"decay": 0.1, "every": [1000, 2000, 3000], "block": 100_000}
    assert {term: block["loss_weight"] for term, block in options["train"]["distill"].items()} == {
        "logits": 1,
        "dcl": 0.1,
        "ce": 0.001,
    }
    assert options["train"]["total_iter"] in (200_000, 250_000, 300_000) and options["train"]["optim_g"]["lr"] <= 1e-3
    assert options["init"] == "random"


@every_recipe
def test_a_step_of_the_recipe(name, tokenizer_file, tmp_path, write, log):
    options = read_options(str(FOLDER / f"{name}.yml"))
    teacher = network(options, "teacher")
    torch.save({"params": teacher.state_dict()}, tmp_path / "teacher.pth")
    size = 32 if options["scale"] == 1 else 16
    options.update(num_gpu=0, manual_seed=0)
    options["teacher"]["checkpoint"] = str(tmp_path / "teacher.pth")
    options["dckd"]["tokenizer"]["weights"] = str(tokenizer_file)
    options["datasets"]["train"]["gt_size"] = size * options["scale"]
    file = write(options)

    opt, _ = parse_options(str(tmp_path), True, ["-opt", file])
    model = build_model(opt)
    assert (millions(teacher), millions(model.net_g)) == PUBLISHED[name]
    large, small = (sum(p.numel() for p in net.parameters()) / 1e6 for net in (teacher, model.net_g))
    assert f"{large:.3f} M" in log() and f"{small:.3f} M" in log()  # printed

    side = size * options["scale"]
    model.feed_data({"lq": torch.rand(1, 3, size, size), "gt": torch.rand(1, 3, side, side)})
    model.optimize_parameters(1)
    losses = model.get_current_log()
    assert list(losses) == ["l_pix", "l_logits", "l_dcl", "l_ce"] and all(0 < value < 1e3 for value in losses.values())
    first = next(p for p in model.net_g.parameters() if p.dim() == 4)
    assert first.grad.isfinite().all() and first.grad.any()
