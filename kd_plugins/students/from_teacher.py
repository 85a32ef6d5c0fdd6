"""What `network_g: {from_teacher: ...}` asks for, and the student that it means."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, NamedTuple

from kd_plugins.arguments import Above, AtMost, Count, checked
from kd_plugins.messages import nearest
from kd_plugins.metrics.latency import Latency, read_size
from kd_plugins.students.family import Candidate, Family
from kd_plugins.students.search import TooSlow, near, within_time
from kd_plugins.students.stopwatch import Stopwatch

_Part = Annotated[float, Above(0), AtMost(1)] | None
COSTS, TIMES, FACTORS = ("flops", "params"), ("latency", "ms"), ("width", "depth")
_TIMING = ("size", "threads", "device")
_TOLERANCE = 0.1
_EXPECTED = "{flops: 0.15}, {params: 0.15}, {latency: 0.25}, {ms: 20} or {width: 0.5, depth: 0.5}"


@checked
@dataclass(frozen=True)
class Request:
    """What a student may cost: one of `flops`, `params`, `latency`, `ms`; or `width` and `depth`, or one of them.

    Attributes:
        flops: as a share of the teacher's, like `params` and `latency`.
        params: parameters.
        latency: of one forward pass, measured when the student is chosen.
        ms: milliseconds of one forward pass, likewise.
        width: a factor of all widths.
        depth: a factor of all depths.
        tolerance: how far from `flops` or `params` the student may be, as a part of them; it is never slower than asked for.
        size: of the image that is timed: 256 or 512x768 (height x width); by default the restored one is 256 x 256.
        threads: of the CPU, for the timing; by default as many as PyTorch takes.
        device: of the timing, `cpu` or `cuda`; by default a GPU if there is one.
    """

    flops: _Part = None
    params: _Part = None
    latency: _Part = None
    ms: Annotated[float, Above(0)] | None = None
    width: _Part = None
    depth: _Part = None
    tolerance: _Part = None
    size: int | str | list[int] | None = None
    threads: Count = None
    device: str | None = None

    def __post_init__(self) -> None:
        given = self.as_block()
        targets = [name for name in (*COSTS, *TIMES) if name in given]
        if len(targets) + any(name in given for name in FACTORS) != 1:
            raise ValueError(f" {', '.join(given)}, expected one of {_EXPECTED}")
        for name, owners in {"tolerance": COSTS, **dict.fromkeys(_TIMING, TIMES)}.items():
            if name in given and self.target not in owners:
                raise ValueError(f"{name}: {given[name]}, expected {' or '.join(owners)} beside it")
        if self.size is not None:
            read_size(self.size)

    @property
    def target(self) -> str | None:
        """Which cost is asked for; None for factors."""
        return next((name for name in (*COSTS, *TIMES) if getattr(self, name) is not None), None)

    @property
    def value(self) -> float:
        """How much of it."""
        return float(getattr(self, str(self.target)))

    @property
    def timing(self) -> dict[str, Any]:
        """What a time is measured at."""
        return {name: value for name, value in self.as_block().items() if name in _TIMING}

    def seconds(self, teacher: Latency) -> float:
        """The time that a student may take, of `latency` and `ms`."""
        return self.value * teacher.median if self.target == "latency" else self.value / 1e3

    def __str__(self) -> str:
        return f"{{{', '.join(f'{name}: {value}' for name, value in self.as_block().items())}}}"

    def as_block(self) -> dict[str, Any]:
        """As an option file has it."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def read_request(request: Any) -> Request:
    """Read a `from_teacher` block.

    Raises:
        ValueError: it is none; the message names the key.
    """
    if not isinstance(request, Mapping) or not request:
        raise ValueError(f"from_teacher: {request!r}, expected {_EXPECTED}")
    names = [field.name for field in fields(Request)]
    if unknown := next((key for key in request if key not in names), None):
        raise ValueError(f"from_teacher:{unknown}: no such key; nearest: {nearest(unknown, names)}")
    try:
        return Request(**request)
    except ValueError as error:
        raise ValueError(f"from_teacher:{str(error).removeprefix('Request: ')}") from None


# ---------------------------------------------------------------------------------------------- choosing


