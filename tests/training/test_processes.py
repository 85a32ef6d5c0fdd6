"""Several processes train as one with the larger batch does: the same gradients, for each method and baseline."""

import copy
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import several
import torch

from kd_plugins import distributed
from kd_plugins.cli import main

TWO_GPUS = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="nccl needs two GPUs")
TORCHRUN = [
    sys.executable,
    "-m",
    "torch.distributed.run",
    "--nproc_per_node=2",
    "--rdzv_backend=c10d",
    "--rdzv_endpoint=localhost:0",
]


def term(kind, between, **arguments):
    return {"type": kind, "between": between, "view": "degraded", "loss_weight": 0.1, **arguments}


BASELINES = {
    "logits": term("L1Loss", "output"),
    "fitnet": term("FitNetFeatureLoss", "encoder"),
    "channel_kl": term("ChannelWiseKLLoss", "encoder", tau=0.2),
    "csd": term("ContrastiveImageLoss", "output", count=1, window=16, loss_weight=0.01),
    "at": term("AttentionTransferFeatureLoss", "decoder"),  # beside fitnet: a group with, a group without conversion
    "zoomed": {"type": "L1Loss", "view": "zoomed"},  # a second pass of the student
}
WITHOUT_CONVERSION = {
    "at": term("AttentionTransferFeatureLoss", ["encoder", "decoder"]),
    "fakd": term("SpatialAffinityFeatureLoss", "encoder"),
    "broken": {"type": "BrokenLoss", "between": "output"},
}

DISCRIMINATOR = {"type": "UNetDiscriminatorSN", "num_in_ch": 3, "num_feat": 4}
AGAINST_IT = {"gan_opt": {"type": "GANLoss", "gan_type": "vanilla", "loss_weight": 0.1}, "optim_d": {"type": "Adam", "lr": 1e-3}}


@pytest.fixture
def methods(options, tokenizer_file, with_validation, photo_folder):
    """Options by name: each method, with random numbers that do not depend on the size of the batch, and the baselines."""
    options["train"]["optim_g"] = {"type": "SGD", "lr": 1e-4}
    options["init"] = "random"
    shutil.copy(photo_folder / "coffee.png", photo_folder / "third.png")  # one more for the first process

    def make(model, distill=None, **keys):
        made = copy.deepcopy({**options, "model_type": model, **keys})
        made["train"].update(distill=distill or {}, pixel_opt={"type": "L1Loss"})
        return made

    settings = {"tokenizer": {"weights": str(tokenizer_file)}, "negatives": {"noise": 0.0}, "history": {"every": 1, "decay": 0.5}}
    consistency = {"type": "L1Loss", "between": "output", "view": "transformed"}
    made = {
        "SLKD": make("SLKDModel"),
        "SKD": make("SKDModel", {"gk": {"learnable": True}}),
        "DCKD": make("DCKDModel", {"consistency": consistency, "ce": {"loss_weight": 0.1}}, features=None, dckd=settings),
        "baselines": make("DistillationModel", BASELINES),
        "without_conversion": make("DistillationModel", WITHOUT_CONVERSION),
        "every": make("SKDModel", {"gk": {"learnable": True, "every": 2}, "cl": {"every": 3}}),
        "nothing": make("DistillationModel", teacher=None),
        "PSD": make("PSDModel", {"img": {"trust": {"window": 3}, "fade": {"end": 2}}}, features=None),
        "gan": make("DistillationModel", features=None, network_d=DISCRIMINATOR),
        "faded": make("SKDModel", {"gk": {"learnable": True, "fade": {"end": 2}}, "cl": {"trust": {}, "fade": {"end": 2}}}),
    }
    for name in set(made) - {"SLKD"}:
        del made[name]["datasets"]["val"]
    made["without_conversion"]["train"]["max_bad_steps"] = 2
    made["PSD"]["train"]["accumulate"] = made["gan"]["train"]["accumulate"] = 2
    made["gan"]["train"].update(AGAINST_IT)
    made["DCKD"]["train"]["transforms"] = {"invert": 1, "hflip": 1, "vflip": 0, "transpose": 0}
    return made


