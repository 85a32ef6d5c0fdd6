"""`basicsr layers`: what it prints is what an option file can name."""

from functools import partial

import pytest
import yaml

from kd_plugins.features import find_pairs
from kd_plugins.teachers import build_source

EDSR = {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_block": 4, "upscale": 1}
RESTORMER = {"type": "Restormer", "dim": 2, "num_blocks": [1] * 4, "num_refinement_blocks": 1, "heads": [1] * 4}
SWINIR = {
    "type": "SwinIR", "upscale": 1, "img_size": 8, "window_size": 8, "embed_dim": 4, "depths": [1, 1], "num_heads": [1, 1],
    "mlp_ratio": 1,
}  # fmt: skip


@pytest.fixture
def layers(said_of):
    return partial(said_of, "layers")


def row(text, layer):
    return next(line.split() for line in text.splitlines() if line.split()[:1] == [layer])


def test_layers_stages_and_a_proposal_to_paste(layers):
    options = {"teacher": RESTORMER, "network_g": {**RESTORMER, "dim": 4}}
    out, _, code = layers(options)
    assert code == 0
    assert "teacher (Restormer), U-shaped" in out and "student (Restormer), U-shaped" in out
    assert row(out, "encoder_level2") == ["encoder_level2", "Sequential", "(1,", "4,", "32,", "64)", "encoder", "2"]
    assert row(out, "latent")[-1] == "bottleneck" and row(out, "decoder_level3")[-2:] == ["decoder", "1"]
    assert row(out, "refinement")[-1] == "128)" and "encoder_level1.0" not in out
    proposed = yaml.safe_load(out[out.index("features:") :])["features"]
    nets = [build_source(options[block], block) for block in ("network_g", "teacher")]
    assert find_pairs(proposed, *nets) == find_pairs("auto", *nets)


def test_of_teachers_for_several_tasks_the_first_one_is_shown(layers):
    teachers = {"tasks": {"a": {**RESTORMER, "dim": 6}, "b": RESTORMER}}
    out, _, code = layers({"teacher": teachers, "network_g": RESTORMER})
    assert code == 0 and row(out, "encoder_level1")[2:5] == ["(1,", "6,", "64,"]


def test_all_modules_and_other_options(layers):
    out, _, code = layers({"network_g": RESTORMER}, "--all", "--force_yml", "network_g:dim=6", "teacher={type: SRResNet}")
    assert code == 2  # no such architecture
    out, _, code = layers({"network_g": RESTORMER}, "--all", "--force_yml", "network_g:dim=6")
    assert code == 0 and row(out, "encoder_level1.0.attn")[1:4] == ["MDTA", "(1,", "6,"]
    assert "No pairs: there is no teacher with stages." in out


def test_tokens_are_shown_and_stood_for(layers):
    out, _, _ = layers({"teacher": SWINIR})
    assert "teacher (SwinIR), flat" in out and "there is no student" in out
    assert row(out, "layers.0")[1:] == ["RSTB", "(1,", "8192,", "4)"]
    assert row(out, "layers.1.conv")[-2:] == ["decoder", "1"]


def test_what_has_no_pair_is_said(layers):
    out, _, code = layers({"teacher": EDSR, "network_g": {**EDSR, "num_block": 1}})
    assert code == 0 and "encoder: [[body.0, body.1]]" in out and "# no decoder" in out
    assert list(yaml.safe_load(out[out.index("features:") :])["features"]) == ["encoder"]


@pytest.mark.filterwarnings("ignore:`torch.jit.*` is deprecated")
def test_networks_without_layers_or_stages_are_said(layers, tmp_path_factory):
    import torch

    program = tmp_path_factory.mktemp("program") / "net.pt"
    torch.jit.trace(torch.nn.Conv2d(3, 3, 1), torch.rand(1, 3, 8, 8)).save(program)
    out, _, code = layers({"teacher": {"program": str(program), "trust": True}, "network_g": EDSR})
    assert code == 0 and "no layers to compare" in out and "student (EDSR), flat" in out and "there is no teacher" in out
    plain = {"type": "torch.nn.Conv2d", "in_channels": 3, "out_channels": 3, "kernel_size": 1}
    out, _, code = layers({"network_g": plain})
    assert code == 0 and "no stages were found in Conv2d" in out


def test_names_that_yaml_reads_as_numbers_are_quoted():
    from kd_plugins.commands.layers import _as_yaml
    from kd_plugins.features import Pair

    assert yaml.safe_load(_as_yaml({"encoder": [Pair("1.10", "body.0")]})) == {"features": {"encoder": [["1.10", "body.0"]]}}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": "empty"}, "x.yml: neither `teacher` nor `network_g`"),
        ({"network_g": {"type": "Restormr"}}, "nearest: Restormer"),
    ],
)
def test_mistakes_are_one_line(layers, options, said):
    _, err, code = layers(options)
    assert code == 2 and said in err
