"""A run's folder: its options, its networks, and what they cost."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kd_plugins.deploy.model import load_model
from kd_plugins.messages import nearest
from kd_plugins.metrics.complexity import measure_complexity
from kd_plugins.metrics.latency import RESTORED, time_networks
from kd_plugins.models.student_init import read_init, start_student
from kd_plugins.options import OptionError
from kd_plugins.report.measure import Restore
from kd_plugins.run_options import parse_options
from kd_plugins.teachers import Teacher, build_teacher
from kd_plugins.teachers.network import build_source
from kd_plugins.teachers.network_description import explicit_block

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
        checkpoint: of the student: the latest one.

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
        self.checkpoint = _latest(self.folder / "models")
        self.notes: list[str] = []

    def student(self) -> Any:
        """The student, as it is restored with: its averaged weights, where there are some."""
        known = {key: value for key, value in self.opt["network_g"].items() if key != "from_teacher"}
        return load_model({**known, "checkpoint": str(self.checkpoint)}, str(self.device))

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


def measure_costs(networks: Mapping[str, nn.Module], x: Tensor, scale: int) -> tuple[dict[str, Cost], str, str]:
    """What networks cost, those on one device timed in turns.

    Args:
        networks: by role.
        x: an image (1, C, H, W) that FLOPs are counted on.
        scale: how many times larger the restored image is.

    Returns:
        The costs by role, the size that FLOPs are counted at, and the one that the networks are timed at.
    """
    times, timed_at = time_networks(list(networks.values()), x, RESTORED // scale)
    costs = {}
    for (role, net), latency in zip(networks.items(), times, strict=True):
        complexity = measure_complexity(net, x)
        costs[role] = Cost(complexity.params, complexity.flops, 1e3 * latency.median)
    return costs, "x".join(map(str, x.shape[-2:])), timed_at


def find_folder(source: str) -> Path:
    """The folder of a run: a path, or a name in experiments/.

    Raises:
        OptionError: there is no such folder.
    """
    folder = Path(source).expanduser()
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


def _latest(models: Path) -> Path:
    if (models / "net_g_latest.pth").is_file():
        return models / "net_g_latest.pth"
    saved = {int(match[1]): file for file in models.glob("net_g_*.pth") if (match := _SAVED.fullmatch(file.name))}
    if not saved:
        raise OptionError(f"{models}: no student (net_g_latest.pth, or net_g_ITERATION.pth), which `basicsr train` leaves there")
    return saved[max(saved)]


def restorers(run: Run, teacher: Teacher | None, networks: Mapping[str, Any]) -> dict[str, Restore]:
    """Networks as `compare` calls them."""
    found: dict[str, Restore] = {role: lambda x, _, net=net: net(x) for role, net in networks.items()}
    if teacher is not None:
        found["teacher"] = lambda x, tasks: teacher(x, tasks).image
    return found
