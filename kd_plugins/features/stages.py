"""Find the encoder and decoder stages of a network from what its layers return [ours]."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from torch import nn

from kd_plugins.features.layer_outputs import Run, measure

MAX_FLAT = 4


class Stage(NamedTuple):
    """One stage.

    Attributes:
        layer: the module whose output it is.
        shape: (1, C, H, W) of that output, for the image that was measured.
        size: its side over that of the network's input: 0.5 for half of it.
        depth: where it stands in the network, up to 1.
    """

    layer: str
    shape: tuple[int, ...]
    size: float
    depth: float


class Stages(NamedTuple):
    """The stages of a network.

    Attributes:
        encoder: from the input on; the bottleneck is the last one.
        decoder: from the bottleneck on.
        flat: the network has one resolution and no bottleneck.
    """

    encoder: list[Stage]
    decoder: list[Stage]
    flat: bool

    @property
    def above_bottleneck(self) -> list[Stage]:
        """The encoder without the bottleneck; all of it where there is none."""
        return self.encoder if self.flat else self.encoder[:-1]

    def roles(self) -> dict[str, str]:
        """What each layer is: 'encoder 1', 'bottleneck', 'decoder 2'."""
        roles = {stage.layer: f"encoder {number}" for number, stage in enumerate(self.encoder, 1)}
        if not self.flat:
            roles[self.encoder[-1].layer] = "bottleneck"
        return roles | {stage.layer: f"decoder {number}" for number, stage in enumerate(self.decoder, 1)}


class _Step(NamedTuple):
    """A module on the way of the image through the network.

    Attributes:
        run: its call.
        tap: the call whose map stands for it: its own, or one inside where it returns no map.
        area: positions of the output.
        block: 2 where it computes at one resolution with several weights, 1 where it changes the resolution with several, else 0.
        kind: what it is made of.
        group: steps that belong together: those of one container.
    """

    run: Run
    tap: Run
    area: int
    block: int
    kind: str
    group: str


def find_stages(net: nn.Module, top: Run | None = None) -> Stages:
    """Find the stages of a network in one pass over a small image.

    In a U the last container (or block) at each resolution on the way down is a stage of the encoder, the bottleneck included. On
    the way up it is the first one made of what the encoder has at that resolution, or the last one where none is: a refinement
    after the decoder is not its stage. Two alike at the bottleneck are the encoder's last and the decoder's first. In a flat
    network the repeated blocks of its body end up to four stages at even distances, the first half of them the encoder, the others
    the decoder. A layer that returns tokens or a tuple is stood for by the last map inside of it; one that runs several times is
    left out: it has no one output.

    Args:
        net: the network, unwrapped.
        top: what `measure` said of it, where it is known already.

    Returns:
        The stages; a decoder may have none.

    Raises:
        ValueError: nothing was found, or the network cannot be measured.
    """
    top = top or measure(net)
    found = next((stages for level in _main_line(top) if (stages := _find_u(level, top))), None) or _find_flat(top)
    if found is None:
        raise ValueError(f"no stages were found in {type(net).__name__}")
    return found


def _main_line(top: Run) -> Iterator[Run]:
    """The network, then the module that holds most of its weights, and so on inwards: it may be a mere wrapper."""
    level: Run | None = top
    while level is not None:
        yield level
        total = sum(_weights(run.module) for run in level.inner)
        level = next((run for run in level.inner if run.inner and 2 * _weights(run.module) > total), None)


def _find_u(level: Run, top: Run) -> Stages | None:
    steps = list(_steps(level.inner))
    blocks = [step for step in steps if step.block]
    if not blocks and level is top:  # convolutions called one by one; the last makes the image
        blocks = [step for step in steps if _weights(step.run.module)][:-1]
    levels = [_best(list(group)) for _, group in groupby(blocks, key=lambda step: step.area)]
    areas = [steps[0].area for steps in levels]
    if not areas or all(area == min(areas) for area in areas[: areas.index(min(areas)) + 1]):
        return None
    low = min(areas)
    first, last = areas.index(low), len(areas) - 1 - areas[::-1].index(low)
    down = [steps for number, steps in enumerate(levels[: first + 1]) if areas[number] < min(areas[:number], default=math.inf)]
    up = [levels[number] for number in range(last + 1, len(levels)) if areas[number] > max(areas[last:number])]

    encoder, decoder = [steps[-1] for steps in down], []
    middle = [list(group) for _, group in groupby(down[-1], key=lambda step: step.group)]
    ends = middle[0][-1], middle[-1][-1]
    if first == last and len(middle) > 1 and ends[0].kind == ends[1].kind and all(end.run.given == end.area for end in ends):
        encoder[-1] = ends[0]
        decoder.append(ends[1])
    kinds = {step.area: step.kind for step in encoder}
    for steps in up:
        alike = [step.group for step in steps if step.kind == kinds.get(step.area)]
        group = alike[0] if alike else steps[-1].group
        decoder.append([step for step in steps if step.group == group][-1])
    depths = [number / (len(encoder) + len(decoder)) for number in range(1, len(encoder) + len(decoder) + 1)]
    found = [_stage(step, top, depth) for step, depth in zip([*encoder, *decoder], depths, strict=True)]
    return Stages(found[: len(encoder)], found[len(encoder) :], flat=False)


def _find_flat(top: Run) -> Stages | None:
    level, plain, alone = top, True, None
    while True:
        steps = [step for step in _steps(level.inner) if step.block == 2]
        body = _repeated(steps)
        heaviest = max(steps, key=lambda step: _weights(step.run.module), default=None)
        if heaviest and _weights(heaviest.run.module) <= sum(_weights(step.run.module) for step in body):
            break
        if heaviest:
            plain = plain and isinstance(heaviest.run.module, nn.Sequential)
            alone = alone if plain or alone else heaviest  # one block, inside of nothing but containers
            level = heaviest.run
            continue
        if plain:  # layers called one by one, or in one container
            body = _repeated([step for step in _steps(level.inner) if step.run.given == step.area and _weights(step.run.module)])
        break
    if not body:
        body = [alone] if alone else []
    count = min(MAX_FLAT, len(body))
    ends = [(number + 1) * len(body) // count for number in range(count)]
    stages = [_stage(body[end - 1], top, end / len(body)) for end in ends]
    half = (count + 1) // 2
    return Stages(stages[:half], stages[half:], flat=True) if stages else None


def _stage(step: _Step, top: Run, depth: float) -> Stage:
    return Stage(step.tap.name, step.tap.shape or (), math.sqrt(step.area / (top.given or step.area)), depth)


def _repeated(steps: list[_Step]) -> list[_Step]:
    """The steps of the most common class and width; none where no two are alike."""
    looks = [(step.run.kind, *(step.tap.shape or ())[1:2]) for step in steps]
    alike, count = max(Counter(looks).items(), key=lambda item: item[1], default=(None, 0))
    return [step for step, look in zip(steps, looks, strict=True) if look == alike] if count > 1 else []


def _best(steps: list[_Step]) -> list[_Step]:
    best = max(step.block for step in steps)
    return [step for step in steps if step.block == best]


def _steps(runs: Sequence[Run], group: str | None = None) -> Iterator[_Step]:
    """The modules one after the other; what changes the resolution is looked into for the blocks at either side of the change."""
    for run in runs:
        tap = _tap(run)
        if tap is None or run.passes:
            continue
        area = run.area or tap.area or 0
        own = group or _group(run)
        heavy = _weights(run.module) > 1
        if not heavy or run.given in (None, area):
            yield _Step(run, tap, area, 2 if heavy else 0, _made_of(run), own)
            continue
        inner = [step for step in _steps(run.inner, own) if step.block == 2]
        if inner and inner[-1].run is run.inner[-1] and run.forwards and run.shape:  # the same output: the outer name says more
            inner[-1] = inner[-1]._replace(run=run, tap=run)
            yield from inner
        else:
            yield from inner
            yield _Step(run, tap, area, 1, _made_of(run), own)


def _tap(run: Run) -> Run | None:
    """The call whose map represents a module."""
    if run.shape and run.calls == 1:
        return run
    for inner in reversed(run.inner):
        tap = _tap(inner)
        if tap and run.area in (None, tap.area):
            return tap
    return None


def _group(run: Run) -> str:
    """Blocks of one list belong together; nothing else does."""
    parent, _, last = run.name.rpartition(".")
    return parent if last.isdigit() and parent else run.name


def _made_of(run: Run) -> str:
    kinds = {inner.kind for inner in run.inner}
    if isinstance(run.module, nn.Sequential):
        kinds = {inner.kind for inner in run.inner if _weights(inner.module) > 1} or kinds
    return kinds.pop() if len(kinds) == 1 else run.kind


def _weights(module: nn.Module) -> int:
    """Layers with a matrix or a kernel."""
    return sum(any(p.dim() > 1 for p in part.parameters(recurse=False)) for part in module.modules())


def pair_stages(student: Sequence[Stage], teacher: Sequence[Stage], by_size: bool) -> list[tuple[str, str]]:
    """Match stages; those without a partner are left out.

    Args:
        student: stages of one group.
        teacher: those of the same group.
        by_size: stages of one size, relative to the input, are partners; else each stage of the shorter side takes the one at the
            nearest depth, in their order.

    Returns:
        The layers, (student, teacher).
    """
    if by_size:
        near = [(mine, theirs) for mine in student for theirs in teacher if abs(math.log(mine.size / theirs.size)) < math.log(1.3)]
        return [(mine.layer, theirs.layer) for mine, theirs in near]
    if len(student) > len(teacher):
        return [(mine, theirs) for theirs, mine in pair_stages(teacher, student, by_size)]
    pairs, start = [], 0
    for number, mine in enumerate(student, 1):
        free = teacher[start : len(teacher) - len(student) + number]
        theirs = min(free, key=lambda stage: abs(stage.depth - mine.depth))
        start = list(teacher).index(theirs) + 1
        pairs.append((mine.layer, theirs.layer))
    return pairs
