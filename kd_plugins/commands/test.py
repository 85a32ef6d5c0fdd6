"""`basicsr test`."""

from __future__ import annotations

import argparse
import os

from kd_plugins.run_options import add_run_arguments

HELP = "score a checkpoint and write its images"
EXAMPLE = "basicsr test -opt test_slkd_derain"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what a run takes."""
    add_run_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Test in the working folder."""
    from kd_plugins.test import test_pipeline

    test_pipeline(os.getcwd(), args)
    return 0
