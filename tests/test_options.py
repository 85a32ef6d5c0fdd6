"""Option files and command lines."""

import itertools
import random
from os import path as osp
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from kd_plugins.options import OptionError, force_options, option_errors, read_option_file, read_options
from kd_plugins.run_options import parse_options

MINIMAL = """
name: trial
model_type: SLKDModel
num_gpu: auto
manual_seed: 7
scale: 1
datasets:
  train: {name: photos, type: PairedImageDataset, dataroot_gt: ~/photos}
  val_1: {name: held, type: PairedImageDataset, dataroot_gt: /photos, dataroot_lq: ~}
network_g: {type: Restormer}
path: {pretrain_network_g: ~/net.pth, resume_state: ~, strict_load_g: true}
train: {optim_g: {type: Adam, lr: 1e-4}}
val: {val_freq: 5000, save_img: false}
logger: {print_freq: 100, save_checkpoint_freq: 5000, use_tb_logger: true}
"""


@pytest.fixture
def write(tmp_path):
    def write_file(text, name="trial.yml"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return str(tmp_path / name)

    return write_file


@pytest.fixture
def parse(write, tmp_path):
    """Parse an option file under a command line; the state of the random generators is put back."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    yield lambda *argv, text=MINIMAL, train=True, check=None: parse_options(
        str(tmp_path), train, ["-opt", write(text), *argv], check
    )
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])


# ------------------------------------------------------------------------------------------------ the file


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "2e5", "+1.5e-3", "-.5e2", "1.e4", "0.5", "300", ".inf"])
def test_numbers_are_numbers(write, text):
    value = read_options(write(MINIMAL + f"value: {text}\n"))["value"]
    assert type(value) is (int if text == "300" else float)
    assert value == float(text.replace(".inf", "inf"))


@pytest.mark.parametrize("text", ["1e", "e5", "1e-4x", "1-4", "'1e-4'", "v1e4", "1.2.3"])
def test_what_only_looks_like_a_number_stays_text(write, text):
    assert read_options(write(MINIMAL + f"value: {text}\n"))["value"] == text.strip("'")


def test_the_rest_of_yaml_is_as_ever(write):
    opt = read_options(write(MINIMAL + "a: [1, true, ~, x]\nb: {c: 'é'}\nd: &anchor {e: 1}\nf: *anchor\n"))
    assert opt["a"] == [1, True, None, "x"] and opt["b"] == {"c": "é"} and opt["f"] == {"e": 1}
    assert opt["train"]["optim_g"]["lr"] == 1e-4
    assert list(opt)[:3] == ["name", "model_type", "num_gpu"]  # in the file's order


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.mkdir", "!!python/object/new:os.mkdir", "!!python/name:os.mkdir"])
def test_code_in_the_file_is_refused_and_not_run(write, tmp_path, tag):
    arguments = "" if "name" in tag else f" ['{tmp_path / 'ran'}']"
    file = write(MINIMAL + f"extra: {tag}{arguments}\n")
    with pytest.raises(OptionError, match=r"trial\.yml: not a valid option file: (.|\n)*python"):
        read_options(file)
    assert not (tmp_path / "ran").exists()
    if "apply" in tag:  # the file is as dangerous as it was meant to be
        with open(file, encoding="utf-8") as stream:
            yaml.load(stream, Loader=yaml.UnsafeLoader)
        assert (tmp_path / "ran").exists()


def test_a_missing_file_says_where_it_was_looked_for(tmp_path):
    with pytest.raises(OptionError, match=r"-opt .*none\.yml: no such file \(looked from /?.+\)"):
        read_options(str(tmp_path / "none.yml"))
    with pytest.raises(OptionError, match="a folder"):
        read_options(str(tmp_path))


@pytest.mark.parametrize("text", ["a: [1", "a: b: c", "\tx: 1", "a: *nowhere"])
def test_what_is_not_yaml_names_the_line(write, text):
    with pytest.raises(OptionError, match="not a valid option file: (.|\n)*line"):
        read_options(write(text))


@pytest.mark.parametrize("text", ['!!int ""', "!!float ''", "!!bool x", "!!timestamp x", "2025-13-01", "1" * 5000])
def test_a_value_that_is_not_what_its_tag_says_is_named_with_its_line(write, text):
    with pytest.raises(OptionError, match=r"trial\.yml: not a valid option file: '.{0,100}' is no \w+\n.*trial\.yml\", line \d+"):
        read_options(write(MINIMAL + f"note: {text}\n"))


@pytest.mark.parametrize("text", ["[" * 5000, "{a: " * 5000, "[" * 120 + "]" * 120])
def test_a_file_that_is_nested_without_end_is_refused(write, text):
    with pytest.raises(OptionError, match="nested in more than 100 levels"):
        read_options(write(MINIMAL + f"note: {text}\n"))
    assert read_options(write(MINIMAL + f"note: {'[' * 90}{']' * 90}\n"))["note"]


@pytest.mark.parametrize(
    ("first", "further"),
    [("[1]", "[{0}, {0}]"), ("{k: 1}", "{{a: {0}, b: {0}}}"), ("{k: 1}", "{{<<: [{0}, {0}]}}"), ("[1]", "[{0}]")],
    ids=["lists", "mappings", "merges", "levels"],
)
def test_aliases_that_repeat_each_other_without_end_are_refused_wherever_they_are_read(write, first, further):
    def text(count):
        lines = [f"x-{n}: &a{n} {further.format(f'*a{n - 1}')}" for n in range(1, count)]
        return "\n".join([MINIMAL, f"x-0: &a0 {first}", *lines]) + "\n"

    for read in (read_options, read_option_file):
        with pytest.raises(OptionError, match="aliases repeat what they stand for until there are more than 100000 values, or 100"):
            read(write(text(300)))
        assert read(write(text(9)))
    pairs = ", ".join(f"&{name} [*{before}, *{before}]" for before, name in itertools.pairwise("abcdefghijklmnopqrstu"))
    inline = f"[&a [1], {pairs}]"
    with pytest.raises(OptionError, match="is not a YAML value .aliases repeat"):
        force_options({}, [f"a={inline}"])


def test_a_file_that_is_not_utf_8_is_refused(tmp_path):
    (tmp_path / "trial.yml").write_bytes(MINIMAL.encode() + b"note: \xe9\n")
    with pytest.raises(OptionError, match="not a valid option file: .*utf-8"):
        read_options(str(tmp_path / "trial.yml"))


@pytest.mark.parametrize(("text", "kind"), [("- a\n- b", "list"), ("just words", "str"), ("", "nothing")])
def test_what_is_not_a_mapping_is_refused(write, text, kind):
    with pytest.raises(OptionError, match=f"expected `key: value` lines at the top, got {kind}"):
        read_options(write(text))


def test_missing_keys_are_all_named(write):
    with pytest.raises(OptionError, match=r"missing key\(s\) model_type, network_g"):
        read_options(write("name: a\ndatasets: {}\n"))
    with pytest.raises(OptionError, match=r"missing key\(s\) datasets$"):
        read_options(write("name: a\nmodel_type: b\ndatasets:\nnetwork_g: {type: c}\n"))


# ------------------------------------------------------------------------------------------------ where a key stands


def test_keys_know_their_lines_and_what_force_yml_says(write):
    train = "train:\n  optim_g:\n    lr: 1e-4\n  steps: [1, {a: 2}]"
    file = write(MINIMAL.replace("train: {optim_g: {type: Adam, lr: 1e-4}}", train))
    found = read_option_file(file, ["datasets:train:name=other", "logger:print_freq=1"])
    lines = Path(file).read_text().splitlines()
    expected = {("name",): "name: trial", ("train", "optim_g", "lr"): "    lr: 1e-4", ("train", "steps", "1", "a"): "  steps: ["}
    for path, text in expected.items():
        assert lines[found.place(path).line - 1].startswith(text)
    assert found.place(("train", "optim_g", "none")) == found.place(("train", "optim_g"))  # the nearest above
    assert str(found.place(("datasets", "train", "name"))) == "--force_yml" and found.opt["datasets"]["train"]["name"] == "other"
    assert str(found.place(("datasets", "train", "type"))) == f"{file}:8"
    assert found.twice == {}


def test_keys_that_stand_twice_are_found(write):
    file = write("a: 1\nb: {c: 1, c: 2}\na: 2\n")
    assert read_option_file(file).twice == {("b", "c"): f"in lines 2 and 2 of {file}", ("a",): f"in lines 1 and 3 of {file}"}


def test_a_file_that_holds_itself_is_read(write):
    assert read_option_file(write("a: &a {b: 1, again: *a}\n")).places[("a", "b")].line == 1


# ------------------------------------------------------------------------------------------------ the command line


def test_a_check_comes_first_and_its_warnings_are_kept(parse):
    def check(found, args):
        assert found.opt["num_gpu"] == "auto" and args.debug  # as the file has it
        return ["beware"]

    _, args = parse("--debug", check=check)
    assert args.warnings == ["beware"]


def test_a_training_runs_options_are_complete(parse, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("USERPROFILE", "/home/me")
    opt, args = parse()
    root = osp.join(str(tmp_path), "experiments", "trial")
    assert opt["path"] == {
        "pretrain_network_g": osp.expanduser("~/net.pth"),
        "resume_state": None,
        "strict_load_g": True,
        "experiments_root": root,
        "models": osp.join(root, "models"),
        "training_states": osp.join(root, "training_states"),
        "log": root,
        "visualization": osp.join(root, "visualization"),
    }
    assert (opt["is_train"], opt["auto_resume"], opt["dist"], opt["rank"], opt["world_size"]) == (True, False, False, 0, 1)
    assert opt["root_path"] == str(tmp_path) and opt["num_gpu"] == torch.cuda.device_count()
    train, val = opt["datasets"].values()
    assert (train["phase"], train["scale"], train["dataroot_gt"]) == ("train", 1, osp.expanduser("~/photos"))
    assert (val["phase"], val["dataroot_gt"], val["dataroot_lq"]) == ("val", "/photos", None)
    assert args.launcher == "none" and opt["val"]["val_freq"] == 5000


def test_a_test_runs_paths_are_those_of_results(parse, tmp_path):
    opt, _ = parse(train=False)
    root = osp.join(str(tmp_path), "results", "trial")
    assert opt["is_train"] is False
    assert (opt["path"]["results_root"], opt["path"]["log"]) == (root, root)
    assert opt["path"]["visualization"] == osp.join(root, "visualization")
    assert not {"experiments_root", "models", "training_states"} & set(opt["path"])


def test_no_path_block_no_num_gpu_and_a_number_as_a_name_do_no_harm(parse, tmp_path):
    text = MINIMAL.replace("name: trial", "name: 2025")
    text = "\n".join(line for line in text.splitlines() if not line.startswith(("path:", "num_gpu:")))
    opt, _ = parse("--debug", text=text)
    assert opt["path"]["models"] == osp.join(str(tmp_path), "experiments", "debug_2025", "models")
    assert opt["num_gpu"] == torch.cuda.device_count()


def test_flags_and_forced_values_arrive(parse):
    opt, _ = parse("--auto_resume", "--force_yml", "train:optim_g:lr=3e-4", "name=other", "num_gpu=0", "amp=bf16")
    assert opt["auto_resume"] and opt["train"]["optim_g"]["lr"] == 3e-4
    assert opt["path"]["experiments_root"].endswith("other") and opt["num_gpu"] == 0 and opt["amp"] == "bf16"


def test_debug_renames_and_logs_often(parse):
    opt, _ = parse("--debug")
    assert opt["name"] == "debug_trial" and opt["path"]["models"].endswith(osp.join("debug_trial", "models"))
    assert opt["val"] == {"val_freq": 8, "save_img": False}
    assert opt["logger"] == {"print_freq": 1, "save_checkpoint_freq": 8, "use_tb_logger": True}
    again, _ = parse("--debug", text=MINIMAL.replace("trial", "debug_it"))
    assert again["name"] == "debug_it"


def test_a_name_with_debug_in_it_logs_often_only_in_training(parse):
    text = MINIMAL.replace("name: trial", "name: my_debug")
    assert parse(text=text)[0]["logger"]["print_freq"] == 1
    assert parse(text=text, train=False)[0]["logger"]["print_freq"] == 100


def test_debug_without_blocks_to_change_makes_them(parse):
    text = "\n".join(line for line in MINIMAL.splitlines() if not line.startswith("logger:")).replace("val: {", "val: ~ # {")
    opt, _ = parse("--debug", text=text)
    assert opt["logger"]["print_freq"] == 1 and opt["val"] == {"val_freq": 8}


def draw():
    return random.random(), float(np.random.rand()), float(torch.rand(1))


def test_the_seed_fixes_every_generator(parse):
    parse()
    first = draw()
    parse()
    assert draw() == first
    parse("--force_yml", "manual_seed=8")
    assert all(a != b for a, b in zip(draw(), first, strict=True))


@pytest.mark.parametrize("line", ["", "manual_seed: ~"])
def test_without_a_seed_one_is_drawn_and_written_down(parse, line):
    opt, _ = parse(text=MINIMAL.replace("manual_seed: 7", line))
    assert isinstance(opt["manual_seed"], int) and 1 <= opt["manual_seed"] <= 10000


@pytest.mark.parametrize("value", ["~", "photos", "[a]"])
def test_a_dataset_that_is_not_a_mapping_is_refused(parse, value):
    with pytest.raises(OptionError, match="datasets:val_1: expected a mapping"):
        parse("--force_yml", f"datasets:val_1={value}")


@pytest.mark.parametrize("argv", [[], ["--launcher", "mpi"], ["--bogus"]], ids=str)
def test_a_wrong_command_line_shows_the_usage(write, tmp_path, argv, capsys):
    argv = ["-opt", write(MINIMAL), *argv] if argv else argv
    with pytest.raises(SystemExit) as end:
        parse_options(str(tmp_path), True, argv)
    assert end.value.code == 2
    assert "usage: basicsr train" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ while things are built


@pytest.mark.parametrize(
    "error", [ValueError("bad"), KeyError("bad"), FileNotFoundError("bad"), NotADirectoryError("bad")], ids=repr
)
def test_errors_of_building_name_the_option_file(error):
    with pytest.raises(OptionError, match=r"^a\.yml: bad$") as caught, option_errors("a.yml"):
        raise error
    assert caught.value.__cause__ is error


def test_other_errors_are_not_options():
    with pytest.raises(RuntimeError, match="^bad$"), option_errors("a.yml"):
        raise RuntimeError("bad")
    with option_errors("a.yml"):
        pass


def test_the_result_is_that_of_basicsr(parse, write, tmp_path, monkeypatch):
    from basicsr.utils import options as upstream  # kd_plugins has made it importable

    text = MINIMAL.replace("1e-4", "0.0001")  # upstream reads 1e-4 as text
    for train in (True, False):
        ours, _ = parse(text=text, train=train)
        monkeypatch.setattr("sys.argv", ["train.py", "-opt", write(text)])
        theirs, _ = upstream.parse_options(str(tmp_path), train)
        assert ours == {**theirs, "root_path": str(tmp_path)}
