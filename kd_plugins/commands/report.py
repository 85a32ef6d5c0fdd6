"""`basicsr report`: a page on a run."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "write one HTML page about a run: student against teacher, curves, and where they differ most"
EXAMPLE = "basicsr report experiments/distill_derain"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "runs", nargs="+", metavar="EXPERIMENT", help="a run's folder, or its name in experiments/; several make one page"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="the page (default: report.html in the run's folder)")
    parser.add_argument("--images", type=int, default=20, metavar="N", help="images of each validation set to score (default: 20)")
    parser.add_argument("--show", type=int, default=3, metavar="N", help="images to show (default: 3)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps, or auto (default: cpu)")


def run(args: argparse.Namespace) -> int:
    """Write the page.

    Raises:
        OptionError: see `write_report`; a number below 1.
    """
    import logging

    from basicsr.utils import get_root_logger

    from kd_plugins.options import OptionError
    from kd_plugins.report.make import write_report

    for name in ("images", "show"):
        if getattr(args, name) < 1:
            raise OptionError(f"--{name}: {getattr(args, name)}, expected a number of at least 1")
    get_root_logger().setLevel(logging.WARNING)
    file = write_report(args.runs, args.output, args.device, args.images, args.show, print)
    print(f"Report: {file}")
    return 0
