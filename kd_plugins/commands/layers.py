"""`basicsr layers`: the layers of teacher and student, and which of them an option file's `features:` can pair."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from kd_plugins.options import OptionError, add_option_file, option_errors, read_option_file

if TYPE_CHECKING:
    from torch import nn

    from kd_plugins.features import Pair, Stages
    from kd_plugins.features.layer_outputs import Run

HELP = "show the layers of teacher and student, and pairs of them"
EXAMPLE = "basicsr layers -opt slkd_derain"

_BLOCKS = {"teacher": "teacher", "student": "network_g"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the option file, and how much to show."""
    add_option_file(parser)
    parser.add_argument("--all", action="store_true", help="every module, not only the outer ones and the stages")


def run(args: argparse.Namespace) -> int:
    """Print the layers of the networks of an option file, their stages, and the pairs that `features: auto` takes.

    Raises:
        OptionError: an option file without a network, or with one that cannot be built.
    """
    from kd_plugins.features import propose_pairs
    from kd_plugins.models.student_init import explicit_student
    from kd_plugins.teachers import build_source, main_block

    opt = read_option_file(args.opt, args.force_yml).opt  # not the whole check: a file with one network alone will do
    blocks = {role: opt[key] for role, key in _BLOCKS.items() if opt.get(key)}
    if not blocks:
        raise OptionError(f"{args.opt}: neither `teacher` nor `network_g`")
    with option_errors(args.opt):
        if "student" in blocks:
            blocks["student"] = explicit_student({**opt, "network_g": blocks["student"]})
        nets = {role: build_source(main_block(block), _BLOCKS[role]) for role, block in blocks.items()}
        stages = {role: _show(role, net, args.all) for role, net in nets.items()}
    missing = [role for role in _BLOCKS if not stages.get(role)]
    if missing:
        print(f"\nNo pairs: there is no {missing[0]} with stages.")
    else:
        pairs = propose_pairs(nets["student"], nets["teacher"], (stages["student"], stages["teacher"]))  # type: ignore[arg-type]
        print("\n" + _as_yaml(pairs))
    return 0


def _show(role: str, net: nn.Module, everything: bool) -> Stages | None:
    """Print the table of a network; its stages, if it has any."""
    from kd_plugins.features import find_stages, measure
    from kd_plugins.tables import render_table

    title, top, stages = f"{role} ({type(net).__name__})", None, None
    try:
        top = measure(net)
        stages = find_stages(net, top)
    except ValueError as error:  # the other network's layers are still worth reading
        print(f"\n{title}: {error}")
    if top:
        roles = stages.roles() if stages else {}
        runs = {run.name: run for run in top.walk() if everything or run in top.inner or run.name in roles}
        rows = [[run.name, run.kind, _output(run), roles.get(run.name, "")] for run in runs.values() if run.name]
        shape = "" if stages is None else ", flat" if stages.flat else ", U-shaped"
        print(render_table(title + shape, ["layer", "class", "output", "stage"], rows))
    return stages


def _output(run: Run) -> str:
    return run.returned if run.calls == 1 else f"{run.returned}, {run.calls} times (@1 to @{run.calls}, @all)"


def _as_yaml(pairs: Mapping[str, Sequence[Pair]]) -> str:
    """The proposal as lines of an option file."""
    lines = ["features:"]
    for group, answers in pairs.items():
        layers = ", ".join(f"[{_name(mine)}, {_name(theirs)}]" for mine, theirs in answers)
        lines.append(f"  {group}: [{layers}]" if answers else f"  # no {group}: nothing answers each other")
    return "\n".join(lines)


def _name(layer: str) -> str:
    return json.dumps(layer) if layer[0].isdigit() else layer  # YAML reads 1.10 as a number
