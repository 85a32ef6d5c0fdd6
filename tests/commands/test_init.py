"""A bundled option file is found by its name, and copied by `basicsr init`."""

import pytest

from kd_plugins.cli import main
from kd_plugins.option_library import bundled_option_files
from kd_plugins.options import read_options


def test_a_copy_is_what_is_bundled_and_an_existing_file_is_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["init", "slkd_derain"]) == 0
    assert (tmp_path / "slkd_derain.yml").read_bytes() == bundled_option_files()["slkd_derain"].read_bytes()
    (tmp_path / "slkd_derain.yml").write_text("mine")
    assert main(["init", "slkd_derain"]) == 2
    assert "there already" in capsys.readouterr().err
    assert (tmp_path / "slkd_derain.yml").read_text() == "mine"


def test_a_copy_of_a_file_with_bases_stands_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["init", "skd_denoise", "-o", "mine.yml"]) == 0
    text = (tmp_path / "mine.yml").read_text()
    assert "_base_" not in text and text.startswith("# Distil a small Restormer for colour denoising")
    assert read_options("mine.yml") == read_options(str(bundled_option_files()["skd_denoise"]))


def test_the_names_are_listed(capsys):
    assert main(["init"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert listed == list(bundled_option_files())
    assert {"distill_derain", "baselines/fitnet_derain", "paper/dckd_swinir_x2"} <= set(listed)


@pytest.mark.parametrize("words", [["init", "slkd_drain"], ["check", "-opt", "slkd_drain"], ["check", "-opt", "slkd_drain.yml"]])
def test_a_misspelt_name_gets_the_nearest(words, capsys):
    assert main(words) == 2
    assert "nearest: slkd_derain" in capsys.readouterr().err


def test_an_option_file_is_found_by_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["check", "-opt", "slkd_derain"]) == 0
    assert "slkd_derain.yml: fine" in capsys.readouterr().out
