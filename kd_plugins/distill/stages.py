"""The stages of a distillation, each of which knows whether it is done."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from basicsr.utils.logger import initialized_logger

from kd_plugins.atomic_files import write_text
from kd_plugins.deploy.export import aside, export_checked
from kd_plugins.deploy.model import load_model
from kd_plugins.distill.budget import steps_within, training_steps
from kd_plugins.distill.plan import Plan, Request
from kd_plugins.distill.progress import Progress, begun_with, digest
from kd_plugins.errors import Interrupted
from kd_plugins.options import OptionError, read_options
from kd_plugins.report.make import write_report
from kd_plugins.report.runs import DISTILLED
from kd_plugins.train import train_pipeline
from kd_plugins.training.interrupt import Interrupt

_FORMS = (".pth", ".safetensors", ".onnx")
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
        self.options, self.latest = out / "options.yml", out / "experiments" / DISTILLED / "models" / "net_g_latest.pth"

    def write_options(self, request: Request, command: str, steps: int | None, seconds: float | None) -> None:
        """Write the option file, if it is not there.

        Args:
            request: what is asked for.
            command: the command line, without the folder.
            steps: of the training; or
            seconds: that it may take.

        Raises:
            ValueError, FileNotFoundError, KeyError: see `Plan`, `steps_within`; or the file was written for another command.
        """
        if self.options.exists():
            _refuse_other_command(self.options, command)
            return
        plan = Plan(request, command, self.out)
        plan.blocks.write()
        note = ""
        if steps is None:
            assert seconds is not None
            self.say("Timing a few steps")
            steps, step = steps_within(seconds, plan.render(training_steps()))
            note = f"{seconds / 60:g} minutes: a step took {step:.3g} s"
            self.say(f"A step takes {step:.3g} s: {steps:,} steps in {seconds / 60:g} minutes")
        self.out.mkdir(parents=True, exist_ok=True)
        write_text(self.options, plan.render(steps, note))
        self.say(f"Option file: {self.options}")

    def run(self) -> None:
        """Train, save, export, measure, report: whatever is not done.

        Raises:
            OptionError: the option file has errors.
            RunStopped: the training was stopped; the same command goes on.
        """
        self.progress = Progress(self.out)
        self._train()
        self._export()
        self._report()

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
                with aside(file, overwrite=True) as path:
                    found = export_checked(model, path)
            except ValueError as error:
                if file.suffix != ".onnx":
                    raise
                self.say(f"{file.name} is left out: {error}")  # a library that is not there, a network that the form cannot hold
                file.unlink(missing_ok=True)  # of the student before
                continue
            self.progress.note(file.name, self.latest)
            self.say(f"Student: {file}; against what was trained: {found[-1]}")

    def _report(self) -> None:
        page = self.out / "report.html"
        made_of = [digest(file) for file in (self.latest, *sorted(self.out.glob("*.onnx")))]
        if self.progress.is_done("report", made_of, page):
            return
        self.say("Comparing with the teacher")
        write_report([str(self.out)], page, self.device)
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
    before: tuple[Any, ...] = tuple(logger.handlers)
    initialized_logger.pop("basicsr", None)
    logger.handlers = []
    try:
        yield
    finally:
        for handler in logger.handlers:
            handler.close()
        logger.handlers = list(before)
