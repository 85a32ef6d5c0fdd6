"""`basicsr export`: a model written for other programs, and compared with what it was."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kd_plugins.deploy.model import Model
    from kd_plugins.deploy.parity import Difference

HELP = "write a model as .onnx, .pt, .pt2, .xml (OpenVINO), .safetensors or .pth, and compare it with what it was"
EXAMPLE = "basicsr export -m restormer_derain_student -o student.onnx"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the model, the file, its precision, and what int8 is made and measured with."""
    parser.add_argument("-m", "--model", required=True, metavar="MODEL", help="a checkpoint, or the name of a bundled one")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FILE", help="its ending says the form")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    parser.add_argument("--fp16", action="store_true", help="compute in half precision (.xml, weights: keep weights in it)")
    add = parser.add_argument_group("int8 (.onnx)").add_argument
    add("--int8", action="store_true", help="compute in 8 bits, but for the layers that lose most by it")
    add("--calibrate", type=Path, metavar="FOLDER", help="images as the model gets them, at least 2; one of four measures the loss")
    add("--gt", type=Path, metavar="FOLDER", help="what it is to make of them, under the same names: the loss is against it")
    add("--max-loss", type=float, metavar="DB", help="how much PSNR int8 may lose (default: 0.1)")


def run(args: argparse.Namespace) -> int:
    """Write the file, compare it, and put it in its place if it is near enough.

    Raises:
        ValueError: a model, a file or images that cannot be used, or an export that differs from the model.
    """
    _check_int8(args)
    from kd_plugins.deploy.export import aside, export_checked
    from kd_plugins.deploy.model import load_model

    with aside(args.output, args.overwrite) as path:
        model = load_model(args.model)
        found = _export_int8(args, model, path) if args.int8 else export_checked(model, path, args.fp16)
        size = sum(file.stat().st_size for file in path.parent.iterdir()) / 1e6
    print(f"{args.output}: {size:.2f} MB, scale {model.scale}, {model.channels} channels, any height and width")
    print("Against PyTorch, in units of [0, 1]:", *found, sep="\n  ")
    return 0


def _check_int8(args: argparse.Namespace) -> None:
    if not args.int8:
        for flag in ("calibrate", "gt", "max_loss"):
            if getattr(args, flag) is not None:
                raise ValueError(f"--{flag.replace('_', '-')} {getattr(args, flag)}: is for --int8, which is not given")
        return
    if args.fp16:
        raise ValueError("--int8 --fp16: two precisions, expected one")
    if args.output.suffix.lower() != ".onnx":
        raise ValueError(f"--int8 -o {args.output}: expected a name that ends in .onnx: no other form is written in int8")
    if args.calibrate is None:
        raise ValueError("--int8: expected --calibrate FOLDER, with images as the model gets them")
    if args.max_loss is not None and not args.max_loss > 0:
        raise ValueError(f"--max-loss {args.max_loss:g}: expected a number of dB above 0 (inf: any loss)")


def _export_int8(args: argparse.Namespace, model: Model, path: Path) -> list[Difference]:
    from kd_plugins.deploy.calibration import read_samples
    from kd_plugins.deploy.export import export_checked
    from kd_plugins.deploy.exported import load_exported
    from kd_plugins.deploy.parity import compare
    from kd_plugins.deploy.quantize import MAX_LOSS, describe, quantize

    samples = read_samples(args.calibrate, args.gt, model.channels, model.scale)
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "float.onnx"
        export_checked(model, plain)
        quantized = quantize(plain, path, samples, MAX_LOSS if args.max_loss is None else args.max_loss)
        print(describe(quantized, samples, args.gt is not None, (path.stat().st_size, plain.stat().st_size)))
    assert model.net is not None
    return compare(load_exported(path), model.net, model.channels)
