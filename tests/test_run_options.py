"""Command lines of runs, and the options that they complete."""

import random
from os import path as osp

import numpy as np
import pytest
import torch
from option_texts import MINIMAL

from kd_plugins.options import OptionError
from kd_plugins.run_options import parse_options


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


def test_the_result_is_that_of_basicsr(parse, write, tmp_path, monkeypatch):
    from basicsr.utils import options as upstream  # kd_plugins has made it importable

    text = MINIMAL.replace("1e-4", "0.0001")  # upstream reads 1e-4 as text
    for train in (True, False):
        ours, _ = parse(text=text, train=train)
        monkeypatch.setattr("sys.argv", ["train.py", "-opt", write(text)])
        theirs, _ = upstream.parse_options(str(tmp_path), train)
        assert ours == {**theirs, "root_path": str(tmp_path)}
