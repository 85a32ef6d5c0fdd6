"""Names that become folders and files, and files that an option file names."""

import json
import os
from pathlib import Path

import pytest
from option_texts import GOOD

from kd_plugins.cli import main


@pytest.mark.parametrize("name", ["../photos", "a/b", "a\\b", "..", ".", "", "/tmp/a", "a\nb", "é" * 101, "\ud800"], ids=ascii)
@pytest.mark.parametrize("key", ["name", "datasets:val:name", "datasets:train:name", "val:suffix"])
def test_what_becomes_a_folder_or_a_file_is_one_name(check, key, name):
    if (key, name) == ("val:suffix", ""):  # as nothing
        return
    (line,) = [line for line in check(GOOD, f"{key}={json.dumps(name)}") if f": {key}: " in line]
    assert "expected one name, as a folder has it" in line or "expected one of , nothing or one name" in line
    check(GOOD, f"{key}=my run.2", code=0)


def test_a_run_whose_name_is_a_path_leaves_the_folder_that_it_leads_to(tmp_path, monkeypatch, capfd):
    (tmp_path / "run").mkdir()
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path / "run")
    Path("x.yml").write_text(GOOD)
    assert main(["train", "-opt", "x.yml", "--force_yml", "name=../../photos"]) == 2
    assert "name: '../../photos', expected one name" in capfd.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "run"]


@pytest.mark.parametrize("odd", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)], ids=["pipe", "folder", "device"])
@pytest.mark.parametrize(
    "key", ["path:pretrain_network_g", "path:resume_state", "datasets:train:meta_info_file", "datasets:train:dataroot_lq"]
)
def test_a_pipe_a_device_or_a_folder_is_no_file(check, tmp_path, key, odd):
    odd(tmp_path / "odd")
    data = "datasets:train={name: a, type: DegradedImageDataset, dataroot_lq: ., gt_size: 8}"
    found = [line for line in check(GOOD, data, f"{key}=odd") if f": {key}: " in line]
    is_fine = key.endswith("dataroot_lq") and odd is os.mkdir
    assert is_fine or "'odd', expected a file" in found[0] and "and it is something else" in found[0]


def test_files_of_what_is_not_built_are_not_asked_for(check):
    plain = ("model_type=SRModel", "teacher:checkpoint=none.pth", "train:scheduler={type: MultiStepLR, milestones: [1]}")
    assert check(GOOD, *plain, code=0)


def test_a_run_that_resumes_needs_no_pretrained_file(check, tmp_path):
    (tmp_path / "4.state").touch()
    assert check(GOOD, "path:pretrain_network_g=none.pth", "path:resume_state=4.state", code=0)
