"""Option files that complete others (`_base_`), where their keys stand, and the one file that a run keeps of them."""

import os
from pathlib import Path

import pytest

from kd_plugins.cli import main
from kd_plugins.options import OptionError, read_option_file, read_options
from kd_plugins.run_options import keep_option_file, parse_options
from kd_plugins.yaml_loader import dump, load

BASE = """
name: base
model_type: DistillationModel
datasets:
  train: {name: a, type: PairedImageDataset, gt_size: 64}
  val: {name: b, type: PairedImageDataset}
network_g: {type: Restormer, dim: 8, heads: [1, 2, 4, 8]}
train:
  distill: {kl: {loss_weight: 1}, mine: {type: L1Loss}}
"""


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Write files by name, their folders included, in the working folder."""
    monkeypatch.chdir(tmp_path)

    def write(**texts):
        for name, text in texts.items():
            path = Path(name.replace("__", "/") + ".yml")
            path.parent.mkdir(exist_ok=True, parents=True)
            path.write_text(text, encoding="utf-8")

    write(base=BASE)
    return write


def test_mappings_are_merged_lists_replaced_and_keys_removed(files):
    files(own="_base_: base.yml\nname: own\ndatasets: {val: ~, train: {gt_size: 32}}\nnetwork_g: {dim: ~, heads: [1]}\nnone: ~\n")
    opt = read_options("own.yml")
    expected = read_options("base.yml")
    expected["name"], expected["none"] = "own", None
    del expected["datasets"]["val"], expected["network_g"]["dim"]
    expected["datasets"]["train"]["gt_size"], expected["network_g"]["heads"] = 32, [1]
    assert opt == expected and list(opt)[:3] == ["name", "model_type", "datasets"]


def test_a_term_of_the_model_stays_left_out(files):
    files(own="_base_: base.yml\ntrain: {distill: {kl: ~}}\n")
    assert read_options("own.yml")["train"]["distill"] == {"kl": None, "mine": {"type": "L1Loss"}}


def test_delete_replaces_a_mapping_as_in_mmengine(files):
    files(own="_base_: base.yml\nnetwork_g: {_delete_: true, type: EDSR}\nextra: {_delete_: true, a: 1}\n")
    opt = read_options("own.yml")
    assert opt["network_g"] == {"type": "EDSR"} and opt["extra"] == {"a": 1}


def test_bases_are_relative_to_the_file_and_later_ones_win(files):
    files(
        sub__own="_base_: [../base.yml, ../more/data.yml]\nscale: 2\n",
        more__data="_base_: small.yml\nnetwork_g: {dim: 4}\npath: {resume_state: as/written.state}\n",
        more__small="network_g: {dim: 2, bias: true}\n",
    )
    opt = read_options("sub/own.yml")
    assert opt["network_g"] == {"type": "Restormer", "dim": 4, "bias": True, "heads": [1, 2, 4, 8]}
    assert opt["scale"] == 2 and opt["path"] == {"resume_state": "as/written.state"}


def test_two_bases_may_share_one_and_anchors_stay_apart(files):
    files(
        left="_base_: base.yml\nnetwork_g: {dim: 1}\n",
        right="_base_: base.yml\nx-a: &a {k: 1}\nb: *a\n",
        own="_base_: [left.yml, right.yml]\nb: {k: 2}\n",
    )
    opt = read_options("own.yml")
    assert opt["network_g"]["dim"] == 8  # the later base's, which is that of base.yml
    assert opt["x-a"] == {"k": 1} and opt["b"] == {"k": 2}


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ({"own": "_base_: none.yml\n"}, r"^own\.yml:1: _base_: none\.yml: no such file \(looked from /"),
        ({"own": "a: 1\n_base_: [base.yml, 3]\n"}, r"^own\.yml:2: _base_: \['base\.yml', 3\], expected a file or a list of files$"),
        ({"own": "_base_: {a: 1}\n"}, r"expected a file or a list of files$"),
        ({"own": "_base_: own.yml\n"}, r"^own\.yml:1: _base_: own\.yml: a circle, own\.yml > own\.yml$"),
        (
            {"own": "_base_: x/a.yml\n", "x__a": "\n_base_: ../own.yml\n"},
            r"^x/a\.yml:2: _base_: own\.yml: a circle, own\.yml > x/a\.yml > own\.yml$",
        ),
        ({"own": "_base_: a.yml\n", "a": "a: [1"}, r"^a\.yml: not a valid option file: (.|\n)*line 1"),
        ({"own": "_base_: a.yml\n", "a": "just words"}, r"^a\.yml: expected `key: value` lines at the top, got str"),
        ({"own": "_base_: a.yml\nn: &a {m: *a}\n", "a": "n: &a {m: *a}\n"}, r"^own\.yml: n: holds itself"),
        ({"own": "_base_: a.yml\n", "a": "_base_: ''\n"}, r"^a\.yml:1: _base_: \[''\], expected a file or a list of files$"),
    ],
    ids=["missing", "number", "mapping", "itself", "circle", "no YAML", "no mapping", "endless", "empty"],
)
def test_bases_that_cannot_be_read_are_one_error(files, texts, said):
    files(**texts)
    with pytest.raises(OptionError, match=said):
        read_options("own.yml")


def test_a_base_may_be_a_bundled_file(files):
    files(own="_base_: slkd_derain\nname: own\n")
    assert read_options("own.yml")["model_type"] == "SLKDModel"


def test_a_base_belongs_in_the_file(files):
    with pytest.raises(OptionError, match="--force_yml _base_: bases belong in the option file"):
        read_option_file("base.yml", ["_base_=other.yml"])


def test_keys_know_the_file_that_they_stand_in(files):
    files(own="_base_: base.yml\nname: own\ndatasets: {train: {gt_size: 32}}\nnetwork_g: {_delete_: true, type: EDSR}\n")
    found = read_option_file("own.yml", ["datasets:val:name=c"])
    places = {
        ("name",): "own.yml:2",
        ("model_type",): "base.yml:3",
        ("datasets", "train"): "own.yml:3",
        ("datasets", "train", "gt_size"): "own.yml:3",
        ("datasets", "train", "type"): "base.yml:5",
        ("datasets", "val", "type"): "base.yml:6",
        ("datasets", "val", "name"): "--force_yml",
        ("network_g", "heads", "0"): "own.yml:4",
    }
    assert {path: str(found.place(path)) for path in places} == places


def test_the_check_names_file_and_line_across_bases(files, capsys):
    files(own="_base_: base.yml\nnetwork_g: {dmi: 8}\n", base=BASE + "lgger: {}\nscale: 1\nscale: 1\n")
    assert main(["check", "-opt", "own.yml"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert any(line.startswith("own.yml:2: network_g:dmi: 8, Restormer has no such key") for line in lines)
    assert any(line.startswith("base.yml:10: lgger: ") for line in lines)
    assert any(line.startswith("base.yml:11: scale: stands twice, in lines 11 and 12 of base.yml") for line in lines)


# ------------------------------------------------------------------------------------------------ what a run keeps


def kept(folder, *argv, **parse):
    opt, args = parse_options(str(folder), True, ["-opt", *argv])
    (folder / "kept").mkdir()
    keep_option_file(args.found, opt | {"path": {"log": "kept"}})
    return opt, Path("kept", os.path.basename(argv[0]))


def test_the_kept_file_alone_repeats_the_run(files, tmp_path):
    files(sub__own="# what this is for\n_base_: ../base.yml\ntrain: {optim_g: {type: Adam, lr: 1e-6}, scheduler: '1e-4'}\n")
    opt, file = kept(tmp_path, "sub/own.yml", "--force_yml", "network_g:dim=4", "note=[.inf, 2020-01-01, 'é', '1e-4']")
    again, _ = parse_options(str(tmp_path), True, ["-opt", str(file)])
    assert again == opt and opt["network_g"]["dim"] == 4 and opt["train"]["optim_g"]["lr"] == 1e-6
    text = file.read_text(encoding="utf-8")
    assert (
        text.startswith("# GENERATE TIME: ")
        and "_base_" not in text
        and "\n# what this is for\nname" in text
        and f"manual_seed: {opt['manual_seed']}" in text
    )


def test_a_file_that_is_complete_keeps_its_words(files, tmp_path):
    text = f"# what this is for\n{BASE}manual_seed: 3  # any\n"
    files(own=text)
    _, file = kept(tmp_path, "own.yml")
    assert file.read_text().endswith(f"\n\n{text}")


def test_the_kept_file_has_the_name_that_the_run_had(files, tmp_path):
    opt, file = kept(tmp_path, "base.yml", "--debug")
    assert read_options(str(file))["name"] == opt["name"] == "debug_base"


@pytest.mark.parametrize(
    "value", [1e-4, 1e-300, float("-inf"), "1e-4", "1.", "~", "null", "yes", "a: b", "é\n\x07", [], {}, [{"a": [1]}]]
)
def test_what_is_written_is_read_as_the_same(value):
    assert load(dump({"x": value})) == {"x": value}


def test_a_checked_file_is_left_as_it_was_read(files):
    files(own="_base_: base.yml\n")
    _, args = parse_options(".", True, ["-opt", "own.yml"], check=lambda found, args: [])
    assert args.found.opt == read_options("own.yml")
