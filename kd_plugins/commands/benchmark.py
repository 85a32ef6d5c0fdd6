"""`basicsr benchmark`: what models take, side by side."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

HELP = "time models side by side, with memory, parameters and FLOPs, as they are, compiled or exported"
EXAMPLE = "basicsr benchmark -m restormer_derain -m restormer_derain_student -m student.onnx --size 256 512x768"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    text = "a checkpoint, the name of a bundled one, an exported file that you trust (.onnx, .pt, .pt2, .xml), a {YAML block}"
    add("-m", "--model", required=True, action="append", help=f"{text}; once for each model, the first is what they are related to")
    add("--size", nargs="+", default=["256"], help="of the images: 256, or 512x768 (height x width)")
    add("--device", default="cpu", help="cpu, cuda, cuda:1, mps; auto: a GPU where there is one (default: cpu)")
    add("--threads", type=int, help="of the CPU (default: as many as PyTorch takes)")
    add("--repeats", type=int, default=10, help="how often each is timed (default: 10)")
    add("--compile", action="store_true", help="also compiled by PyTorch")
    add("--channels_last", action="store_true", help="also in that memory layout")
    add("--bf16", action="store_true", help="also in bfloat16 (autocast)")
    add("--fp16", action="store_true", help="also in float16 (autocast)")
    add("--json", type=Path, metavar="FILE", help="write the numbers there, too")


def run(args: argparse.Namespace) -> int:
    """Print the tables.

    Returns:
        0; 1 where nothing runs here.

    Raises:
        ValueError: a model, a size or a device that there is not.
    """
    from kd_plugins.atomic_files import write_text
    from kd_plugins.deploy.benchmark import as_json, as_markdown, benchmark, describe_here
    from kd_plugins.deploy.files import refuse_place
    from kd_plugins.deploy.model import find_device
    from kd_plugins.deploy.variants import variants
    from kd_plugins.metrics.latency import read_size

    for name in ("threads", "repeats"):
        if (value := getattr(args, name)) is not None and value < 1:
            raise ValueError(f"--{name}: {value}, expected a whole number of at least 1")
    if args.json and not args.json.parent.is_dir():
        raise ValueError(f"--json: {args.json}, but there is no folder {args.json.parent}")
    if args.json:
        refuse_place(args.json, "--json")
    try:
        sizes = list(dict.fromkeys(read_size(size) for size in args.size))
    except ValueError as error:
        raise ValueError(f"--{error}") from None
    device = str(find_device(args.device))
    machine = describe_here(device, args.threads)
    precisions = [name for name in ("bf16", "fp16") if getattr(args, name)]
    wanted = variants(args.model, device, precisions, args.channels_last, args.compile)
    left_out: list[str] = []
    measured = []
    for each in benchmark(wanted, sizes, args.threads, args.repeats, left_out.append):
        measured.append(each)
        print(f"{len(measured)} of {len(wanted) * len(sizes)} measured", end="\r", file=sys.stderr)
    print(as_markdown(measured, f"{machine['device']}, {machine['processor']}, PyTorch {machine['torch']}"))
    for sentence in left_out:
        print(f"\n{sentence}")
    if args.json:
        write_text(args.json, json.dumps(as_json(measured, {**machine, "repeats": args.repeats}), indent=2) + "\n")
    return 0 if measured else 1
