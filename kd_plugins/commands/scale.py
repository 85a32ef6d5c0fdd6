"""`basicsr scale`: the students of a teacher's own family that `network_g: {from_teacher: ...}` chooses from."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

import yaml

from kd_plugins.messages import nearest
from kd_plugins.options import OptionError, add_option_file, option_errors, read_option_file

if TYPE_CHECKING:
    from kd_plugins.students.family import Candidate, Family

HELP = "show students of the teacher's own family at a share of its cost"
EXAMPLE = "basicsr scale -opt options/slkd_derain.yml --flops 0.15"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the option file, and the share that is asked for."""
    add_option_file(parser)
    share = parser.add_mutually_exclusive_group()
    for target in ("flops", "params"):
        text = "share of the teacher's; by default that of `from_teacher`, or flops 0.15"
        share.add_argument(f"--{target}", type=float, metavar="SHARE", help=text)


def run(args: argparse.Namespace) -> int:
    """Print candidates for a student, with their cost, and the block of the one that is chosen.

    Raises:
        OptionError: an option file without a teacher whose arguments can be read, or a share that no student has.
    """
    import torch

    from kd_plugins.students.family import Family
    from kd_plugins.students.from_teacher import TARGETS, choose, is_near, read_request

    opt = read_option_file(args.opt, args.force_yml).opt  # not the whole check: a file with a teacher alone will do
    asked = {target: value for target in TARGETS if (value := getattr(args, target)) is not None}
    request = asked or (opt.get("network_g") or {}).get("from_teacher") or {"flops": 0.15}
    if not isinstance(opt.get("teacher"), dict):
        raise OptionError(f"{args.opt}: no `teacher`; nearest key: {nearest('teacher', opt)}")
    with option_errors(args.opt), torch.no_grad():
        target, wanted = read_request(request)
        family = Family(opt["teacher"])
        chosen = choose(family, request)
        candidates = [chosen]
        if target:
            near = [each for each in family.near(target, wanted) if is_near(each, request)]
            candidates += [each for each in near if each.changes != chosen.changes]
        _show(family, candidates)
    block = yaml.safe_dump(family.blueprint.block(chosen.changes), default_flow_style=True, sort_keys=False, width=1000)
    print(f"\nnetwork_g: {block.strip()}")
    return 0


def _show(family: Family, candidates: Sequence[Candidate]) -> None:
    """Print the table; the first candidate is the chosen one."""
    from kd_plugins.metrics.complexity import measure_complexity
    from kd_plugins.metrics.latency import RESTORED, time_networks
    from kd_plugins.tables import render_table

    names = [*family.widths, *family.depths]
    rows, chosen = [], [{}, *(each.changes for each in candidates)]
    nets = [family.blueprint.build(changes) for changes in chosen]
    times, timed_at = time_networks(nets, family.image, RESTORED)
    for index, (changes, net, latency) in enumerate(zip(chosen, nets, times, strict=True)):
        cost = measure_complexity(net, family.image)
        values = [str(changes.get(name, family.blueprint.arguments[name])) for name in names]
        shares = [cost.params / family.params, cost.flops / family.flops]
        numbers = [f"{cost.params / 1e6:.3f} M", f"{cost.flops / 1e9:.3f} G"]
        label = ["teacher", "chosen"][index] if index < 2 else ""
        cells = (f"{number} ({share:.3f})" for number, share in zip(numbers, shares, strict=True))
        rows.append([label, *values, *cells, str(latency)])
    size = "x".join(map(str, family.image.shape[-2:]))
    students = f"Students of {type(family.teacher).__name__} on the CPU"
    title = f"{students}: FLOPs at {size}, latency at {timed_at} (median, fastest - slowest)"
    print(render_table(title, ["", *names, "parameters", "FLOPs", "latency"], rows))
