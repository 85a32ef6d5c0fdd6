"""A run's folder: its options, its networks, and what they cost."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kd_plugins.deploy.benchmark import Variant, benchmark
from kd_plugins.deploy.model import load_model
from kd_plugins.home import expand
from kd_plugins.messages import nearest
from kd_plugins.models.student_init import read_init, start_student
from kd_plugins.options import OptionError
from kd_plugins.report.measure import Restore
from kd_plugins.run_options import parse_options
from kd_plugins.teachers import Teacher, build_teacher
from kd_plugins.teachers.checkpoint import BrokenWeights, read_checkpoint
from kd_plugins.teachers.network import build_source, main_block
from kd_plugins.teachers.network_description import explicit_block
from kd_plugins.yaml_loader import one_line

_REPEATS = 5
DISTILLED = "student"
"""The name of the run in the folder of a distillation."""
_SAVED = re.compile(r"net_g_(\d+)\.pth")


@dataclass
class Cost:
    """What a network costs, None where it was not measured.

    Attributes:
        params: number of parameters.
        flops: multiply-adds, at the size that the report names.
        milliseconds: of one pass, the median of some.
        memory: bytes at the peak of a pass.
    """

    params: int | None = None
    flops: int | None = None
    milliseconds: float | None = None
    memory: int | None = None


class Run:
    """A finished or stopped run of `basicsr train`.

    Args:
        source: its folder, its name in experiments/, or the folder of a distillation.
        device: where its networks run.

    Attributes:
        home: the folder that was named: exported files are looked for there, and the page is written there.
        folder: that of the run.
        opt: the completed options.
        file: the option file in the folder.
        checkpoint: of the student: the latest one whose weights are numbers; None where no one's are.
        notes: what could not be measured, and why.

    Raises:
        OptionError: no such folder, or none of a run: no option file, no student.
    """

    def __init__(self, source: str, device: torch.device) -> None:
        self.home, self.device = find_folder(source), device
        self.folder = distilled if (distilled := self.home / "experiments" / DISTILLED).is_dir() else self.home
        self.file = _option_file(self.folder)
        # relative paths in the file are from the folder that `basicsr train` was called in
        self.opt = parse_options(str(self.folder.parent.parent), False, ["-opt", str(self.file)])[0]
        self.name = self.home.name
        self.notes: list[str] = []
        self.checkpoint = next(filter(self._is_whole, _saved(self.folder / "models")), None)

    def _is_whole(self, file: Path) -> bool:
        try:
            read_checkpoint(file)
        except BrokenWeights:
            self.note(f"{file.name} was not scored: its weights are not numbers.")
            return False
        except ValueError:  # said by who loads it
            pass
        return True

    def student(self) -> Any:
        """The student, as it is restored with: its averaged weights, where there are some."""
        return load_model(self.student_block(), str(self.device))

    def student_block(self) -> dict[str, Any]:
        """The student's network with its weights, as an option file has it."""
        known = {key: value for key, value in self.opt["network_g"].items() if key != "from_teacher"}
        return {**known, "checkpoint": str(self.checkpoint)}

    def note(self, sentence: str) -> None:
        """Add a note of something that could not be measured."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    def teacher(self) -> Teacher | None:
        """The teacher of the degraded view, if there is one."""
        return build_teacher(self.opt["teacher"]).to(self.device) if self.opt.get("teacher") else None

    def start(self, teacher: Teacher | None) -> nn.Module | None:
        """The student before its first step; None where it started from nothing."""
        block = explicit_block({"checkpoint": str(self.checkpoint)})
        pretrained = self.opt["path"].get("pretrain_network_g")
        if block is None or (not pretrained and (teacher is None or read_init(self.opt.get("init", "random")) is None)):
            return None
        if pretrained:
            return load_model({**block, "checkpoint": pretrained}, str(self.device)).net
        net = build_source(block, "network_g").to(self.device).eval()
        train = {**self.opt["datasets"]["train"], "phase": "train"}
        start_student(net, teacher.net if teacher else None, {**self.opt, "datasets": {"train": train}})
        return net

    def exported(self) -> list[Path]:
        """The exported files that lie in the folder."""
        return sorted(self.home.glob("*.onnx"))


def measure_costs(run: Run, size: tuple[int, int]) -> dict[str, Cost]:
    """What student, teacher and exported files cost, all timed in turns.

    Args:
        run: whose networks are measured; what cannot be is one of its notes.
        size: height and width of the image that goes in.

    Returns:
        The costs by role, those of exported files by their name.
    """
    device = str(run.device)
    wanted = {"student": Variant(one_line(run.student_block()), device)}
    if run.opt.get("teacher"):
        wanted["teacher"] = Variant(one_line(main_block(run.opt["teacher"])), device)
    wanted |= {file.name: Variant(str(file), device) for file in run.exported() if device == "cpu"}
    costs: dict[str, Cost] = {}
    for roles in (list(wanted), *([role] for role in wanted)):  # together; where one of them does not run, one by one
        try:
            measured = list(benchmark([wanted[role] for role in roles], [size], run.opt.get("num_threads"), _REPEATS, run.note))
        except ValueError as error:
            run.note(f"{', '.join(roles)}: not timed: {error}")
            continue
        if len(measured) == len(roles):
            for role, each in zip(roles, measured, strict=True):
                costs[role] = Cost(each.params, each.flops, 1e3 * each.latency.median, each.memory)
        if len(costs) == len(wanted):
            break
    return costs


def find_folder(source: str) -> Path:
    """The folder of a run: a path, or a name in experiments/.

    Raises:
        OptionError: there is no such folder.
    """
    folder = expand(source)
    if not source:
        raise OptionError("'': no such folder, expected the folder of a run, or its name in experiments/")
    if folder.is_dir():
        return folder.resolve()
    experiments = Path("experiments")
    if (experiments / source).is_dir():
        return (experiments / source).resolve()
    names = [each.name for each in experiments.iterdir() if each.is_dir()] if experiments.is_dir() else []
    hint = f"; nearest: {nearest(source, names)}" if names else ""
    raise OptionError(f"{source}: no such folder, here or in experiments/{hint}")


def _option_file(folder: Path) -> Path:
    found = sorted(folder.glob("*.yml"), key=lambda file: (file.stem != folder.name, file.name))
    if not found:
        raise OptionError(f"{folder}: no option file (*.yml) in it; expected the folder of a run, experiments/NAME")
    return found[0]


def _saved(models: Path) -> list[Path]:
    """The students that a run has saved, the latest first."""
    numbered = {int(match[1]): file for file in models.glob("net_g_*.pth") if (match := _SAVED.fullmatch(file.name))}
    last = [file for file in [models / "net_g_latest.pth"] if file.is_file()]
    if not numbered and not last:
        raise OptionError(f"{models}: no student (net_g_latest.pth, or net_g_ITERATION.pth), which `basicsr train` leaves there")
    return [*last, *(numbered[iteration] for iteration in sorted(numbered, reverse=True))]


def restorers(run: Run, teacher: Teacher | None, networks: Mapping[str, Any]) -> dict[str, Restore]:
    """Networks as `compare` calls them."""
    found: dict[str, Restore] = {role: lambda x, _, net=net: net(x) for role, net in networks.items()}
    if teacher is not None:
        found["teacher"] = lambda x, tasks: teacher(x, tasks).image
    return found
