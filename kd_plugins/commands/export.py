"""`basicsr export`: a model written for other programs, and compared with what it was."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "write a model as .onnx, .pt, .pt2, .xml (OpenVINO), .safetensors or .pth, and compare it with what it was"
EXAMPLE = "basicsr export -m restormer_derain_student -o student.onnx"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the model, the file, and its precision."""
    parser.add_argument("-m", "--model", required=True, metavar="MODEL", help="a checkpoint, or the name of a bundled one")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FILE", help="its ending says the form")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    parser.add_argument("--fp16", action="store_true", help="compute in half precision (.xml, weights: keep weights in it)")


def run(args: argparse.Namespace) -> int:
    """Write the file, compare it, and put it in its place if it is near enough.

    Raises:
        ValueError: a model or a file that cannot be used, or an export that differs from the model.
    """
    from kd_plugins.deploy.export import aside, export_checked
    from kd_plugins.deploy.model import load_model

    with aside(args.output, args.overwrite) as path:
        model = load_model(args.model)
        found = export_checked(model, path, args.fp16)
        size = sum(file.stat().st_size for file in path.parent.iterdir()) / 1e6
    print(f"{args.output}: {size:.2f} MB, scale {model.scale}, {model.channels} channels, any height and width")
    print("Against PyTorch, in units of [0, 1]:", *found, sep="\n  ")
    return 0
