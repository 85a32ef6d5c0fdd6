"""`basicsr setup`: what an installer cannot do by itself."""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import subprocess
import sys

HELP = "install BasicSR beside the PyTorch that is here"
EXAMPLE = "basicsr setup"
NEEDS_LIBRARIES = False

BASICSR = "basicsr==1.4.2"
BUILD = ("setuptools>=77", "wheel", "cython", "numpy")  # what its setup.py imports, beside torch


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the one argument."""
    parser.add_argument("--dry-run", action="store_true", help="print the commands, and do nothing")


def run(args: argparse.Namespace) -> int:
    """Build BasicSR without an environment of its own, which would fetch another PyTorch, and without its requirements.

    These hold tb-nightly, which writes the same files as tensorboard; all others are requirements of kd_plugins.

    Returns:
        The exit code of the installer.

    Raises:
        ValueError: there is no PyTorch, no installer, or this Python is too new.
    """
    if importlib.util.find_spec("basicsr"):
        print("BasicSR is installed.")
        return 0
    if sys.version_info >= (3, 13):
        raise ValueError(f"Python {sys.version.split()[0]}: BasicSR 1.4.2 does not build there, expected Python 3.10, 3.11 or 3.12")
    for name in ("torch", "torchvision"):
        if not importlib.util.find_spec(name):
            raise ValueError(f"{name} is not installed, and BasicSR's build needs it: `pip install torch torchvision`")
    installer = _installer()
    for words in ([*installer, *BUILD], [*installer, "--no-build-isolation", "--no-deps", BASICSR]):
        print(" ".join(words), flush=True)
        if not args.dry_run and (code := subprocess.call(words)):
            return code
    return 0


def _installer() -> list[str]:
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip", "install"]
    if uv := shutil.which("uv"):  # its environments have no pip
        return [uv, "pip", "install", "--python", sys.executable]
    raise ValueError("neither pip nor uv is here: `python -m ensurepip` installs pip")
