"""Programs as teachers: TorchScript and torch.export files, which hold a network's weights and what it computes with them."""

from __future__ import annotations

import zipfile
from os import path as osp
from pathlib import Path
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from kd_plugins.arguments import Why, checked
from kd_plugins.home import expand
from kd_plugins.teachers.network_keys import SOURCE_REGISTRY

UNTRUSTED = "a program can run code of whoever made it, and no scan of it can tell; `trust: true` beside it says that you trust it"


class Program(nn.Module):
    """A network loaded from a program file. It has an output but no layers to tap.

    Args:
        run: what the file holds.
        path: the file.
    """

    def __init__(self, run: nn.Module, path: Path) -> None:
        super().__init__()
        self.run = run
        self.path = path
        self.untappable = f"{path.name} is a program, which has an output but no layers to compare"

    def train(self, mode: bool = True) -> Program:
        """Keep the mode in which it was saved: an exported program cannot be switched."""
        self.training = False
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Restore a batch (N, C, H, W).

        Raises:
            ValueError: it does not take a batch of this shape.
        """
        try:
            return self.run(x)
        except (RuntimeError, AssertionError) as error:
            reason = next((line.strip() for line in str(error).splitlines()[::-1] if line.strip()), type(error).__name__)
            raise ValueError(
                f"program: {self.path.name} does not take a batch of shape {tuple(x.shape)} ({reason}); expected a file that was "
                "saved for any batch size, height and width"
            ) from error


def program_kind(path: Path) -> str | None:
    """The kind of a program file: 'TorchScript' or 'torch.export'; None for any other file."""
    if not zipfile.is_zipfile(path):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.partition("/")[2] for name in archive.namelist()}
    except (zipfile.BadZipFile, ValueError):  # a damaged one
        return None
    if "archive_format" in names and any(name.startswith("models/") for name in names):
        return "torch.export"
    return "TorchScript" if "constants.pkl" in names and any(name.startswith("code/") for name in names) else None


def find_program(name: str | Path) -> tuple[Path, str]:
    """A program's file and its kind (see `program_kind`); nothing in it is run.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no program.
    """
    path = expand(str(name))
    if not osp.isfile(path):
        raise FileNotFoundError(f"program: {str(path)!r} is no file (looked from {Path.cwd()})")
    kind = program_kind(path)
    if kind is None:
        raise ValueError(f"program: {path} is no TorchScript and no torch.export file; expected weights in `checkpoint: FILE`?")
    return path, kind


@SOURCE_REGISTRY.register()
@checked
def program(program: str, trust: Annotated[Literal[True], Why(UNTRUSTED)]) -> Program:
    """Load a program, on the CPU, frozen in the mode it was saved in (TorchScript: in eval mode). That may run any code.

    Args:
        program: its file.
        trust: whether whoever names it trusts it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no program, one that is not trusted or cannot be loaded.
    """
    path, kind = find_program(program)
    try:
        if kind == "TorchScript":
            return Program(torch.jit.load(path, map_location="cpu").eval(), path).eval()
        return Program(torch.export.load(path).module(), path).eval()
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"program: {path} cannot be loaded by PyTorch {torch.__version__} ({kind}: {reason})") from error
