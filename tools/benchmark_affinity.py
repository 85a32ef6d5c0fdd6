"""Peak memory of one forward and backward of SpatialAffinityFeatureLoss (FAKD), pooled and whole, by the size of the feature.

python tools/benchmark_affinity.py [--sizes 32 64 128 256] [--channels 32 16] [--pooled 16 32] [--whole_up_to 64] [--device cuda]

Measured as tools/benchmark_attention.py does: a process for each number, the peak over what it held after a pass at 8 x 8. Prints
Markdown.
"""

import argparse
import subprocess
import sys
import time

import torch
from benchmark_attention import held, step  # beside this file

from kd_plugins.losses import SpatialAffinityFeatureLoss


def main() -> None:
    """Run every pass in its own process, or one in this one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64, 128, 256])
    parser.add_argument("--channels", type=int, nargs=2, default=[32, 16], help="the teacher's and the student's")
    parser.add_argument("--pooled", type=int, nargs="+", default=[16, 32], help="the loss's `size`")
    parser.add_argument("--whole_up_to", type=int, default=64)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--one", type=int, nargs=2, help=argparse.SUPPRESS)  # a size, and the loss's `size` (0: none)
    args = parser.parse_args()
    if args.one:
        print(*peak(args.one[0], args.one[1] or None, args.channels, torch.device(args.device)))
        return
    where = torch.cuda.get_device_name() if args.device == "cuda" else "CPU"
    print(f"one sample, {args.channels[0]} and {args.channels[1]} channels, {where}, torch {torch.__version__}: MB (s)\n")
    print("| size |", " | ".join(f"`size: {size}`" for size in args.pooled), "| whole |\n|---|" + "---:|" * (len(args.pooled) + 1))
    for size in args.sizes:
        cells = [child(size, pooled) for pooled in args.pooled]
        cells.append(child(size, 0) if size <= args.whole_up_to else "")
        print(f"| {size}² |", " | ".join(cells), "|", flush=True)


def child(size: int, pooled: int) -> str:
    """The numbers of one process."""
    command = [sys.executable, __file__, *sys.argv[1:], "--one", str(size), str(pooled)]
    mega, seconds = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-2:]
    return f"{float(mega):.1f} ({float(seconds):.2f})"


def peak(size: int, pooled: int | None, channels: list[int], device: torch.device) -> tuple[float, float]:
    """Peak megabytes over what was held before the inputs were made, and seconds."""
    torch.set_num_threads(1)
    loss = SpatialAffinityFeatureLoss(size=pooled)
    step(loss, 8, channels, device)  # what torch loads at its first use
    before, start = held(device), time.perf_counter()
    step(loss, size, channels, device)
    after = held(device)
    return (after - before) / 1e6, time.perf_counter() - start


if __name__ == "__main__":
    main()
