"""`basicsr check`: what is refused before anything is built, and how it is said."""

import argparse
import contextlib
import copy
import dataclasses
import re
from pathlib import Path

import pytest
from option_texts import GOOD, OPTIONS, text_of

from kd_plugins.checks import check_file
from kd_plugins.cli import main
from kd_plugins.options import OptionError, read_option_file

FILES = [
    file
    for file in sorted(OPTIONS.rglob("*.yml"))
    if not file.stem.startswith(("ablation", "study")) and file.parent.name != "tasks"
]


def line_of(text, key):
    return next(number for number, line in enumerate(text.splitlines(), 1) if line.strip().startswith(f"{key}:"))


# ------------------------------------------------------------------------------------------------ the bundled files


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(OPTIONS)))
def test_a_bundled_file_is_fine_but_for_what_a_user_must_bring(file, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    code = main(["check", "-opt", str(file)])
    said = capsys.readouterr()
    if code == 0:
        assert said.out.startswith(f"{file}: fine, for `basicsr ") and not said.err
        return
    for line in said.err.splitlines()[1:]:
        assert re.search(r"no such file or folder|is no file|does not exist|is not there", line), line


def test_the_main_files_of_the_readme_are_fine_as_they_stand(check):
    assert check(code=0) == ["a.yml: fine, for `basicsr train`"]
    assert check(text_of("skd_derain"), code=0)


# ------------------------------------------------------------------------------------------------ how it is said


def test_all_errors_come_at_once_with_line_key_value_and_what_is_near(check):
    text = (
        GOOD.replace("total_iter: 400", "totl_iter: 400")
        .replace("type: L1Loss", "type: L1Los")
        .replace("gt_size: 64", "gt_size: big")
    )
    said = check(text.replace("print_freq: 20", "print_freq: often"))
    expected = [
        f"a.yml:{line_of(text, 'gt_size')}: datasets:train:gt_size: 'big', expected a whole number of at least 1 or nothing",
        f"a.yml:{text.splitlines().index('train:') + 1}: train:total_iter: missing, SLKDModel needs it",
        f"a.yml:{line_of(text, 'totl_iter')}: train:totl_iter: 400, SLKDModel has no such key; nearest: total_iter",
        f"a.yml:{line_of(text, 'pixel_opt')}: train:pixel_opt:type: 'L1Los', no registered loss; nearest: L1Loss,",
        f"a.yml:{line_of(text, 'print_freq')}: logger:print_freq: 'often', expected a number",
    ]
    assert [line[: len(start)] for line, start in zip(said, expected, strict=True)] == expected


def test_what_force_yml_says_is_checked_and_named(check):
    assert check(
        GOOD, "train:distill:nc:windw=16", "train:distill:nc:type=BrisqueFeatureLoss", "train:distill:nc:between=encoder"
    ) == ["--force_yml: train:distill:nc:windw: 16, BrisqueFeatureLoss has no such key; nearest: window, view, between"]
    assert check(GOOD.replace("gt_size: 64", "gt_size: x"), "datasets:train:gt_size=64", code=0)  # it takes the line's place
    assert check(GOOD, "network_g={type: Restormr}")[0].startswith("--force_yml: network_g:type: 'Restormr'")


def test_train_and_test_check_first(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    Path("a.yml").write_text(GOOD.replace("dim: 8", "dmi: 8"))
    for command in ("train", "test"):
        assert main([command, "-opt", "a.yml"]) == 2
        error = capfd.readouterr().err
        assert "network_g:dmi: 8, Restormer has no such key; nearest: dim" in error and "Traceback" not in error
    assert list(tmp_path.iterdir()) == [tmp_path / "a.yml"]  # not even a folder is made


def test_a_key_that_stands_twice_is_refused(check):
    (line,) = check(GOOD + "init: random\n")
    assert "init: stands twice, in lines" in line


def test_notes_of_a_user_are_passed_over_at_the_top(check):
    assert check(GOOD + "x-common: &common {dim: 8}\n_note: why\n", code=0) == ["a.yml: fine, for `basicsr train`"]
    assert len(check(GOOD, "train:_note=why")) == 1


def test_what_a_merge_brings_may_be_overridden(check):
    text = GOOD.replace("network_g:\n", "x-base: &base {type: Restormer, dim: 4}\nnetwork_g:\n  <<: *base\n")
    assert check(text, code=0)


def test_a_file_with_anchors_and_merges_keeps_its_lines(check):
    text = GOOD.replace("    degradation: {type: rain}\n    gt_size", "    degradation: &rain {type: rain, densty: 2}\n    gt_size")
    text = text.replace("degradation: {type: rain}\n\n", "degradation: *rain\n\n")
    first, second = check(text)
    assert "datasets:train:degradation:densty: 2, Rain has no such key; nearest: density" in first
    assert "datasets:val:degradation:densty" in second


def test_missing_keys_at_the_top_are_among_all_errors(check):
    said = check("name: a\nmodel_typ: SLKDModel\nnetwork_g: {type: Restormr}\n")
    keys = {line.split(": ")[1] for line in said}
    assert keys == {"model_typ", "model_type", "datasets", "val", "network_g:type"}


@pytest.mark.parametrize("name", ["study", "ablation_skd", "tasks/denoise"])
def test_a_file_that_is_for_something_else_is_one_error(check, name):
    said = check((OPTIONS / f"{name}.yml").read_text().replace("_base_: ablation_slkd_derain.yml\n", ""))
    assert (
        len(said) == 1 and "not the options of a whole run, expected name, model_type, datasets, network_g; its keys are" in said[0]
    )


def test_debug_fills_in_how_often_to_log(check):
    text = GOOD.replace("  print_freq: 20\n", "").replace("  val_freq: 200\n", "")
    assert len(check(text)) == 2
    assert check(text, "name=debug_it", code=0)


def nodes(value, path=()):
    """The keys of all that stands in the options."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in items:
        yield (*path, key)
        yield from nodes(below, (*path, key))


@pytest.mark.parametrize("odd", [None, [[1]], {"a": {}}, 3.5, {"type": ["x"]}], ids=str)
@pytest.mark.parametrize("name", ["skd_derain", "slkd_tasks", "paper/dckd_swinir_x4"])
def test_no_value_in_any_place_breaks_the_check(name, odd, capsys):
    file = read_option_file(str(OPTIONS / f"{name}.yml"))
    args = argparse.Namespace(auto_resume=False, debug=False)
    for path in nodes(file.opt):
        opt = copy.deepcopy(file.opt)
        node = opt
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = odd
        with contextlib.suppress(OptionError):
            check_file(dataclasses.replace(file, opt=opt), args, is_train=True)
