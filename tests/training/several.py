"""What tests run in several processes; a module of its own, since each of them imports it."""

import copy
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

import kd_plugins  # noqa: F401  (before basicsr)

from basicsr.data import build_dataloader, build_dataset  # isort: skip
from basicsr.models import build_model  # isort: skip
from basicsr.utils.registry import ARCH_REGISTRY, LOSS_REGISTRY  # isort: skip
from kd_plugins import distributed
from kd_plugins.run_options import parse_options
from kd_plugins.training.bad_steps import BadSteps


def joined(rank, size, work, folder, *arguments, backend="gloo"):
    """Work as one of several processes."""
    if backend == "nccl":
        torch.cuda.set_device(rank)
    dist.init_process_group(backend, init_method=f"file://{folder}/meeting", rank=rank, world_size=size)
    work(rank, size, folder, *arguments)
    distributed.destroy_process_group()


def steps(rank, size, folder, files):
    """Two steps of each option file on this process's part of a batch: what the gradients were goes to a file."""
    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False  # 10 bits are no gradient to compare with
    LOSS_REGISTRY._obj_map["BrokenLoss"] = BrokenLoss
    batch = torch.load(f"{folder}/batch.pt")
    for file in files:
        opt, _ = parse_options(folder, True, ["-opt", file])
        opt["dist"] = size > 1
        torch.manual_seed(rank)  # so each would start elsewhere
        model = build_model(opt)
        if getattr(model, "history", None):  # a copy of the student has no distance from it: nothing to divide by
            for parameter in model.history.net.parameters():
                parameter.mul_(1.2)
        nets = {label: model.get_bare_model(net) for label, net in model.networks().items()}
        found = []
        for iteration in (1, 2):
            model.feed_data({key: distributed.local_batch(value) for key, value in batch.items()})
            torch.manual_seed(iteration)
            model.optimize_parameters(iteration)
            named = {f"{label}.{name}": p.grad for label, net in nets.items() for name, p in net.named_parameters()}
            found.append({name: grad.to("cpu", copy=True) for name, grad in named.items() if grad is not None})
        log = model.get_current_log()
        before = [p.clone() for p in model.net_g.parameters()]
        broken = batch["lq"].clone()
        broken[1] = float("nan")  # of the second process, where there are two
        model.feed_data({key: distributed.local_batch(value) for key, value in {**batch, "lq": broken}.items()})
        model.optimize_parameters(3)
        assert model.updater.bad_steps == 1
        assert all(torch.equal(a, b) for a, b in zip(before, model.net_g.parameters(), strict=True))
        said = bad_gradient(model, batch) if "broken" in model.terms else ""
        if "val" in opt["datasets"]:
            loader = build_dataloader(build_dataset(opt["datasets"]["val"]), opt["datasets"]["val"])
            model.validation(loader, 3, None)
            for role, scores in model.validator.scores["small"].items():
                log = {**log, **{f"{role}/{metric}": float(value) for metric, value in scores.items()}}
        torch.save((found, log, said), f"{folder}/{Path(file).stem}_{rank}_of_{size}.pt")
    del LOSS_REGISTRY._obj_map["BrokenLoss"]


def bad_gradient(model, batch):
    """What a run says to a second bad step, whose loss is finite; the next one is good."""
    dark = batch["lq"].clone()
    dark[1] = 0
    names = ["0.png", "1.png", "2.png", "3.png"]
    good = {**{key: distributed.local_batch(value) for key, value in batch.items()}, "lq_path": distributed.local_batch(names)}
    model.feed_data({**good, "lq": distributed.local_batch(dark)})
    said = ""
    try:
        model.optimize_parameters(4)
    except BadSteps as stop:
        said = str(stop)
    model.feed_data(good)
    model.optimize_parameters(5)
    assert model.updater.bad_steps == 0
    return said


class BrokenLoss(nn.Module):
    """A loss of 0, whose gradient is not a number at black images."""

    def forward(self, student, teacher, lq):
        difference, dark = (student - student.detach()).abs(), lq.flatten(1).amax(1) == 0
        return difference[dark].sqrt().sum() + difference[~dark].sum()


class Odd(nn.Module):
    """A network with a parameter that nothing uses, or with a batch norm."""

    def __init__(self, norm=False):
        super().__init__()
        self.used = nn.Conv2d(3, 3, 3, padding=1)
        self.idle = nn.Conv2d(3, 3, 1)
        self.norm = nn.BatchNorm2d(3) if norm else nn.Identity()

    def forward(self, x):
        return self.norm(self.used(x))


def odd_networks(rank, size, folder, file):
    """What two processes say to networks that they cannot train as they are."""
    ARCH_REGISTRY._obj_map["Odd"] = Odd
    opt, _ = parse_options(folder, True, ["-opt", file])
    opt["dist"] = True
    batch = {key: torch.rand(2, 3, 8, 8) for key in ("lq", "gt")}
    said = []
    for keys in ({"network_g": {"type": "Odd", "norm": True}}, {}, {"find_unused_parameters": True}):
        try:
            model = build_model({**copy.deepcopy(opt), "network_g": {"type": "Odd"}, **keys})
            for iteration in (1, 2):
                model.feed_data(batch)
                model.optimize_parameters(iteration)
            said.append("trained")
        except ValueError as error:
            said.append(str(error))
    Path(folder, f"said_{rank}.txt").write_text("\n".join(said))


def in_one_and_in_two(folder, files, backend):
    """`steps` in one process, then in two of them."""
    steps(0, 1, folder, files)
    mp.spawn(partial(joined, backend=backend), (2, steps, folder, files), nprocs=2)
