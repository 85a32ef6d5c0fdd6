"""Which families of networks can be exported in which form: each is written, read again, and compared as `basicsr export` does.

python tools/export_families.py [--families NAFNet SwinIR ...] [--seconds 90]

The networks are the small ones of the tests (tests/families.py), with random weights; each export has a process of its own and a
time limit. Prints Markdown, each row as soon as it is known: the least PSNR of three sizes between PyTorch and the file, or a dash,
and why there is none.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import sys
import tempfile
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from kd_plugins.deploy.exported import FORMS

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from families import ARCHITECTURES, FAMILIES  # noqa: E402 # pyright: ignore[reportMissingImports]

BLOCKS: dict[str, dict[str, Any]] = {**ARCHITECTURES, **{name: block for name, (block, _) in FAMILIES.items()}}
SUFFIXES = [suffix for suffix in FORMS if suffix != ".pth"]  # holds what .safetensors holds


def export(block: Mapping[str, Any], suffix: str, connection: Connection) -> None:
    """Send the least PSNR, or why there is none."""
    import torch

    from kd_plugins.deploy.export import export_checked
    from kd_plugins.deploy.model import Model
    from kd_plugins.teachers import build_source

    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = build_source(block, "family").eval().requires_grad_(False)
    for tensor in net.parameters():  # none is zero: layers that begin so would hide what is behind them
        tensor.add_(0.05 * torch.randn_like(tensor))
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = export_checked(Model(net, "family", torch.device("cpu"), block=block), Path(folder) / f"net{suffix}")
            connection.send(min(each.psnr for each in found))
        except ValueError as error:
            connection.send(str(error).removeprefix("family: ").removeprefix(f"net{suffix}: ").removesuffix("; it is not kept"))


def outcome(block: Mapping[str, Any], suffix: str, seconds: float) -> float | str:
    """The least PSNR of an export in dB, or why there is none."""
    processes = multiprocessing.get_context("forkserver")
    here, there = processes.Pipe(duplex=False)
    process = processes.Process(target=export, args=(block, suffix, there))
    process.start()
    there.close()
    try:
        if not here.poll(seconds):
            return f"takes more than {seconds:g} s"
        return here.recv()
    except EOFError:
        process.join()
        return f"ends the process, with exit code {process.exitcode}"
    finally:
        process.kill()
        process.join()


def cell(found: float | str) -> str:
    """As the table says it."""
    if isinstance(found, str):
        return "–"
    return "the same bits" if math.isinf(found) else f"{found:.0f} dB"


def main() -> None:
    """Export every family in every form."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", choices=BLOCKS, default=list(BLOCKS), metavar="NAME", help=", ".join(BLOCKS))
    parser.add_argument("--forms", nargs="+", choices=SUFFIXES, default=SUFFIXES)
    parser.add_argument("--seconds", type=float, default=90, help="that one export may take")
    args = parser.parse_args()
    multiprocessing.get_context("forkserver").set_forkserver_preload(["kd_plugins.deploy.export"])  # or each export imports it anew
    print("| family |", " | ".join(f"`{suffix}`" for suffix in args.forms), "| why not |")
    print("|---|" + "---|" * len(args.forms) + "---|", flush=True)
    for name in args.families:
        found = {suffix: outcome(BLOCKS[name], suffix, args.seconds) for suffix in args.forms}
        why = "; ".join(f"`{suffix}`: {reason}" for suffix, reason in found.items() if isinstance(reason, str))
        print(f"| {name} |", " | ".join(map(cell, found.values())), f"| {why} |", flush=True)


if __name__ == "__main__":
    main()
