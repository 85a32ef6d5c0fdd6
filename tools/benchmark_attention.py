"""Peak memory of one forward and backward of CrossNetAttentionLoss, by the size of the feature map.

python tools/benchmark_attention.py [--sizes 32 64 128 256] [--channels 32 16] [--window 16] [--plain_up_to 64] [--device cuda]

Each size runs in a process of its own: on the CPU the peak is the growth of the process's resident memory over what it held after a
pass at 16 x 16, on CUDA the device's own count. Beside it, up to --plain_up_to, the spatial attention written plainly, which stores
N x N numbers. Prints Markdown.
"""

import argparse
import subprocess
import sys
import time
from functools import partial

import torch
from torch import Tensor

from kd_plugins.losses import CrossNetAttentionLoss
from kd_plugins.losses.cross_net_attention import gaussian_kernel_distance


def main() -> None:
    """Run every size in its own process, or one size in this one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64, 128, 256])
    parser.add_argument("--channels", type=int, nargs=2, default=[32, 16], help="the teacher's and the student's")
    parser.add_argument("--window", type=int, default=16)
    parser.add_argument("--plain_up_to", type=int, default=64)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)  # 'loss' or 'plain', and a size
    args = parser.parse_args()
    if args.one:
        loss = CrossNetAttentionLoss(crop=None, window=args.window)
        compare = loss if args.one[0] == "loss" else partial(plainly, loss.sigma)
        print(*peak(compare, 16, int(args.one[1]), args.channels, torch.device(args.device)))
        return
    c_t, c_s = args.channels
    where = torch.cuda.get_device_name() if args.device == "cuda" else "CPU"
    print(f"one sample, {c_t} and {c_s} channels, window {args.window}, {where}, torch {torch.__version__}\n")
    print("| size | positions | loss: MB | kB a position | s | plain spatial attention: MB |\n|---|---:|---:|---:|---:|---:|")
    for size in args.sizes:
        mega, seconds = child(__file__, "loss", size)
        plain = f"{child(__file__, 'plain', size)[0]:.1f}" if size <= args.plain_up_to else ""
        print(f"| {size}² | {size**2} | {mega:.1f} | {mega * 1000 / size**2:.2f} | {seconds:.2f} | {plain} |", flush=True)


def child(file: str, *one: object) -> tuple[float, float]:
    """The numbers of one process: megabytes, seconds."""
    command = [sys.executable, file, *sys.argv[1:], "--one", *map(str, one)]
    mega, seconds = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-2:]
    return float(mega), float(seconds)


def peak(compare, small: int, size: int, channels: list[int], device: torch.device) -> tuple[float, float]:
    """Peak megabytes of a forward and backward over what was held after a small one, and its seconds."""
    torch.set_num_threads(1)
    step(compare, small, channels, device)  # what torch loads at its first use
    before, start = held(device), time.perf_counter()
    step(compare, size, channels, device)
    return (held(device) - before) / 1e6, time.perf_counter() - start


def step(compare, size: int, channels: list[int], device: torch.device) -> None:
    """One forward and backward."""
    c_t, c_s = channels
    student, teacher = (torch.randn(1, c_t, size, size, device=device) for _ in range(2))
    raw = torch.randn(1, c_s, size, size, device=device, requires_grad=True)
    compare(student.requires_grad_(), teacher, raw).backward()


def held(device: torch.device) -> int:
    """Peak bytes so far."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated()
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def plainly(sigma: float, student: Tensor, teacher: Tensor, raw: Tensor) -> Tensor:
    """The formula as it is written: N x N numbers."""
    s, t = student.flatten(2), teacher.flatten(2)
    attended = (s @ torch.softmax(t.mT @ s / t.shape[1] ** 0.5, dim=-1).mT).view_as(teacher)
    return gaussian_kernel_distance(attended, teacher, sigma)


if __name__ == "__main__":
    main()