@pytest.mark.parametrize("backend", ["gloo", pytest.param("nccl", marks=TWO_GPUS)])
def test_two_processes_have_the_gradients_of_one_with_twice_the_batch(backend, methods, write, tmp_path):
    number, tolerance = (1, 1e-4) if backend == "nccl" else (0, 1e-5)  # the kernels of a GPU add in an order of their own
    torch.manual_seed(7)
    clean, noise = torch.rand(4, 3, 32, 32), torch.tensor([0.02, 0.3, 0.1, 0.5]).view(4, 1, 1, 1)
    # samples that differ much: a ratio of means is then no mean of ratios
    torch.save({"gt": clean, "lq": (clean * (1 - noise) + noise * torch.rand(clean.shape))}, tmp_path / "batch.pt")
    files = [write({**opt, "num_gpu": number}, f"{name}.yml") for name, opt in methods.items()]
    several.in_one_and_in_two(str(tmp_path), files, backend)
    for name in methods:
        one, log, said = torch.load(tmp_path / f"{name}_0_of_1.pt")
        two = [torch.load(tmp_path / f"{name}_{rank}_of_2.pt") for rank in (0, 1)]
        if name == "without_conversion":  # a gradient that is not finite is traced in both
            start, end = (
                "2 steps in a row had numbers that are not finite; the last, iteration 4: ",
                "the gradient of l_broken is not finite",
            )
            assert said == f"{start}{end}; images: 0.png, 1.png, 2.png, 3.png"
            assert two[0][2] == two[1][2] == f"{start}process 1: {end}; images: 1.png, 3.png"
        assert two[0][1] == pytest.approx(log, rel=1e-4), name  # what is logged, and scores
        assert backend == "nccl" or all(two[0][1][key] == value for key, value in log.items() if "/" in key)
        for step, mine in enumerate(one):
            size = float(torch.stack([grad.norm() for grad in mine.values()]).norm())
            for theirs, *_ in two:
                assert theirs[step].keys() == mine.keys(), name
                differences = {key: float((theirs[step][key] - grad).abs().max()) for key, grad in mine.items()}
                assert max(differences.values()) <= tolerance * max(size, 1), (name, step, size, differences)


def launch(file, folder, *arguments):
    command = [*TORCHRUN, "-m", "kd_plugins.cli", "train", "-opt", file, "--launcher", "pytorch", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    log = open(folder / "log.txt", "a")  # noqa: SIM115 (the process has it from here)
    return subprocess.Popen(command, cwd=folder, env=environment, stderr=log, stdout=log, start_new_session=True)


def workers(process):
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def wait_for(file, process, folder):
    while not file.exists():
        assert process.poll() is None, (folder / "log.txt").read_text()[-3000:]
        time.sleep(0.01)


def test_two_processes_train_a_compiled_student_as_they_train_it_uncompiled(options, write, tmp_path):
    student = {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_block": 1, "upscale": 1}
    options.update(model_type="DistillationModel", network_g=student, teacher=None, init="random", features=None, num_threads=1)
    options["logger"]["use_tb_logger"] = False
    options["train"].update(pixel_opt={"type": "L1Loss"}, total_iter=2)
    weights = []
    for compiled in (True, False):
        file = write({**options, "name": f"run_{compiled}", "compile": compiled}, f"{compiled}.yml")
        assert launch(file, tmp_path).wait() == 0, (tmp_path / "log.txt").read_text()[-3000:]
        weights.append(torch.load(tmp_path / f"experiments/run_{compiled}/models/net_g_latest.pth", weights_only=True)["params"])
    assert "graphs in iteration 1, which took" in (tmp_path / "log.txt").read_text()
    assert weights[0].keys() == weights[1].keys()
    assert all((value - weights[1][key]).abs().max() < 1e-4 for key, value in weights[0].items())


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the processes in /proc")
def test_torchrun_killed_then_one_process_signalled_and_the_same_bits_at_the_end(options, with_validation, write, tmp_path):
    stages = [{"until": 3, "batch_size_per_gpu": 4}, {"gt_size": 24}]
    options["datasets"]["train"].update(dataset_enlarge_ratio=2, gt_size=16, stages=stages)
    options["logger"].update(use_tb_logger=False, print_freq=1)
    options["train"].update(total_iter=16, accumulate=2, **AGAINST_IT)
    options["network_d"] = DISCRIMINATOR
    options["train"]["scheduler"]["periods"] = [100]
    options["val"].update(val_freq=15)
    file = write(options)
    states = tmp_path / "experiments/tiny/training_states"

    process = launch(file, tmp_path)
    wait_for(states / "2.state", process, tmp_path)
    for pid in [*workers(process), process.pid]:  # torchrun's end alone would not be that of the run
        os.kill(pid, signal.SIGKILL)
    process.wait()

    process = launch(file, tmp_path, "--auto_resume")
    wait_for(states / "6.state", process, tmp_path)
    os.kill(workers(process)[1], signal.SIGUSR1)
    assert process.wait() == 1  # torchrun's own
    log = (tmp_path / "log.txt").read_text()
    newest = max(int(state.stem) for state in states.iterdir())
    assert 6 <= newest < 16
    assert log.count(f"basicsr train: stopped by SIGUSR1. Saved at iteration {newest}") == 2  # both, at the same step
    assert "exitcode  : 75" in log

    for name, arguments in (("tiny", ["--auto_resume"]), ("straight", [])):
        file = write({**options, "name": name})
        assert launch(file, tmp_path, *arguments).wait() == 0, (tmp_path / "log.txt").read_text()[-3000:]
    for label in ("net_g", "net_scm", "net_d"):
        mine, theirs = (torch.load(tmp_path / f"experiments/{name}/models/{label}_16.pth") for name in ("tiny", "straight"))
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[kind][key], value) for kind in theirs for key, value in theirs[kind].items())
    states = [torch.load(tmp_path / f"experiments/{name}/training_states/16.state") for name in ("tiny", "straight")]
    assert len(states[0]["random_beside"]) == 1 and not torch.equal(
        states[0]["random"]["torch"], states[0]["random_beside"][0]["torch"]
    )
    assert states[0]["best"] == states[1]["best"]


