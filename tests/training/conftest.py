"""A short run, and a folder for it."""

import pytest


@pytest.fixture
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def short(options):
    """Seven steps over epochs of a few, a state after every second."""
    options.update(num_threads=1)
    options["datasets"]["train"].update(dataset_enlarge_ratio=1, gt_size=16)
    options["logger"].update(use_tb_logger=False, print_freq=1)
    options["train"]["total_iter"] = 7
    options["train"]["scheduler"]["periods"] = [100]
    return options