def candidates(family: Family, request: Request, watch: Stopwatch) -> Iterator[Candidate]:
    """The students that fit a request; the first is the one that it means.

    For a share of FLOPs or parameters: of those within the tolerance, the one whose width and depth shrink most alike. For a time:
    see `within_time`.

    Args:
        family: the teacher's.
        request: what is asked for.
        watch: times them; it is used where a time is asked for.

    Raises:
        ValueError: there is none; the message names the nearest.
    """
    if request.target is None:
        yield _of_factors(family, request)
    elif request.target in TIMES:
        yield from _within_time(family, request, watch)
    else:
        yield from _near(family, request)


def _near(family: Family, request: Request) -> Iterator[Candidate]:
    target, share, tolerance = str(request.target), request.value, request.tolerance or _TOLERANCE
    tried: list[Candidate] = []
    found = False
    for fine in (False, True):
        for each in near(family, target, share, fine):
            if any(each.changes == other.changes for other in tried):
                continue
            tried.append(each)
            if abs(getattr(each, target) / share - 1) <= tolerance + 1e-9:
                found = True
                yield each
        if found:
            return
    tried.sort(key=lambda each: abs(math.log(getattr(each, target) / share)))
    off = min((abs(getattr(each, target) / share - 1) for each in tried), default=1.0)
    enough = f"; {{{target}: {share}, tolerance: {math.ceil(100 * off) / 100:g}}} takes the nearest" if off < 1 else ""
    nearby = ", ".join(f"{getattr(each, target):.3f} ({each.changes})" for each in tried[:2])
    raise ValueError(f"from_teacher:{target}: {share}, no student within {100 * tolerance:g} % of it; nearest: {nearby}{enough}")


def _within_time(family: Family, request: Request, watch: Stopwatch) -> list[Candidate]:
    said = f"from_teacher:{request.target}: {request.value:g}"
    if request.seconds(watch.teacher) > watch.teacher.median:
        raise ValueError(f"{said}, expected less than the teacher itself takes: {watch.teacher} at {watch.where}")
    try:
        return within_time(family, watch, lambda: request.seconds(watch.teacher))
    except TooSlow as error:
        raise ValueError(f"{said}, {error} at {watch.where}") from error


def _of_factors(family: Family, request: Request) -> Candidate:
    values, width, depth = family.width_values(fine=True), request.width or 1, request.depth or 1
    wanted = width * values[-1]
    if width < 1 and not family.widths:
        raise ValueError(f"from_teacher:width: {type(family.teacher).__name__} has no argument that is a width")
    if depth < 1 and not family.depths:
        raise ValueError(f"from_teacher:depth: {type(family.teacher).__name__} has no argument that is a depth")
    for value in sorted(values, key=lambda value: abs(value - wanted)):
        found = family.candidate(value / values[-1], depth)
        if found is not None:
            return family.with_flops(found)
    raise ValueError(f"from_teacher: {request}, no such {type(family.teacher).__name__} can be built")


class Student(NamedTuple):
    """A student made of its teacher.

    Attributes:
        block: `network_g` as an option file has it.
        candidate: what it costs.
        said: that in words, against what was asked for.
    """

    block: dict[str, Any]
    candidate: Candidate
    said: str


def student_of(teacher: Any, request: Any, note: Callable[[str], Any] = lambda line: None) -> Student:
    """The student that `network_g: {from_teacher: request}` means.

    Args:
        teacher: the teacher's block.
        request: see `Request`.
        note: called with a line for each network that is timed on the way.

    Raises:
        ValueError: see `read_request`, `Family`, `candidates`.
    """
    asked = read_request(request)
    if not isinstance(teacher, Mapping):
        raise ValueError("network_g:from_teacher: the option file has no `teacher` block to make a student of")
    family = Family(teacher)
    watch = Stopwatch(family, **asked.timing, note=note)
    chosen = next(candidates(family, asked, watch))
    costs = [f"{getattr(chosen, name):.3f} of its {name}" for name in COSTS if not math.isnan(getattr(chosen, name))]
    if asked.target in TIMES:
        latency, teachers = watch.latency(chosen), watch.teacher
        costs.insert(0, f"{latency.median / teachers.median:.3f} of its latency: {latency} of {teachers} at {watch.where}")
    return Student(family.blueprint.block(chosen.changes), chosen, f"{', '.join(costs)}; asked for: {asked}")
