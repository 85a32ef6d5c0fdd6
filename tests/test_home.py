"""`~nobody/...`: one sentence, wherever a path may stand."""

import argparse
import importlib
from pathlib import Path

import pytest
import yaml

import kd_plugins
from kd_plugins import home
from kd_plugins.cli import COMMANDS, build_parser, main

NOBODY = "~nobody-of-this-name/x"
SAID = f"{NOBODY!r}, ~nobody-of-this-name is the home of no user here"
PARSER = build_parser({name: importlib.import_module(f"kd_plugins.commands.{name}") for name in COMMANDS})
(PARSERS,) = (action.choices for action in PARSER._actions if isinstance(action, argparse._SubParsersAction))
FLAGS = [
    (command, action)
    for command, parser in PARSERS.items()
    for action in parser._actions
    if action.nargs != 0 and action.type in (None, Path) and not action.choices
]


@pytest.mark.parametrize(("command", "action"), FLAGS, ids=lambda value: getattr(value, "dest", value))
def test_each_flag_refuses_the_home_of_nobody(command, action, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, *action.option_strings[-1:], *[NOBODY] * (action.nargs if isinstance(action.nargs, int) else 1)])
    assert stop.value.code == 2
    assert f"argument {'/'.join(action.option_strings) or action.metavar or action.dest}: {SAID}" in capsys.readouterr().err


def test_each_key_refuses_the_home_of_nobody(dckd_options, said_of):
    options = dckd_options
    options["datasets"]["train"]["photos"] = [NOBODY]
    options["datasets"]["val"] = {"name": "v", "type": "PairedImageDataset", "io_backend": {"type": "disk"}}
    options["datasets"]["val"].update(dataroot_gt=NOBODY, dataroot_lq=NOBODY, meta_info_file=NOBODY)
    options["teacher"] = {"checkpoint": NOBODY, "cache": {"folder": NOBODY}}
    options["teacher_clean"] = {"program": NOBODY, "trust": True}
    options["network_g"] = {"type": "SourcedNetwork", "network": {"class": "Own", "file": NOBODY, "checkpoint": NOBODY}}
    options["dckd"]["tokenizer"]["weights"] = NOBODY
    options["path"].update(pretrain_network_g=NOBODY, resume_state=NOBODY)
    out, error, code = said_of("check", options)
    assert code == 2 and not out
    assert error.count(SAID) == yaml.safe_dump(options).count(NOBODY) == 12
    assert "dckd:tokenizer:weights: " + SAID in error and "datasets:train:photos:0: " + SAID in error
    assert not [line for line in error.splitlines() if NOBODY in line and SAID not in line]


def test_in_python_nothing_is_found_there():
    with pytest.raises(FileNotFoundError, match="'', expected a path"):
        home.expand("")
    assert home.expand(NOBODY) == Path(NOBODY) and home.expand("~/x") == Path.home() / "x"
    assert not home.fault("~/x") and not home.fault("x~") and not home.fault("~root")
    assert [file.name for file in Path(kd_plugins.__file__).parent.rglob("*.py") if "expanduser" in file.read_text()] == ["home.py"]
