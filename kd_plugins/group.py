"""What the processes of a run tell each other. In a run of one process every function here does nothing, at no cost."""

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


def join(launcher: str, opt: Mapping[str, Any]) -> None:
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


def leave() -> None:
    """At the end of a run, when every process has come to it."""
    if dist.is_available() and dist.is_initialized():
        gc.collect()  # a DistributedDataParallel that outlives its group may wait for it without end
        dist.destroy_process_group()


def place() -> tuple[int, int]:
    """The number of this process, from 0, and how many there are."""
    return get_dist_info()


def alone() -> bool:
    """Whether this is the only process of the run."""
    return place()[1] == 1


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        mean = x.clone()
        dist.all_reduce(mean)
        return mean.div_(place()[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return grad


def mean_over_processes(x: Tensor) -> Tensor:
    """For losses that are no mean over samples: the mean of each entry over all processes.

    The gradient is passed to this process's entry as it is: the parameters' gradients are averaged over the processes afterwards,
    so what remains is the gradient of the loss of the whole batch. Every process has to call it, in the same order.
    """
    return x if alone() else _Mean.apply(x)  # type: ignore[return-value]


def whole_batch(x: Tensor) -> Tensor:
    """The samples of all processes, in the order in which one process would have read them; without gradient.

    Args:
        x: (N, ...), of one shape in all processes.

    Returns:
        (N * processes, ...); those of this process are every so many-th (`own_part`).
    """
    if alone():
        return x
    parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(place()[1])]
    dist.all_gather(parts, x.detach().contiguous())
    return torch.stack(parts, 1).flatten(0, 1)


def own_part(x: Tensor) -> Tensor:
    """Of a batch in the order of `whole_batch`, this process's samples."""
    rank, size = place()
    return x[rank::size]


def largest(number: int) -> int:
    """The largest of the processes' numbers."""
    if alone():
        return number
    device = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")
    flag = torch.tensor(number, device=device)
    dist.all_reduce(flag, dist.ReduceOp.MAX)
    return int(flag)


def gathered(value: _Value) -> list[_Value]:
    """The values of all processes, by their number; anything that can be pickled."""
    if alone():
        return [value]
    values: list[Any] = [None] * place()[1]
    dist.all_gather_object(values, value)
    return values


def first_says(value: _Value) -> _Value:
    """What process 0 has here."""
    if alone():
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


def start_equal(parameters: Iterable[nn.Parameter]) -> None:
    """Give parameters that no DistributedDataParallel looks after the values of process 0."""
    for parameter in parameters if not alone() else ():
        dist.broadcast(parameter.data, 0)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Average the gradients of parameters that no DistributedDataParallel looks after."""
    for parameter in parameters if not alone() else ():
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad)
            parameter.grad /= place()[1]


def one_batch_norm(net: nn.Module, device: torch.device) -> nn.Module:
    """Let batch norms see the batches of all processes as one.

    Raises:
        ValueError: there are some, and PyTorch cannot on this device.
    """
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    names = [name for name, module in net.named_modules() if isinstance(module, kinds)]
    if not names or alone():
        return net
    if device.type != "cuda":
        raise ValueError(
            f"{type(net).__name__}: {names[0]} is a batch norm, which PyTorch cannot share between processes on the CPU; "
            "expected one process, GPUs, or a network without batch norms"
        )
    return nn.SyncBatchNorm.convert_sync_batchnorm(net)
