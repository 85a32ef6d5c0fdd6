"""Which blocks of its teacher a shallower student keeps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

Kept = dict[str, list[int]]
"""For each container, by its name in the student: the indices of the teacher's modules that the student keeps."""


def even_blocks(count: int, of: int) -> list[int]:
    """Which blocks of a stage are kept: the middle one of each of `count` equal runs, the later of two middle ones.

    Args:
        count: blocks to keep; 0 leaves the stage an identity.
        of: blocks of the teacher's stage.

    Returns:
        `count` numbers, rising: [1, 4] of 6, [1, 3, 5] of 6, [1] of 2, all where `count` equals `of`.
    """
    return [(2 * block + 1) * of // (2 * count) for block in range(count)]


def kept_blocks(student: nn.Module, teacher: nn.Module, name: str = "") -> Kept:
    """Pair the modules of two networks that differ in depth.

    Containers (Sequential, ModuleList) of other lengths keep some of a run of like modules, or of like pairs, triples and so on:
    all but the ends of `conv, relu, conv, relu, conv`, say.

    Raises:
        ValueError: the student is deeper, or lacks modules that are no run.
    """
    mine, theirs = dict(student.named_children()), dict(teacher.named_children())
    kept: Kept = {}
    if isinstance(student, (nn.Sequential, nn.ModuleList)) and len(mine) != len(theirs):
        numbers = kept[name] = _of_a_run(list(mine.values()), list(theirs.values()), name)
        theirs = dict(zip(mine, [list(theirs.values())[number] for number in numbers], strict=True))
    for child in (name for name in mine if name in theirs):
        kept |= kept_blocks(mine[child], theirs[child], f"{name}.{child}" if name else child)
    return kept


def name_in_teacher(name: str, kept: Kept) -> str:
    """What the teacher calls the module that a student's module is a copy of."""
    parts = name.split(".")
    containers = (".".join(parts[:level]) for level in range(len(parts)))
    return ".".join(str(kept[at][int(part)]) if at in kept else part for at, part in zip(containers, parts, strict=True))


@contextmanager
def without_others(teacher: nn.Module, kept: Kept) -> Iterator[None]:
    """Within this context the teacher lacks the blocks that are not kept; the others are renumbered."""
    whole: list[tuple[nn.Module, dict[str, Any]]] = []
    try:
        for name in sorted(kept, key=lambda name: name.count(".")):  # from outside in: the names are the student's
            container = teacher.get_submodule(name)
            whole.append((container, container._modules))
            modules = list(container._modules.values())
            container._modules = {str(index): modules[number] for index, number in enumerate(kept[name])}
        yield
    finally:
        for container, modules in reversed(whole):
            container._modules = modules


def _of_a_run(mine: Sequence[nn.Module], theirs: Sequence[nn.Module], name: str) -> list[int]:
    fewer = len(theirs) - len(mine)
    if fewer < 0:
        raise ValueError(
            f"inherit: the student is deeper: {len(mine)} blocks in {name}, expected at most the teacher's {len(theirs)}"
        )
    kinds = [type(module) for module in mine]
    for strict in (True, False):
        for start, period, count in _runs([_likeness(module, strict) for module in theirs]):
            left = count - fewer // period
            if fewer % period or left < 0:
                continue
            run = [start + period * unit + part for unit in even_blocks(left, count) for part in range(period)]
            numbers = [*range(start), *run, *range(start + period * count, len(theirs))]
            if [type(theirs[number]) for number in numbers] == kinds:
                return numbers
    raise ValueError(
        f"inherit: the student has {len(mine)} modules in {name}, the teacher {len(theirs)}; expected a run of similar "
        "blocks, of which some can be left out"
    )


def _runs(likeness: Sequence[Any]) -> list[tuple[int, int, int]]:
    """Repetitions as (start, period, count): the longest first, and among these the shortest period."""
    total = len(likeness)
    found = [(0, 1, 1)] if total == 1 else []
    for period in range(1, total // 2 + 1):
        start = 0
        while start + 2 * period <= total:
            stop = start
            while stop + period < total and likeness[stop] == likeness[stop + period]:
                stop += 1
            if stop - start >= period:
                found.append((start, period, (stop - start) // period + 1))
            start = stop + 1
    return sorted(found, key=lambda run: (-run[1] * run[2], run[1], run[0]))


def _likeness(module: nn.Module, strict: bool) -> Any:
    """What blocks of a run have in common: the shapes of their tensors; strictly, their settings too (shifted windows)."""
    if not strict:
        return type(module), frozenset(p.shape for p in module.parameters())
    shapes = [(name, tensor.shape) for name, tensor in module.state_dict().items()]
    settings = [
        (name, key, value)
        for name, part in module.named_modules()
        for key, value in vars(part).items()
        if isinstance(value, (int, str)) and not key.startswith("_") and key != "training"
    ]
    return type(module), tuple(shapes), tuple(settings)
