"""Communication between the processes of a run, by the names of `torch.distributed`; in a run of one process it costs nothing."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from basicsr.utils.dist_util import get_dist_info, init_dist
from torch import Tensor, nn

_Value = TypeVar("_Value")
_SETS = {"pytorch": ("RANK", "torchrun --nproc_per_node=N"), "slurm": ("SLURM_PROCID", "srun")}


def init_process_group(launcher: str, opt: Mapping[str, Any]) -> None:
    """Join the processes that a launcher started: with nccl on GPUs, with gloo where `num_gpu` is 0 or there are none.

    Args:
        launcher: none, pytorch or slurm.
        opt: the options; with slurm, `dist_params` may name another backend and the port.

    Raises:
        ValueError: the launcher named is not the one that started this process.
    """
    if launcher == "none":
        if "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1":
            raise ValueError("--launcher none: torchrun started several processes of this run, expected --launcher pytorch")
        return
    variable, command = _SETS[launcher]
    if variable not in os.environ:
        raise ValueError(f"--launcher {launcher}: {variable} is not set, expected to be started by `{command}`")
    arguments = dict(opt.get("dist_params") or {}) if launcher == "slurm" else {}
    if opt.get("num_gpu") == 0:
        arguments["backend"] = "gloo"
    init_dist(launcher, **arguments)


def destroy_process_group() -> None:
    """Leave the group at the end of a run, when every process has reached it."""
    if dist.is_available() and dist.is_initialized():
        gc.collect()  # a DistributedDataParallel that outlives its group may wait for it without end
        dist.destroy_process_group()


def rank() -> int:
    """The rank of this process, from 0."""
    return get_dist_info()[0]


def world_size() -> int:
    """How many processes the run has."""
    return get_dist_info()[1]


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        mean = x.clone()
        dist.all_reduce(mean)
        return mean.div_(world_size())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return grad


def all_reduce_mean(x: Tensor) -> Tensor:
    """The mean of each entry over all processes, for losses that are not a mean over samples.

    The gradient passes unchanged to this process's entry: the parameters' gradients are averaged over the processes afterwards,
    which makes it the gradient of the loss of the whole batch. Every process has to call this, in the same order.
    """
    return x if world_size() == 1 else _Mean.apply(x)  # type: ignore[return-value]


def all_gather_batch(x: Tensor) -> Tensor:
    """The samples of all processes, in the order in which a single process would have read them; without gradient.

    Args:
        x: (N, ...), of one shape in all processes.

    Returns:
        (N * world size, ...); `local_batch` takes this process's samples out of it.
    """
    if world_size() == 1:
        return x
    parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(world_size())]
    dist.all_gather(parts, x.detach().contiguous())
    return torch.stack(parts, 1).flatten(0, 1)


def local_batch(x: Tensor) -> Tensor:
    """This process's samples of a batch in the order of `all_gather_batch`."""
    return x[rank() :: world_size()]


def all_reduce_max(number: int) -> int:
    """The largest of the processes' numbers."""
    if world_size() == 1:
        return number
    device = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")
    flag = torch.tensor(number, device=device)
    dist.all_reduce(flag, dist.ReduceOp.MAX)
    return int(flag)


def all_hold(flags: Tensor) -> list[bool]:
    """Which flags are true in all processes: (K,) of bool, on the device that the processes communicate by."""
    if world_size() > 1:
        flags = flags.int()
        dist.all_reduce(flags, dist.ReduceOp.MIN)
    return [bool(flag) for flag in flags.tolist()]


def all_gather_objects(value: _Value) -> list[_Value]:
    """The values of all processes, in the order of their ranks; anything that can be pickled."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def broadcast_object(value: _Value) -> _Value:
    """The value of rank 0; the others wait for it."""
    if world_size() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


def broadcast_parameters(parameters: Iterable[Tensor]) -> None:
    """Give parameters, or buffers, outside DistributedDataParallel the values of rank 0."""
    for parameter in parameters if world_size() > 1 else ():
        dist.broadcast(parameter.data, 0)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Average the gradients of parameters outside DistributedDataParallel."""
    for parameter in parameters if world_size() > 1 else ():
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad)
            parameter.grad /= world_size()


def convert_sync_batchnorm(net: nn.Module, device: torch.device) -> nn.Module:
    """Let batch norms share their statistics between the processes.

    Raises:
        ValueError: the network has batch norms, which PyTorch cannot share on this device.
    """
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    names = [name for name, module in net.named_modules() if isinstance(module, kinds)]
    if not names or world_size() == 1:
        return net
    if device.type != "cuda":
        raise ValueError(
            f"{type(net).__name__}: {names[0]} is a batch norm, which PyTorch cannot share between processes on the CPU; "
            "expected one process, GPUs, or a network without batch norms"
        )
    return nn.SyncBatchNorm.convert_sync_batchnorm(net)


def unwrap_model(net: nn.Module) -> nn.Module:
    """The network inside DataParallel, DistributedDataParallel or torch.compile."""
    net = net.module if isinstance(net, (nn.DataParallel, nn.parallel.DistributedDataParallel)) else net
    return getattr(net, "_orig_mod", net)
