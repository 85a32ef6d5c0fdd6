"""From the folders of runs to a page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from kd_plugins.atomic_files import write_text
from kd_plugins.deploy.files import refuse_place
from kd_plugins.deploy.model import find_device, load_model
from kd_plugins.metrics.latency import RESTORED
from kd_plugins.options import option_errors
from kd_plugins.report.logs import read_course
from kd_plugins.report.measure import compare
from kd_plugins.report.page import Findings, render_family, render_run, tiles
from kd_plugins.report.runs import Run, measure_costs, restorers
from kd_plugins.terminal import status


def write_report(
    folders: Sequence[str],
    output: Path | None,
    device: str = "cpu",
    images: int = 20,
    shown: int = 3,
    say: Callable[[str], Any] = lambda line: None,
) -> Path:
    """Write the page of a run, or of several students.

    Args:
        folders: of the runs, or their names in experiments/.
        output: the file; report.html in the run's folder where it is None.
        device: cpu, cuda, cuda:1, mps or auto.
        images: how many images of each validation set are restored at most.
        shown: how many of them are shown.
        say: called for each run with a line on what came out.

    Returns:
        The file.

    Raises:
        OptionError: a folder that is none of a run, or a run whose networks or images cannot be read.
    """
    place = find_device(device)
    runs = [Run(folder, place) for folder in folders]
    output = output or runs[0].home / "report.html"
    refuse_place(output, "-o")
    family = []
    for run in runs:
        with option_errors(str(run.file)):
            family.append(examine(run, images, shown, output.parent))
        at_a_glance = ", ".join(" ".join(tile) for tile in tiles(family[-1]))
        say(f"{run.name}: {' '.join(filter(None, (family[-1].course.broken, at_a_glance)))}")
    page = render_run(family[0]) if len(family) == 1 else render_family(output.parent.resolve().name, family)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_text(output, page)
    return output


def examine(run: Run, images: int, shown: int, base: Path) -> Findings:
    """Run a run's networks, and note all that its page says; of one whose students are all broken, its course.

    Raises:
        ValueError, KeyError, FileNotFoundError: a network or a dataset cannot be built.
    """
    found = Findings(run.name, _relative(run.home, base), read_course(run.folder), [], {}, notes=run.notes)
    found.options, found.has_teacher = run.file.read_text(encoding="utf-8"), bool(run.opt.get("teacher"))
    if run.checkpoint is not None:
        _measure(run, found, images, shown)
    return found


def _measure(run: Run, found: Findings, images: int, shown: int) -> None:
    student, teacher = run.student(), run.teacher()
    if teacher is not None:
        teacher.fit_sizes(student.channels)
    networks: dict[str, Any] = {"student": student}
    try:
        start = run.start(teacher)
    except (ValueError, KeyError, FileNotFoundError) as error:
        start = None
        run.note(f"The start was not scored: {error}.")
    if start is not None:
        networks["start"] = start
    for file in run.exported():
        try:
            networks[file.name] = exported = load_model(str(file), str(run.device))
            found.precisions[file.name] = exported.precision
        except ValueError as error:
            run.note(f"{file.name} was not scored: {error}.")
    found.comparisons = compare(run.opt, restorers(run, teacher, networks), images, shown, run.device)
    side = RESTORED // student.scale
    with status(f"Timing the networks of {run.name}"):
        found.costs, found.measured_at = measure_costs(run, (side, side)), f"{side}x{side}"
    found.device = _device_name(run.device)


def _relative(folder: Path, base: Path) -> str:
    try:
        return folder.relative_to(base.resolve()).as_posix()
    except ValueError:
        return folder.as_posix()


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{threads} CPU thread{'s' * (threads > 1)}" if device.type == "cpu" else device.type
