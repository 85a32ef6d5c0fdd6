"""From the words of the command line to the option file of a distillation."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from os import path as osp
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from torch import nn

from kd_plugins.data.degradations import build_degradation
from kd_plugins.deploy.model import Model, load_model, source_block
from kd_plugins.distill.images import Blocks, pair_blocks, photo_blocks, unlabelled_blocks
from kd_plugins.distill.words import read_degradation
from kd_plugins.features.layer_pairs import find_pairs
from kd_plugins.home import expand
from kd_plugins.option_library import bundled_option_file
from kd_plugins.options import read_options
from kd_plugins.students.from_teacher import TIMES, Student, student_of
from kd_plugins.teachers.network import build_source
from kd_plugins.teachers.network_keys import registered_keys
from kd_plugins.yaml_loader import one_line

RECIPES = {
    "hint": ("distill_derain", "Hint first: the teacher's features until half of the training, then its image alone."),
    "logits": ("distill_denoise", "Logits: the teacher's image, where it is nearer the truth than the student's."),
    "follow": ("unlabelled_denoise", "No clean images: the student follows the teacher's image."),
}
"""The bundled option files that losses and optimizer come from, and what they do."""
_FEATURES_HELP = ("rain", "blur", "defocus")  # docs/results.md: what a teacher's features say costs a denoiser
_RATES = ((1e6, 2.0e-3), (1e7, 5.0e-4))  # learning rates of students of at most so many parameters; 2e-3 alone was measured
CROP = 64
"""Side of a training crop of the restored image; of the input at least half of it."""
_RATE_BEYOND = 2.0e-4
_TOLERANCES = (0.1, 0.2, 0.3)


@dataclass(frozen=True)
class Request:
    """What a distillation is asked for.

    Attributes:
        teacher: its source, see `load_model`.
        target: what the student may cost, as `from_teacher` takes it: {flops: 0.2}, {ms: 20}.
        photos: clean photos, `builtin` or a folder; beside them `degradation`, in words.
        pairs: the folders of degraded and clean images, in place of `photos`.
        unlabelled: a folder of degraded images, in place of both.
        recipe: a key of `RECIPES`; None chooses by the degradation.
        device: cpu, cuda or auto.
        threads: of the CPU; None leaves it to PyTorch.
    """

    teacher: str
    target: Mapping[str, float]
    photos: str | None = None
    degradation: str | None = None
    pairs: tuple[str, str] | None = None
    unlabelled: str | None = None
    recipe: str | None = None
    device: str = "cpu"
    threads: int | None = None


class Plan:
    """An option file, but for the number of steps.

    Args:
        request: what is asked for; all of it is tried before anything is written.
        command: the command line, for the file's heading.
        out: the folder of the distillation.

    Attributes:
        blocks: its datasets, whose files are to be written.

    Raises:
        ValueError, FileNotFoundError, KeyError: something of it cannot be; the message names the argument.
    """

    def __init__(self, request: Request, command: str, out: Path) -> None:
        teacher_block = _absolute(request.teacher)
        teacher = load_model(teacher_block)
        degradation = read_degradation(request.degradation) if request.degradation else None
        crop = max(CROP, CROP // 2 * teacher.scale)
        self.blocks = blocks = _blocks(request, degradation, teacher, crop, out)
        student = _student(teacher_block, request)
        net = build_source(student.block, "network_g")
        recipe, why = _recipe(request, degradation, teacher, net)
        gray = {"color": "y"} if teacher.channels == 1 else {}
        cuda = request.device != "cpu"
        parameters = sum(p.numel() for p in net.parameters())
        labelled = not request.unlabelled
        bundled = read_options(str(bundled_option_file(RECIPES[recipe][0])))
        rate = next((rate for most, rate in _RATES if parameters <= most), _RATE_BEYOND)
        self._context = {
            "out": out,
            "command": command,
            "about": f"{RECIPES[recipe][1]}{why}",
            "recipe": bundled["train"],
            "features": bundled.get("features"),
            "optimizer": {**bundled["train"]["optim_g"], "lr": rate},
            "labelled": labelled,
            "scale": teacher.scale,
            "num_gpu": 1 if cuda else 0,
            "threads": request.threads,
            "train": {**blocks.train, **gray},
            "val": {**blocks.val, **gray},
            "crop": crop,
            "workers": 4 if cuda else 0,
            "batch": 8 if cuda else 4,
            "student": f"the student: {parameters / 1e6:.3f} M parameters, {student.said}",
            "network": student.block,
            "teacher": teacher_block,
            "border": teacher.scale if teacher.scale > 1 else 0,
            "y_channel": str(teacher.scale > 1 or (degradation or {}).get("type") == "rain").lower(),
        }

    def render(self, steps: int, note: str = "") -> str:
        """The text of the option file.

        Args:
            steps: of the training.
            note: why so many.
        """
        environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
        environment.filters["yaml"] = one_line
        text = (resources.files("kd_plugins.distill") / "options.yml.jinja").read_text(encoding="utf-8")
        return environment.from_string(text).render(
            **self._context,
            steps=steps,
            steps_note=f"                 # {note}" if note else "",
            ema=round(min(max(1 - 8 / steps, 0.5), 0.999), 4),  # averages the last eighth
            val_freq=-(-steps // 4),
            save_freq=min(-(-steps // 4), 1000),
            print_freq=min(-(-steps // 40), 100),
        )


def _absolute(source: str) -> dict[str, Any]:
    """The teacher's block, with files that are found from any folder."""
    block = dict(source_block(source))
    for key in ("checkpoint", "file", *registered_keys()):
        if key in block and block[key] and osp.isfile(path := expand(str(block[key]))):
            block[key] = osp.abspath(path)
    return block


def _student(teacher: Mapping[str, Any], request: Request) -> Student:
    """The student: what is nearest to a share is near enough here, within reason; a time is one of the run's device and threads."""
    if any(name in request.target for name in TIMES):
        threads = {"threads": request.threads} if request.threads else {}
        return student_of(teacher, {**request.target, **threads, "device": request.device})
    for tolerance in _TOLERANCES[:-1]:
        with contextlib.suppress(ValueError):
            return student_of(teacher, {**request.target, "tolerance": tolerance})
    return student_of(teacher, {**request.target, "tolerance": _TOLERANCES[-1]})


def _recipe(request: Request, degradation: Mapping[str, Any] | None, teacher: Model, student: nn.Module) -> tuple[str, str]:
    """The recipe, and why not the one that would be expected."""
    if request.unlabelled:
        return "follow", ""
    wanted = request.recipe or ("hint" if degradation and degradation["type"] in _FEATURES_HELP else "logits")
    if wanted == "hint":
        try:
            find_pairs("auto", student, teacher.run)
        except ValueError as error:
            if request.recipe:
                raise ValueError(f"--recipe hint: {error}") from error
            return "logits", f"\n# (Not hint first: {' '.join(str(error).split())[:150]})"
    return wanted, ""


def _blocks(request: Request, degradation: Any, teacher: Model, crop: int, out: Path) -> Blocks:
    if request.unlabelled:
        return unlabelled_blocks(request.unlabelled, crop // teacher.scale, out)
    if request.pairs:
        blocks = pair_blocks(*request.pairs, crop, out)
        given = "the images of --pairs"
    else:
        blocks = photo_blocks(str(request.photos), degradation, build_degradation(degradation).factor, crop, out)
        given = f"--degradation {request.degradation}"
    if blocks.scale != teacher.scale:
        raise ValueError(
            f"-m {request.teacher}: enlarges images {teacher.scale} times, {given} {blocks.scale} times, expected the same"
        )
    return blocks
