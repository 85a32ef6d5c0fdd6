"""The student that a run made of its teacher, kept in the run's folder: another timing would choose another one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from kd_plugins.atomic_files import write_text
from kd_plugins.home import expand
from kd_plugins.students.from_teacher import TIMES, read_request
from kd_plugins.yaml_loader import Loader

_NAME = "student.yml"
_NOTE = "# What `network_g: {from_teacher: ...}` means in this run, which goes on with this student and is tested with it.\n"


def keep_student(folder: str | Path, chosen: Mapping[str, Any] | None) -> None:
    """Write down what was chosen, if anything was.

    Args:
        folder: of the run, experiments/NAME.
        chosen: the request, `from_teacher`; the student's `network_g` block; what it `costs`, in words.

    Raises:
        OSError: it cannot be written.
    """
    file = Path(folder) / _NAME
    if chosen and not file.is_file():
        text = yaml.safe_dump(dict(chosen), default_flow_style=None, sort_keys=False, width=1000)
        write_text(file, _NOTE + text)


def kept_student(weights: str | Path, request: Any) -> dict[str, Any] | None:
    """What a run has chosen, of which there are weights.

    Args:
        weights: a state or a network in a folder of the run's.
        request: the `from_teacher` block, as the option file has it by now.

    Returns:
        See `keep_student`; None where nothing is kept, and the student is found again by counting.

    Raises:
        ValueError: the run was begun for another request; nothing is kept, and the student of these weights was found by timing;
            or what is kept cannot be read.
    """
    file, asked = expand(weights).parent.parent / _NAME, read_request(request)
    if not file.is_file():
        if asked.target in TIMES:
            raise ValueError(
                f"network_g:from_teacher: {asked}, but {file}, which says what student {weights} is of, is not there, expected "
                f"that file, or `network_g` as the log of its training has it"
            )
        return None
    try:
        kept = yaml.load(file.read_text(encoding="utf-8"), Loader)
        before, block = read_request(kept["from_teacher"]), dict(kept["network_g"])
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"network_g:from_teacher: {file} cannot be read: {' '.join(str(error).split())}") from error
    if before != asked:
        raise ValueError(
            f"network_g:from_teacher: {asked}, but the run has the student of {before} ({file}), expected that, or another `name`"
        )
    return {"from_teacher": before.as_block(), "network_g": block, "costs": str(kept.get("costs"))}
