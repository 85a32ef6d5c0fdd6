"""Peak memory of one forward and backward of SpatialAffinityFeatureLoss (FAKD), pooled and whole, by the size of the feature.

python tools/benchmark_affinity.py [--sizes 32 64 128 256] [--channels 32 16] [--pooled 16 32] [--whole_up_to 64] [--device cuda]

Measured as tools/benchmark_attention.py does: a process for each number, the peak over what it held after a pass at 8 x 8. Prints
Markdown.
"""

import argparse

import torch
from benchmark_attention import child, peak  # beside this file

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
        size, pooled = args.one
        print(*peak(SpatialAffinityFeatureLoss(size=pooled or None), 8, size, args.channels, torch.device(args.device)))
        return
    where = torch.cuda.get_device_name() if args.device == "cuda" else "CPU"
    print(f"one sample, {args.channels[0]} and {args.channels[1]} channels, {where}, torch {torch.__version__}: MB (s)\n")
    print("| size |", " | ".join(f"`size: {size}`" for size in args.pooled), "| whole |\n|---|" + "---:|" * (len(args.pooled) + 1))
    for size in args.sizes:
        found = [child(__file__, size, pooled) for pooled in args.pooled]
        found += [child(__file__, size, 0)] if size <= args.whole_up_to else []
        cells = [f"{mega:.1f} ({seconds:.2f})" for mega, seconds in found]
        print(f"| {size}² |", " | ".join([*cells, ""][: len(args.pooled) + 1]), "|", flush=True)


if __name__ == "__main__":
    main()
