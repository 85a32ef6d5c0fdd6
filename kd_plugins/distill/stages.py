"""The stages of a distillation, each of which knows whether it is done."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from basicsr.utils.logger import initialized_logger

from kd_plugins.atomic_files import write_text
from kd_plugins.deploy.export import aside, export_checked
from kd_plugins.deploy.model import load_model
from kd_plugins.deploy.quantize import describe, quantize
from kd_plugins.distill.budget import STEPS, steps_within
from kd_plugins.distill.plan import Plan, Request
from kd_plugins.distill.progress import Progress, begun_with, digest
from kd_plugins.distill.samples import read_samples
from kd_plugins.distill.time_limit import time_limit
from kd_plugins.errors import Interrupted
from kd_plugins.options import OptionError, read_options
from kd_plugins.report.make import write_report
from kd_plugins.report.runs import DISTILLED
from kd_plugins.students.from_teacher import TIMES
from kd_plugins.train import train_pipeline
from kd_plugins.training.interrupt import Interrupt

_FORMS = (".pth", ".safetensors", ".onnx")
_EXPORT_SECONDS = 300.0
_INT8 = "student_int8.onnx"
Say = Callable[[str], None]


class Distillation:
    """One student, in a folder of its own.

    Args:
        out: the folder: options.yml, the student in several forms, report.html; experiments/ and tb_logger/ are its training's.
        device: where it is trained and measured.
        say: called with a line for each stage.
    """

    def __init__(self, out: Path, device: str, say: Say) -> None:
        self.out, self.device, self.say = out, device, say
        self._plan: Plan | None = None
        self.options, self.latest = out / "options.yml", out / "experiments" / DISTILLED / "models" / "net_g_latest.pth"

    def plan(self, request: Request, command: str) -> None:
        """Find the student and the recipe, if there is no option file yet; nothing is written.

        Args:
            request: what is asked for.
            command: the command line, without the folder.

        Raises:
            ValueError, FileNotFoundError, KeyError: see `Plan`; or the option file was written for another command.
        """
        if self.options.exists():
            _refuse_other_command(self.options, command)
            return
        if any(name in request.target for name in TIMES):
            self.say(f"Timing students against their teacher: {', '.join(f'{k} {v}' for k, v in request.target.items())}")
        self._plan = Plan(request, command, self.out)

    def write_options(self, steps: int | None, seconds: float) -> None:
        """Write the option file, if there is none yet.

        Args:
            steps: of the training; None for as many as fit into
            seconds: of the training.

        Raises:
            ValueError: see `steps_within`.
        """
        plan, note = self._plan, ""
        if plan is None:
            return
        plan.blocks.write()
        if steps is None:
            self.say("Timing a few steps")
            steps, step = steps_within(seconds, plan.render(STEPS))
            note = f"{seconds / 60:g} minutes: a step took {step:.3g} s"
            self.say(f"A step takes {step:.3g} s: {steps:,} steps in {seconds / 60:g} minutes")
        self.out.mkdir(parents=True, exist_ok=True)
        write_text(self.options, plan.render(steps, note))
        self.say(f"Option file: {self.options}")

    def run(self, max_loss: float | None = None) -> bool:
        """Train, save, export, measure, report: whatever is not done.

        Args:
            max_loss: makes a student in int8, too, that loses at most so many dB; it is made again when the student is.

        Returns:
            Whether all is there that was asked for.

        Raises:
            OptionError: the option file has errors.
            RunStopped: the training was stopped; the same command goes on.
        """
        self.progress = Progress(self.out)
        max_loss = self.progress.setting("int8", max_loss)
        self._train()
        self._export()
        complete = max_loss is None or self._quantize(max_loss)
        self._report()
        return complete

    # -------------------------------------------------------------------------------------------- stages

    def _train(self) -> None:
        opt = read_options(str(self.options))
        if opt["name"] != DISTILLED:
            raise OptionError(
                f"{self.options}: name: {opt['name']!r}, expected {DISTILLED}: the folder of its training is named so"
            )
        if self.progress.is_done("train", opt, self.latest):
            return
        begun = begun_with(opt)
        goes_on = self.progress.is_done("begin", begun)
        arguments = ["-opt", str(self.options), *(["--auto_resume"] if goes_on else [])]
        self.say("Going on with the training" if goes_on else "Training")
        with separate_log(), Interrupt(at_once=True):
            if not goes_on:
                self.progress.note("begin", begun)
            try:
                train_pipeline(str(self.out), arguments)
            except Interrupted as stop:
                raise Interrupted(f"{str(stop).partition(';')[0]}; the same command goes on from there") from None
        self.progress.note("train", opt)

    def _export(self) -> None:
        """The student in each form, compared with what was trained; each file says what its network is."""
        model = load_model(str(self.latest))
        for file in (self.out / f"student{ending}" for ending in _FORMS):
            if self.progress.is_done(file.name, self.latest, file):
                continue
            try:
                if file.suffix == ".onnx":
                    self.say("Exporting as ONNX")
                with aside(file, overwrite=True) as path, time_limit(_EXPORT_SECONDS):
                    found = export_checked(model, path)
            except (ValueError, TimeoutError) as error:
                if file.suffix != ".onnx":
                    raise
                self._leave_out(file, error)  # a library that is not there, a network that the form cannot hold, or not so soon
                continue
            self.progress.note(file.name, self.latest)
            nearest = min(found, key=lambda each: each.psnr)
            self.say(f"Student: {file}; against what was trained, {nearest}")

    def _quantize(self, max_loss: float) -> bool:
        """The student in int8; whether it is there."""
        file, plain = self.out / _INT8, self.out / "student.onnx"
        made_of = [digest(plain) if plain.exists() else None, max_loss]
        if self.progress.is_done(file.name, made_of, file):
            return True
        try:
            if not plain.exists():
                raise ValueError(f"there is no {plain.name}, which it is made of")
            self.say("Quantising")
            samples = read_samples(read_options(str(self.options)))
            with aside(file, overwrite=True) as path:
                found = quantize(plain, path, samples, max_loss, self.say)
                sizes = path.stat().st_size, plain.stat().st_size
        except ValueError as error:
            self._leave_out(file, error)
            return False
        self.progress.note(file.name, made_of)
        known = samples.held_out[0].truth is not None
        self.say("\n  ".join([f"Student in int8: {file}", *describe(found, samples, known, sizes).splitlines()]))
        return True

    def _leave_out(self, file: Path, why: Exception) -> None:
        self.say(f"{file.name} is left out: {why}")
        file.unlink(missing_ok=True)  # of the student before

    def _report(self) -> None:
        page = self.out / "report.html"
        made_of = [digest(file) for file in (self.latest, *sorted(self.out.glob("*.onnx")))]
        if self.progress.is_done("report", made_of, page):
            return
        self.say("Comparing with the teacher")
        write_report([str(self.out)], page, self.device, say=self.say)
        self.progress.note("report", made_of)
        self.say(f"Report: {page}")


def _refuse_other_command(options: Path, command: str) -> None:
    lines = options.read_text(encoding="utf-8").splitlines()
    before = next((line.removeprefix("# ") for line in lines if line.startswith("# basicsr distill -m")), command)
    if command and before != command:
        raise OptionError(
            f"{options} was written by `{before}`, this is `{command}`; change the file, or name another folder; "
            f"`basicsr distill -o {options.parent}` goes on with it"
        )


@contextmanager
def separate_log() -> Iterator[None]:
    """BasicSR opens one log for a process; here each training has its own."""
    logger = logging.getLogger("basicsr")
    before, level = tuple(logger.handlers), logger.level
    initialized_logger.pop("basicsr", None)
    logger.handlers = []
    try:
        yield
    finally:
        for handler in logger.handlers:
            handler.close()
        logger.handlers = list(before)
        logger.setLevel(level)
