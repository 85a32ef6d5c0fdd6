"""Students of a teacher's family near a cost, or within a time: for each depth a width, found with few measurements [ours]."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

from kd_plugins.students.family import Candidate, Family
from kd_plugins.students.stopwatch import Stopwatch

_CLOSE = 0.02  # a cost as near as this is looked no further for
_MOST = 8  # widths tried at one depth
_POWER = {"flops": 2.0, "params": 2.0, "time": 1.5}  # of the width that a cost goes with, until more is known
_DEPTHS, _SECONDS = 4, 60.0  # of a search by time: how many depths it compares; after which it begins with no further one
_ATTEMPTS, _LESS = 3, 0.9  # where none is fast enough when it takes turns with its teacher: again, for less time


def depths_by_likeness(family: Family, share: float, power: float, fine: bool) -> list[tuple[float, float]]:
    """Depths, and the width at which each probably has a share of the cost: those first that shrink as their width does.

    Args:
        family: the teacher's.
        share: of the teacher's cost.
        power: the cost is taken to go with this power of the width, and with the depth.
        fine: whether all depths are looked at.
    """
    pairs = [(depth, (share / family.blocks_left(depth)) ** (1 / power)) for depth in family.depth_factors(fine)]
    return sorted(pairs, key=lambda pair: abs(math.log(pair[1] / family.blocks_left(pair[0]))))


def try_widths(
    family: Family, depth: float, guess: float, cost: Callable[[Candidate], float], share: float, power: float, fine: bool
) -> Iterator[tuple[Candidate, float]]:
    """Candidates of one depth and their costs, each nearer to a share: the search halves, or guesses better than that.

    Args:
        family: the teacher's.
        depth: the factor of the depths.
        guess: the factor of the widths to begin at.
        cost: of a candidate over the teacher's; it rises with the width.
        share: the cost that is looked for.
        power: of the width that the cost goes with, as long as only one cost is known.
        fine: whether all widths are looked at.
    """
    values = family.width_values(fine)
    left = [value / family.width_values()[-1] for value in values]
    below: tuple[float, float] | None = None
    above: tuple[float, float] | None = None
    for _ in range(_MOST):
        if not left:
            return
        width = min(left, key=lambda each: abs(math.log(each / guess)))
        candidate = family.candidate(width, depth)
        if candidate is None:
            left.remove(width)
            continue
        found = cost(candidate)
        yield candidate, found
        if found <= share:
            below, left = (width, found), [each for each in left if each > width]
        else:
            above, left = (width, found), [each for each in left if each < width]
        guess = _guess(below, above, share, power)


def _guess(below: tuple[float, float] | None, above: tuple[float, float] | None, share: float, power: float) -> float:
    """The width of a cost between two known ones, and not close to either: times have steps; or beyond a known one."""
    if below and above:
        part = math.log(share / below[1]) / math.log(above[1] / below[1])
        return below[0] * (above[0] / below[0]) ** min(max(part, 0.25), 0.75)
    width, cost = below or above or (1.0, 1.0)
    return width * (share / cost) ** (1 / power)


def near(family: Family, target: str, share: float, fine: bool = False) -> Iterator[Candidate]:
    """Candidates near a share of FLOPs or parameters: the nearest one of each depth, by `depths_by_likeness`.

    Args:
        family: the teacher's.
        target: 'flops' or 'params'.
        share: of the teacher's.
        fine: whether all widths and depths are looked at.
    """

    def cost(candidate: Candidate) -> float:
        return getattr(family.with_flops(candidate) if target == "flops" else candidate, target)

    for depth, guess in depths_by_likeness(family, share, _POWER[target], fine):
        tried = []
        for candidate, found in try_widths(family, depth, guess, cost, share, _POWER[target], fine):
            tried.append((abs(math.log(found / share)), candidate._replace(**{target: found})))
            if tried[-1][0] <= _CLOSE:
                break
        if tried:
            yield min(tried, key=lambda pair: pair[0])[1]


# ---------------------------------------------------------------------------------------------- by time


def within_time(family: Family, watch: Stopwatch, limit: Callable[[], float]) -> list[Candidate]:
    """Candidates about as fast as asked for, timed in turns with their teacher; the chosen one is the first.

    At each of a few depths, those first that probably shrink as their width does, the widest candidate is looked for that is fast
    enough: channels in multiples of what a processor takes at once cost no more than fewer. Of these, the one with the most
    parameters is chosen. Candidates that are a little too slow come last.

    Args:
        family: the teacher's.
        watch: times them.
        limit: how many seconds a pass may take; asked again when the teacher has been timed again.

    Raises:
        TooSlow: none is fast enough; the message names the nearest.
    """
    found: list[Candidate] = []
    for attempt in range(_ATTEMPTS):
        found = _around(family, watch, limit() * _LESS**attempt)
        watch.take_turns(found)
        if any(watch.latency(each).median <= limit() for each in found):
            return sorted(found, key=lambda each: (watch.latency(each).median > limit(), -each.params, -each.depth))
    raise TooSlow(min(found, key=lambda each: watch.latency(each).median), watch)


class TooSlow(ValueError):
    """No candidate is fast enough."""

    def __init__(self, nearest: Candidate, watch: Stopwatch) -> None:
        super().__init__(f"no student is as fast; nearest: {nearest.changes} takes {watch.latency(nearest)}")


def _around(family: Family, watch: Stopwatch, seconds: float) -> list[Candidate]:
    """At each of a few depths the widest candidate that is fast enough, and the narrowest one that is not."""
    smallest = family.candidate(family.width_values(fine=True)[0] / family.width_values()[-1], family.depth_factors(fine=True)[-1])
    if smallest and watch.latency(smallest).fastest > seconds:
        watch.take_turns([smallest])  # once more: other work may have come in between
        if watch.latency(smallest).fastest > seconds:
            raise TooSlow(smallest, watch)
    share, end = seconds / watch.teacher.median, time.monotonic() + _SECONDS
    found, depths = [], 0
    for depth, guess in depths_by_likeness(family, share, _POWER["time"], fine=True):
        if depths == _DEPTHS or (depths and time.monotonic() > end):
            break
        costs = list(try_widths(family, depth, guess, watch.share, share, _POWER["time"], fine=True))
        fast = max((pair[0] for pair in costs if pair[1] <= share), key=lambda each: each.width, default=None)
        slow = min((pair[0] for pair in costs if pair[1] > share), key=lambda each: each.width, default=None)
        depths += fast is not None
        found += [each for each in (fast, slow) if each]
    return found if depths or not smallest else [smallest]
