"""Which file is restored into which: an image or a folder of them, sub-folders kept; no input is written to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from kd_plugins.deploy.images import KINDS, kind_of

VIDEOS = (".mp4", ".mkv", ".mov", ".webm", ".avi", ".m4v")
"""How the names of videos end."""


class Job(NamedTuple):
    """A file, and the one that it is restored into."""

    source: Path
    target: Path


def find_jobs(given: Path, output: Path, suffix: str = "", extension: str | None = None) -> list[Job]:
    """What there is to restore.

    Args:
        given: an image, a video, or a folder.
        output: a folder; for one file also a file.
        suffix: is added to the names, before the ending.
        extension: how the names of restored images end, without a dot; None: as those of the given ones.

    Returns:
        The files in the order of their names. Those below the output folder are none of the input.

    Raises:
        ValueError: no such input, or nothing to restore in it; an output that is an input, or that of two of them, or cannot be
            written; a kind that is not known.
    """
    if suffix != Path(suffix).name:
        raise ValueError(f"--suffix: {suffix!r}, expected a part of a name, without folders")
    if extension is not None and kind_of(Path(f"x.{extension}")) is None:
        raise ValueError(f"--ext: {extension!r}, expected one of auto, {', '.join(_endings())}")
    if given.is_dir():
        if output.is_file():
            raise ValueError(f"-o {output}: is a file, expected a folder for those of {given}")
        place = _real(output)
        within = _real(given) in place.parents
        sources = [path for path in find_images(given) if not (within and place in _real(path).parents)]
        if not sources:
            raise ValueError(f"-i {given}: no image in it ({', '.join(_endings())})")
    elif given.is_file():
        sources = [given]
        if kind_of(given) is None and given.suffix.lower() not in VIDEOS:
            kinds = ", ".join([*_endings(), *(ending[1:] for ending in VIDEOS)])
            raise ValueError(f"-i {given}: neither an image nor a video by its name, expected one of {kinds}")
    else:
        raise ValueError(f"-i {given}: no such file or folder")
    jobs = [Job(source, _target(source, given, output, suffix, extension)) for source in sources]
    _refuse_clashes(jobs)
    refuse_place(jobs[0].target, "-o")
    return jobs


def find_images(folder: Path) -> list[Path]:
    """The images of a folder and its sub-folders, by their names and in their order; a link to nothing is named as it is read."""
    found = [path for path in sorted(folder.rglob("*")) if kind_of(path) and _is_there(path)]
    return [path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)]


def refuse_place(file: Path, flag: str) -> None:
    """Refuse a file that cannot be written, before there is anything to write into it.

    Args:
        file: it; its folder need not be there yet.
        flag: of the command line, that names it.

    Raises:
        ValueError: it is a folder, or is in something that is none, or in one that nothing can be written to.
    """
    if file.is_dir():
        raise ValueError(f"{flag} {file}: is a folder, expected a file")
    there = next((folder for folder in file.parents if os.path.lexists(folder)), Path())
    if not there.is_dir():
        raise ValueError(f"{flag} {file}: {there} is no folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"{flag} {file}: nothing can be written to the folder {there}")


def _is_there(path: Path) -> bool:
    """Whether it is a file, or a link to nothing, which is named when it is read."""
    return path.is_file() or (path.is_symlink() and not path.exists())


def _real(path: Path) -> Path:
    """As `Path.resolve`, which raises where links go round in a circle."""
    return Path(os.path.realpath(path))


def _endings() -> list[str]:
    return [ending[1:] for endings in KINDS.values() for ending in endings]


def _target(source: Path, given: Path, output: Path, suffix: str, extension: str | None) -> Path:
    if source == given:
        if output.suffix and not output.is_dir():
            if kind_of(source) and kind_of(output) is None:
                raise ValueError(f"-o {output}: no image by its name, expected one of {', '.join(_endings())}, or a folder")
            if suffix or (extension and kind_of(Path(f"x.{extension}")) != kind_of(output)):
                raise ValueError(f"-o {output}: names the file, expected no --suffix and no --ext beside it, or a folder")
            return output
        folder = output
    else:
        folder = output / source.parent.relative_to(given)
    ending = f".{extension}" if extension and kind_of(source) else source.suffix
    return folder / f"{source.stem}{suffix}{ending}"


def _refuse_clashes(jobs: list[Job]) -> None:
    inputs = {_real(job.source) for job in jobs}
    owners: dict[Path, Path] = {}
    for source, target in jobs:
        place = _real(target)
        if place in inputs or (target.exists() and target.samefile(source)):
            raise ValueError(f"-o {target}: is an input, which is never written to; expected another folder")
        if place in owners:
            raise ValueError(f"-o {target}: would come of both {owners[place]} and {source}; expected no --ext")
        owners[place] = source
