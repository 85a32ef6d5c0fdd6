"""`basicsr distill`: from a teacher to a student on a device."""

from __future__ import annotations

import argparse
import importlib.util
import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from kd_plugins.options import OptionError

if TYPE_CHECKING:
    from kd_plugins.distill.plan import Request

HELP = "make a student of a teacher, train, export and measure it"
EXAMPLE = "basicsr distill -m restormer_derain --photos builtin --degradation rain --flops 0.2 --budget 10m -o out"
_TARGETS = {
    "flops": "share of the teacher's FLOPs",
    "params": "share of its parameters",
    "latency": "share of its time, measured here",
    "ms": "milliseconds that an image of --size takes, measured here",
}
_BUDGET = "10m"
_EXPORT = ("onnx", "onnxruntime", "onnxscript")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what is distilled, on what, to what, and for how long."""
    parser.add_argument(
        "-o", "--output", required=True, type=Path, metavar="OUT", help="the folder; alone: go on with what is there"
    )
    parser.add_argument("-m", "--model", metavar="TEACHER", help="a checkpoint, a bundled teacher's name, or a block in YAML")
    data = parser.add_argument_group("images").add_mutually_exclusive_group()
    data.add_argument("--photos", metavar="FOLDER", help="clean photos, or `builtin`; with --degradation")
    data.add_argument("--pairs", nargs=2, metavar=("LQ", "GT"), help="folders of degraded and of clean images")
    data.add_argument("--unlabelled", metavar="FOLDER", help="degraded images alone")
    parser.add_argument(
        "--degradation", metavar="KIND", help="rain, noise:25, noise:5-50, blur, defocus, downsample:4, or a block in YAML"
    )
    target = parser.add_argument_group("the student; several values make several students").add_mutually_exclusive_group()
    for name, text in _TARGETS.items():
        target.add_argument(f"--{name}", nargs="+", type=float, metavar="X", help=text)
    parser.add_argument("--size", help="with --latency or --ms: of the image that is timed, 256 or 512x768 (height x width)")
    parser.add_argument("--recipe", choices=["hint", "logits"], help="default: hint for rain and blur, else logits")
    time = parser.add_mutually_exclusive_group()
    time.add_argument("--budget", metavar="TIME", help=f"of the training: 90s, 30m, 1h30m (default: {_BUDGET})")
    time.add_argument("--steps", type=int, metavar="N", help="of the training")
    int8 = parser.add_argument_group("int8, with its loss measured on the held-out images").add_argument
    int8("--int8", action="store_true", help="also student_int8.onnx; an output folder that is done gets it, too")
    int8("--max-loss", type=float, metavar="DB", help="how much PSNR it may lose (default: 0.1)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, or auto: a GPU where there is one (default)")
    parser.add_argument("--threads", type=int, metavar="N", help="of the CPU")


def run(args: argparse.Namespace) -> int:
    """Distil.

    Returns:
        0; 1 where the student in int8 that was asked for could not be made.

    Raises:
        OptionError: arguments that do not go together.
        ValueError, FileNotFoundError, KeyError: see `Distillation`.
    """
    found = _targets(args)
    begun = sorted(file.parent for pattern in ("options.yml", "*/options.yml") for file in args.output.glob(pattern))
    _check(args, bool(found), bool(begun))

    import logging

    from basicsr.utils import get_root_logger

    from kd_plugins.deploy.files import refuse_place
    from kd_plugins.deploy.model import find_device
    from kd_plugins.deploy.quantize import MAX_LOSS
    from kd_plugins.distill.stages import Distillation
    from kd_plugins.distill.words import read_time
    from kd_plugins.report.make import write_report

    device = find_device(args.device).type
    refuse_place(args.output / "report.html", "-o")
    seconds = read_time(args.budget or _BUDGET)
    folders = {}
    for target in found:
        (name, value), *_ = target.items()
        folders[args.output / f"{name}_{value:g}" if len(found) > 1 else args.output] = target
    say = partial(print, flush=True)
    get_root_logger().setLevel(logging.WARNING)  # but while it trains
    max_loss = (MAX_LOSS if args.max_loss is None else args.max_loss) if args.int8 else None
    students = [Distillation(folder, device, say) for folder in folders or begun]
    for student, target in zip(students, folders.values(), strict=False):  # all, before anything is written
        student.plan(_request(args, target, device), _command(args, target))
    for student in students:  # all, before one is trained
        student.write_options(args.steps, seconds)
    complete = [student.run(max_loss) for student in students]
    if len(students) > 1:
        say(f"Report: {write_report([str(student.out) for student in students], args.output / 'report.html', device)}")
    return 0 if all(complete) else 1


def _targets(args: argparse.Namespace) -> list[dict[str, float]]:
    timing = {"size": args.size} if args.size else {}
    return [{name: value, **timing} for name in _TARGETS for value in getattr(args, name) or ()]


def _check(args: argparse.Namespace, has_target: bool, is_begun: bool) -> None:
    """Hold the arguments to each other, before anything heavy is imported."""
    if args.steps is not None and args.steps < 1:
        raise OptionError(f"--steps: {args.steps}, expected a number of at least 1")
    if args.threads is not None and args.threads < 1:
        raise OptionError(f"--threads: {args.threads}, expected a number of at least 1")
    if args.max_loss is not None and not args.int8:
        raise OptionError(f"--max-loss: {args.max_loss:g}, expected --int8 beside it")
    if args.max_loss is not None and not args.max_loss > 0:
        raise OptionError(f"--max-loss: {args.max_loss:g}, expected a number of dB above 0 (inf: any loss)")
    if args.int8 and (missing := [name for name in _EXPORT if importlib.util.find_spec(name) is None]):
        raise OptionError(f"--int8: {missing[0]} is not installed: pip install kd_plugins[export]")
    if args.size and not (args.latency or args.ms):
        raise OptionError(f"--size: {args.size}, expected --latency or --ms beside it")
    images = args.photos or args.pairs or args.unlabelled
    if is_begun and not (args.model or images or has_target):
        return
    missing = [flag for flag, value in (("-m", args.model), ("--photos", images), ("--flops", has_target)) if not value]
    if missing:
        others = {"-m": "", "--photos": ", --pairs or --unlabelled", "--flops": ", --params, --latency or --ms"}
        raise OptionError(f"missing: {'; '.join(flag + others[flag] for flag in missing)}")
    if args.photos and not args.degradation:
        raise OptionError("--photos: expected --degradation beside it: rain, noise:25, blur, downsample:4")
    if args.degradation and not args.photos:
        raise OptionError(f"--degradation: {args.degradation}, expected --photos beside it")
    if args.recipe and args.unlabelled:
        raise OptionError(f"--recipe: {args.recipe}, expected none beside --unlabelled: the teacher's image is all there is")


def _request(args: argparse.Namespace, target: dict[str, float], device: str) -> Request:
    from kd_plugins.distill.plan import Request

    pairs = tuple(args.pairs) if args.pairs else None
    return Request(args.model, target, args.photos, args.degradation, pairs, args.unlabelled, args.recipe, device, args.threads)


def _command(args: argparse.Namespace, target: dict[str, float]) -> str:
    """The command line that a folder is begun with, as its option file has it."""
    words = ["basicsr", "distill", "-m", args.model]
    for name in ("photos", "pairs", "unlabelled", "degradation", "recipe", "steps", "budget", "threads"):
        if (value := getattr(args, name)) is not None:
            words += [f"--{name}", *(value if isinstance(value, list) else [str(value)])]
    for name, value in target.items():
        words += [f"--{name}", str(value)]
    return shlex.join(words)
