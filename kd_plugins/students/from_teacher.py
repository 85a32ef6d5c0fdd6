"""What `network_g: {from_teacher: ...}` asks for, and the student that it means."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from kd_plugins.students.family import Candidate, Family

TARGETS = ("flops", "params")
FACTORS = ("width", "depth")
TOLERANCE = 0.1
"""How far from a share its student may be, where `tolerance` does not say otherwise."""


def choose(family: Family, request: Mapping[str, Any]) -> Candidate:
    """The student that a `from_teacher` block asks for.

    Args:
        family: the teacher's.
        request: `flops` or `params`: the share of the teacher's, in (0, 1); or `width` and `depth`: factors of all such arguments.
            Of those within 10 % of a share (or the `tolerance` beside it: 0.3), the one whose width and depth shrink most alike.

    Raises:
        ValueError: none is near; another request.
    """
    target, share = read_request(request)
    if target is None:
        return _of_factors(family, request)
    tried: list[Candidate] = []
    for fine in (False, True):
        for each in family.near(target, share, fine):
            tried += [each] if all(each.changes != other.changes for other in tried) else []
            if is_near(each, request):
                return each
    tried.sort(key=lambda each: abs(math.log(getattr(each, target) / share)))
    nearest = ", ".join(f"{getattr(each, target):.3f} ({each.changes})" for each in tried[:2])
    raise ValueError(
        f"from_teacher:{target}: {share}, no student within {100 * tolerance(request):g} % of it; nearest: {nearest}"
        f"{_enough(tried, target, share)}"
    )


def is_near(candidate: Candidate, request: Mapping[str, Any]) -> bool:
    """Whether a student is within the tolerance of the share that is asked for."""
    target, share = read_request(request)
    return target is not None and abs(getattr(candidate, target) / share - 1) <= tolerance(request) + 1e-9


def tolerance(request: Mapping[str, Any]) -> float:
    """How far from a share its student may be, as a part of it."""
    return float(request.get("tolerance", TOLERANCE))


def _enough(tried: list[Candidate], target: str, share: float) -> str:
    """What to write to get the nearest one."""
    off = min((abs(getattr(each, target) / share - 1) for each in tried), default=1.0)
    return f"; {{{target}: {share}, tolerance: {math.ceil(100 * off) / 100:g}}} takes the nearest" if off < 1 else ""


def read_request(request: Any) -> tuple[str | None, float]:
    """What a `from_teacher` block asks for: 'flops' or 'params', and the share; None for factors.

    Raises:
        ValueError: something else.
    """
    known = (*TARGETS, *FACTORS, "tolerance")
    if not isinstance(request, Mapping) or not request or not set(request) <= set(known):
        raise ValueError(f"from_teacher: {request!r}, expected {{flops: 0.15}}, {{params: 0.15}} or {{width: 0.5, depth: 0.5}}")
    for key, value in request.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
            what = "part of the share" if key == "tolerance" else "share of the teacher's"
            raise ValueError(f"from_teacher:{key}: {value!r}, expected a {what}, above 0 and at most 1")
    targets = [key for key in request if key in TARGETS]
    if "tolerance" in request and not targets:
        raise ValueError(f"from_teacher:tolerance: {request['tolerance']}, expected flops or params beside it")
    if targets and len(request) - ("tolerance" in request) > 1:
        raise ValueError(f"from_teacher: {', '.join(request)}, expected one of flops and params, or width and depth")
    return (targets[0], float(request[targets[0]])) if targets else (None, math.nan)


def student_of(teacher: Any, request: Any) -> tuple[dict[str, Any], Candidate]:
    """The block of the student that `network_g: {from_teacher: request}` means, and what it costs.

    Args:
        teacher: the teacher's block.
        request: see `choose`.

    Raises:
        ValueError: see `Family`, `choose`.
    """
    read_request(request)
    if not isinstance(teacher, Mapping):
        raise ValueError("network_g:from_teacher: the option file has no `teacher` block to make a student of")
    family = Family(teacher)
    chosen = choose(family, request)
    return family.blueprint.block(chosen.changes), chosen


def _of_factors(family: Family, request: Mapping[str, Any]) -> Candidate:
    values = family.width_values(fine=True)
    wanted = request.get("width", 1) * values[-1]
    if request.get("width", 1) < 1 and not family.widths:
        raise ValueError(f"from_teacher:width: {type(family.teacher).__name__} has no argument that is a width")
    if request.get("depth", 1) < 1 and not family.depths:
        raise ValueError(f"from_teacher:depth: {type(family.teacher).__name__} has no argument that is a depth")
    for value in sorted(values, key=lambda value: abs(value - wanted)):
        found = family.candidate(value / values[-1], request.get("depth", 1))
        if found is not None:
            return found
    raise ValueError(f"from_teacher: {dict(request)}, no such {type(family.teacher).__name__} can be built")
