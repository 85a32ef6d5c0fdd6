"""Checkpoints: written whole or not at all, and checked before they are used."""

from __future__ import annotations

import io
import os
import re
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from os import path as osp
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from kd_plugins.atomic_files import in_place_of
from kd_plugins.errors import RunStopped
from kd_plugins.extractors.safe_load import load_plain
from kd_plugins.teachers.checkpoint import describe

Record = list[int]
"""Size and CRC-32 of a file, as its state keeps them."""


class SaveError(RunStopped):
    """A checkpoint could not be written."""


def write(path: str, content: Mapping[str, Any], network: Any = None) -> Record:
    """Write a checkpoint, see `in_place_of`.

    Args:
        path: where to.
        content: what `torch.save` takes.
        network: what the file says of the network whose weights it holds, if anything; see `describe`.

    Returns:
        Its record.

    Raises:
        SaveError: it cannot be written; what was there before is still there.
    """
    buffer = io.BytesIO()  # in memory first: torch.save hides why a disk refuses
    torch.save(content, buffer)
    if network is not None:
        describe(buffer, network)
    try:
        with in_place_of(Path(path)) as part:
            part.write_bytes(buffer.getbuffer())
    except OSError as error:
        raise SaveError(f"cannot save {path}: {error.strerror or error}; the checkpoints before it are untouched") from error
    return [buffer.getbuffer().nbytes, zlib.crc32(buffer.getbuffer())]


def fault(path: str, record: Record | None = None) -> str:
    """What is wrong with a file of a checkpoint.

    Args:
        path: the file.
        record: what `write` returned for it; without, the checksums inside the file have to do.

    Returns:
        A few words, or nothing for a good one.
    """
    if osp.lexists(path) and not osp.isfile(path):  # a pipe would be waited for
        return "no file, but something else of that name"
    try:
        if record is not None:
            return _differs(path, record)
        with zipfile.ZipFile(path) as file:
            part = file.testzip()
        return f"corrupt: {part}" if part else ""
    except FileNotFoundError:
        return "missing"
    except Exception as error:  # whatever zipfile meets in damaged bytes
        return f"truncated or corrupt: {error}"


def _differs(path: str, record: Record) -> str:
    size, crc = osp.getsize(path), 0
    if size != record[0]:
        return f"{size} bytes, {record[0]} were written"
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            crc = zlib.crc32(block, crc)
    return "" if crc == record[1] else "not what was written: its checksum differs"


class BadState(Exception):
    """A state that cannot be gone on from; the message names the file and its fault."""


def load_state(path: str, models: str, networks: Iterable[str] = ("net_g",)) -> dict[str, Any]:
    """Read a training state and check every file that it needs.

    Args:
        path: the state.
        models: the folder of the networks.
        networks: labels of the networks that a state without records (BasicSR's own) needs.

    Returns:
        The state, on the CPU.

    Raises:
        BadState: the state, or a file beside it, is missing, truncated or corrupt.
    """
    if wrong := fault(path):
        raise BadState(f"{path} ({wrong})")
    try:
        state = load_plain(Path(path))
        files: dict[str, Any] = dict(state.get("files") or {f"{label}_{state['iter']}.pth": None for label in networks})
        if not all(isinstance(state[key], int) and state[key] >= 0 for key in ("iter", "epoch")):
            raise ValueError(f"iter is {state['iter']!r}, epoch {state['epoch']!r}")
        if not all(record is None or [type(number) for number in record] == [int, int] for record in files.values()):
            raise ValueError("its `files` are no records")
        if any(isinstance(value, torch.Tensor) and value.layout != torch.strided for value in tree_leaves(state)):
            raise ValueError("it has sparse tensors")
    except Exception as error:  # whatever a pickle that is none raises
        raise BadState(f"{path} (no training state: {(str(error).splitlines() or [repr(error)])[0]})") from error
    for name, record in files.items():
        if wrong := fault(osp.join(models, name), record):
            raise BadState(f"{osp.join(models, name)} ({wrong})")
    return state


def newest_state(
    folder: str, models: str, networks: Iterable[str] = ("net_g",)
) -> tuple[str | None, dict[str, Any] | None, list[str]]:
    """The newest state that is good with all its files.

    Args:
        folder: where the states are.
        models: the folder of the networks.
        networks: see `load_state`.

    Returns:
        Its path and content, None where there is none, and a sentence for each newer one that is not good.
    """
    names = os.listdir(folder) if osp.isdir(folder) else []
    bad = []
    for iteration in sorted((int(name[:-6]) for name in names if re.fullmatch(r"\d+\.state", name)), reverse=True):
        path = osp.join(folder, f"{iteration}.state")
        try:
            return path, load_state(path, models, networks), bad
        except BadState as error:
            bad.append(f"The state of iteration {iteration} is not used: {error}.")
    return None, None, bad
