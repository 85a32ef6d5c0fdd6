"""A run on a GPU: the parts that a run on the CPU never touches."""

import pytest
import torch

from kd_plugins.cli import main

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that PyTorch can use")


def test_a_run_on_a_gpu_stops_and_goes_on(with_validation, write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = with_validation
    options.update(num_gpu=1, amp="bf16", channels_last=True)
    options["datasets"]["train"].update(prefetch_mode="cuda", pin_memory=True, num_worker_per_gpu=1)
    options["train"]["total_iter"] = 2
    assert main(["train", "-opt", write(options)]) == 0
    root = tmp_path / "experiments" / "tiny"
    state = torch.load(root / "training_states" / "2.state", weights_only=True)
    assert len(state["random"]["cuda"]) == torch.cuda.device_count()
    first = torch.load(root / "models" / "net_g_2.pth", weights_only=True)
    assert {value.device.type for part in first.values() for value in part.values()} == {"cpu"}  # read where there is no GPU, too
    options["train"]["total_iter"] = 4
    assert main(["train", "-opt", write(options), "--auto_resume"]) == 0
    last = torch.load(root / "models" / "net_g_latest.pth", weights_only=True)
    assert all(torch.isfinite(value).all() for value in last["params"].values())
    assert any(not torch.equal(value, first["params"][key]) for key, value in last["params"].items())


def test_one_process_takes_one_gpu(options, write, tmp_path, monkeypatch, log):
    monkeypatch.chdir(tmp_path)
    options.update(num_gpu="auto")
    options["logger"]["use_tb_logger"] = False
    options["train"]["total_iter"] = 2
    assert main(["train", "-opt", write(options)]) == 0
    assert ("Training on 1 of" in log()) == (torch.cuda.device_count() > 1)
