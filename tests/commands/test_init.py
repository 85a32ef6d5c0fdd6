"""A bundled option file is found by its name, and copied by `basicsr init`."""

from pathlib import Path

import pytest

from kd_plugins.cli import main
from kd_plugins.option_library import bundled_option_files
from kd_plugins.options import read_options


def test_a_copy_is_what_is_bundled_and_an_existing_file_is_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["init", "slkd_derain"]) == 0
    bundled = bundled_option_files()["slkd_derain"].read_text()
    assert (tmp_path / "slkd_derain.yml").read_text() == bundled.replace("-opt options/", "-opt ", 1)
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


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("baselines/at_derain", "at_derain.yml: `basicsr train -opt at_derain.yml`"),
        ("test_slkd_derain", "test_slkd_derain.yml: `basicsr test -opt test_slkd_derain.yml`"),
        ("study", "study.yml: its first lines say how it is used"),
        ("tasks/denoise", "denoise.yml: its first lines say how it is used"),
    ],
)
def test_what_to_type_next_is_what_the_file_is_for(name, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["init", name]) == 0
    assert capsys.readouterr().out == f"{said}\n"


def test_the_names_are_listed(capsys):
    assert main(["init"]) == 0
    lines = capsys.readouterr().out.splitlines()
    listed = [line.split()[0] for line in lines]
    assert listed == list(bundled_option_files())
    assert all(line.endswith((".", "]", ".yml")) for line in lines), "a sentence that goes on in the file's next line"
    assert {"distill_derain", "baselines/fitnet_derain", "paper/dckd_swinir_x2"} <= set(listed)


@pytest.mark.parametrize("words", [["init", "slkd_drain"], ["check", "-opt", "slkd_drain"], ["check", "-opt", "slkd_drain.yml"]])
def test_a_misspelt_name_gets_the_nearest(words, capsys):
    assert main(words) == 2
    assert "nearest: slkd_derain" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["init", "slkd_derain.yml"], "slkd_derain"),
        (["init", "at_derain"], "baselines/at_derain"),
        (["check", "-opt", "options/slkd_derain.yml"], "slkd_derain"),
        (["check", "-opt", "."], "expected one of ablation_dckd"),
    ],
)
def test_a_name_with_another_folder_or_an_ending_gets_the_whole_name(words, name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    said = capsys.readouterr().err
    assert f"nearest: {name}\n" in said or f": a folder, and no bundled option file; {name}" in said


def test_an_option_file_is_found_by_name_beside_a_folder_of_that_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("slkd_derain").mkdir()
    assert main(["check", "-opt", "slkd_derain"]) == 0
    assert "slkd_derain.yml: fine" in capsys.readouterr().out
