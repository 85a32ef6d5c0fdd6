"""`basicsr train`."""

from __future__ import annotations

import argparse
import os

from kd_plugins.run_options import add_run_arguments

HELP = "train the student of an option file"
EXAMPLE = "basicsr train -opt distill_derain --force_yml train:total_iter=1000"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what a run takes."""
    add_run_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Train in the working folder."""
    from kd_plugins.train import train_pipeline
    from kd_plugins.training.interrupt import Interrupt

    with Interrupt(at_once=True):
        train_pipeline(os.getcwd(), args)
    return 0
