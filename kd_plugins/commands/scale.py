"""`basicsr scale`: the students of a teacher's own family that `network_g: {from_teacher: ...}` chooses from."""

from __future__ import annotations

import argparse
import math
from itertools import islice
from typing import TYPE_CHECKING, Any

import yaml

from kd_plugins.messages import nearest
from kd_plugins.options import OptionError, add_option_file, option_errors, read_option_file

if TYPE_CHECKING:
    from kd_plugins.students.family import Candidate
    from kd_plugins.students.from_teacher import Request
    from kd_plugins.students.stopwatch import Stopwatch

HELP = "show students of the teacher's own family at a share of its cost, or within a time"
EXAMPLE = "basicsr scale -opt slkd_derain --ms 20 --size 512x768"
_SHOWN = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the option file, and what is asked for."""
    add_option_file(parser)
    cost = parser.add_mutually_exclusive_group()
    for name, text in (("flops", "FLOPs"), ("params", "parameters"), ("latency", "latency, measured here")):
        cost.add_argument(f"--{name}", type=float, metavar="SHARE", help=f"share of the teacher's {text}")
    cost.add_argument("--ms", type=float, metavar="MS", help="milliseconds that one image may take, measured here")
    parser.add_argument("--size", help="of the image that is timed: 256 or 512x768 (height x width)")
    parser.add_argument("--threads", type=int, help="of the CPU, for the timing")
    parser.add_argument("--device", help="of the timing: cpu or cuda")


def run(args: argparse.Namespace) -> int:
    """Print candidates for a student, with their cost and latency, and the block of the one that is chosen.

    Raises:
        OptionError: an option file without a teacher whose arguments can be read, or a cost that no student has.
    """
    from kd_plugins.students.family import Family
    from kd_plugins.students.from_teacher import COSTS, TIMES, candidates, read_request
    from kd_plugins.students.stopwatch import Stopwatch
    from kd_plugins.terminal import status

    opt = read_option_file(args.opt, args.force_yml).opt  # not the whole check: a file with a teacher alone will do
    if not isinstance(opt.get("teacher"), dict):
        raise OptionError(f"{args.opt}: no `teacher`; nearest key: {nearest('teacher', opt)}")
    asked = {name: value for name in (*COSTS, *TIMES) if (value := getattr(args, name)) is not None}
    timing = {name: value for name in ("size", "threads", "device") if (value := getattr(args, name)) is not None}
    block = asked or (opt.get("network_g") or {}).get("from_teacher") or {"flops": 0.15}
    with option_errors(args.opt):
        request = read_request({**block, **timing} if any(name in block for name in TIMES) else block)
        family = Family(opt["teacher"])
        with status("Looking for students") as shown:
            note = lambda line: shown.update(f"Looking for students: {line}")  # noqa: E731
            watch = Stopwatch(family, **{**request.timing, **timing}, note=note)
            found = list(islice(candidates(family, request, watch), _SHOWN))
            if request.target not in TIMES:
                watch.take_turns(found)
            table = _table(request, watch, found)
        print(table)
    chosen = yaml.safe_dump(family.blueprint.block(found[0].changes), default_flow_style=True, sort_keys=False, width=1000)
    print(f"\nnetwork_g: {chosen.strip()}")
    return 0


def _table(request: Request, watch: Stopwatch, candidates: list[Candidate]) -> str:
    """The table; the first candidate is the chosen one."""
    from kd_plugins.students.from_teacher import TIMES
    from kd_plugins.tables import render_table

    family, teacher = watch.family, watch.teacher
    limit = request.seconds(teacher) if request.target in TIMES else math.inf
    names = [*family.widths, *family.depths]
    counted = [family.with_flops(each) for each in candidates]

    def row(label: str, changes: dict[str, Any], params: float, flops: float, share: float, latency: object) -> list[str]:
        values = [str(changes.get(name, family.blueprint.arguments[name])) for name in names]
        numbers = [f"{params * family.params / 1e6:.3f} M ({params:.3f})", f"{flops * family.flops / 1e9:.3f} G ({flops:.3f})"]
        return [label, *values, *numbers, f"{share:.3f}", str(latency)]

    rows = [row("teacher", {}, 1, 1, 1, teacher)]
    for number, each in enumerate(counted):
        latency = watch.latency(each)
        label = "chosen" if not number else "too slow" if latency.median > limit else ""
        rows.append(row(label, each.changes, each.params, each.flops, latency.median / teacher.median, latency))
    size = "x".join(map(str, family.image.shape[-2:]))
    title = f"Students of {type(family.teacher).__name__}: FLOPs at {size}, latency at {watch.where} (median, fastest - slowest)"
    return render_table(title, ["", *names, "parameters", "FLOPs", "of the time", "latency"], rows)