def test_a_launcher_that_did_not_start_the_process_is_refused(options, write, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for variable in ("RANK", "SLURM_PROCID", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(variable, raising=False)
    for launcher, said in (("pytorch", "RANK is not set"), ("slurm", "SLURM_PROCID is not set, expected to be started by `srun`")):
        assert main(["train", "-opt", write(options), "--launcher", launcher]) == 2
        assert said in capsys.readouterr().err
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="expected --launcher pytorch"):
        distributed.init_process_group("none", options)
    assert not (tmp_path / "experiments").exists()


def test_networks_that_several_processes_cannot_train_as_they_are(options, write, tmp_path):
    options.update(model_type="DistillationModel", teacher=None, init="random", features=None)
    options["train"]["pixel_opt"] = {"type": "L1Loss"}
    torch.multiprocessing.spawn(several.joined, (2, several.odd_networks, str(tmp_path), write(options)), nprocs=2)
    for rank in (0, 1):
        norm, idle, looked_for = (tmp_path / f"said_{rank}.txt").read_text().splitlines()
        assert norm.startswith("Odd: norm is a batch norm, which PyTorch cannot share between processes on the CPU")
        assert idle.startswith("net_g: 2 of its parameters have no gradient (idle.weight, idle.bias")
        assert "`find_unused_parameters: true`" in idle and looked_for == "trained"


def test_slurm_names_the_place_to_meet_at(tmp_path):
    script = tmp_path / "scontrol"  # Slurm's own is on its nodes only
    script.write_text('#!/bin/sh\n[ "$*" = "show hostname node[1-2]" ] && printf "127.0.0.1\\nnode2\\n"')
    script.chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = (
        "import kd_plugins; from kd_plugins.distributed import init_process_group, rank, world_size; import torch.distributed as d;"
        f"init_process_group('slurm', {{'num_gpu': 0, 'dist_params': {{'backend': 'nccl', 'port': {port}}}}});"
        "print((rank(), world_size()), d.get_backend())"
    )
    slurm = {"SLURM_PROCID": "0", "SLURM_NTASKS": "1", "SLURM_NODELIST": "node[1-2]", "SLURM_LOCALID": "0"}
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **slurm, **path}, capture_output=True, text=True)
    assert done.stdout.strip() == "(0, 1) gloo", done.stderr
