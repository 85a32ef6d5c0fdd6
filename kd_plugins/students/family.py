"""A student of its teacher's family, of a given share of its cost [ours].

Which arguments of the class are widths, and which depths, is found by trying.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kd_plugins.features.layer_outputs import evaluating, example_images
from kd_plugins.metrics.complexity import count_flops
from kd_plugins.students.blueprint import Blueprint
from kd_plugins.students.depth import kept_blocks, without_others
from kd_plugins.students.inherit import plan_labels

_HEADS_AT_MOST = 0.9  # halving a number of heads leaves more than this share of the parameters, halving a width less
_DEPTHS = (1, 5 / 6, 3 / 4, 2 / 3, 1 / 2, 1 / 3, 1 / 4, 1 / 6, 1 / 8)
_FINE = 24  # depths of twenty-fourths
_NARROW = 8  # a whole number below is no width: how many times wider something is, say
_WIDTHS = 24  # how many widths are looked at, at most
_STEPS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64, 96, 128)
_SIZES = ((32, 32), (64, 64), (48, 48), (56, 56), (128, 128))


class Candidate(NamedTuple):
    """A network of the family.

    Attributes:
        changes: its arguments, where they are not the teacher's.
        width: its width over the teacher's.
        depth: its blocks over the teacher's.
        params: its parameters over the teacher's.
        flops: its FLOPs over the teacher's; nan where they are not counted.
    """

    changes: dict[str, Any]
    width: float
    depth: float
    params: float
    flops: float = math.nan


class Family:
    """The networks of a teacher's class that are narrower and shallower than it.

    Args:
        teacher: the teacher's block of an option file.

    Attributes:
        widths: the arguments that are widths, with the teacher's values.
        depths: those that are depths.

    Raises:
        ValueError: the constructor's arguments cannot be read, or none of them is a width or a depth.
    """

    def __init__(self, teacher: Mapping[str, Any]) -> None:
        self.blueprint = Blueprint(teacher)
        self.teacher = self.blueprint.outline({})
        self.params = _count(self.teacher)
        self.image, self.answer = self._show(self.blueprint.build({}))
        self.widths: dict[str, Any] = {}
        self.depths: dict[str, Any] = {}
        failed = self._find_arguments()
        if not self.widths and not self.depths:
            tried = "; ".join(failed) or f"none of {', '.join(self.blueprint.arguments) or 'none'} is a whole number above 1"
            raise ValueError(
                f"from_teacher: no argument of {type(self.teacher).__name__} was found to be a width or a depth ({tried}); "
                "name the student's own `type` and arguments"
            )

    @cached_property
    def flops(self) -> float:
        """Those of the teacher, on the image that candidates are measured on."""
        return count_flops(self.blueprint.build({}), self.image)

    def _show(self, net: nn.Module) -> tuple[Tensor, torch.Size]:
        for size in _SIZES:
            for image in example_images(net, *size, torch.device("cpu")):
                if (shape := _answer(net, image)) is not None:
                    return image, shape
        raise ValueError(
            f"from_teacher: {type(net).__name__} takes none of the images of {_SIZES}; `pad_to: 8` in its block pads them"
        )

    # ---------------------------------------------------------------------------------------------- arguments

    def _find_arguments(self) -> list[str]:
        """Sort the arguments into widths and depths; returns what was tried of the others, and why it is neither."""
        failed = []
        for name, value in self.blueprint.arguments.items():
            if not _is_whole(value):
                continue
            tried: dict[str, str] = {}
            for ratio in _ratios(value):
                changes = {name: _times(value, ratio, least=1)}
                if changes[name] == value or str(changes[name]) in tried:
                    continue
                kind, reason = self._kind(changes)
                if kind:
                    (self.widths if kind == "width" else self.depths)[name] = value
                    break
                tried[str(changes[name])] = reason
            else:
                failed += [f"{name}: {', '.join(tried)} tried: {next(iter(tried.values()))}"] if tried else []
        return failed

    def _kind(self, changes: Mapping[str, Any]) -> tuple[str, str]:
        """What a change makes, narrower ('width') or shallower ('depth'); or why it is nothing that a student could be."""
        try:
            net = self.blueprint.outline(changes)
            kept = kept_blocks(net, self.teacher)
            with without_others(self.teacher, kept):
                plan = plan_labels(net, self.teacher)
        except Exception as error:  # arguments that do not go together
            return "", (str(error).splitlines() or [type(error).__name__])[0][:100]
        kernels = any(dim > 1 and len(dims) == 1 for name, layers in plan.items() for dims in layers for dim in dims)
        is_width = bool(plan) and not kept and not kernels and _count(net) < _HEADS_AT_MOST * self.params
        is_width = is_width and min(_flat([self.blueprint.arguments[name] for name in changes])) >= _NARROW
        is_depth = not plan and (bool(kept) or self._repeats_less(changes))
        if not (is_width or is_depth):
            return "", "neither narrower nor shallower"
        if self._working(changes) is None:
            return "", "does not answer an image as the teacher does"
        return "width" if is_width else "depth", ""

    def _repeats_less(self, changes: Mapping[str, Any]) -> bool:
        """Whether the same layers run fewer times: the repetitions of a recurrent network are its depth."""
        net = self._working(changes)
        return net is not None and _calls(net, self.image) < self._runs

    @cached_property
    def _runs(self) -> int:
        return _calls(self.blueprint.build({}), self.image)

    def _working(self, changes: Mapping[str, Any]) -> nn.Module | None:
        """The network of these arguments, if it answers an image as the teacher does."""
        try:
            net = self.blueprint.build(changes)
        except Exception:  # arguments that do not go together
            return None
        return net if _answer(net, self.image) == self.answer else None

    # ---------------------------------------------------------------------------------------------- candidates

    @cached_property
    def _step(self) -> tuple[int, int]:
        """The teacher's narrowest width, and by how much it can be less: heads have to divide it, say."""
        whole = min(_flat(self.widths.values()), default=1)
        steps = (step for step in _STEPS if step <= whole // 2)
        return whole, next((step for step in steps if self._working(self._narrowed((whole - step) / whole)) is not None), whole)

    def width_values(self, fine: bool = False) -> list[int]:
        """The values of the narrowest width that are looked at: rising, the teacher's last; all that there are, or some of them."""
        whole, step = self._step
        return list(range(whole, 0, -(step if fine else step * math.ceil(whole / _WIDTHS / step))))[::-1]

    def _narrowed(self, factor: float) -> dict[str, Any]:
        return {name: _times(value, factor, least=1) for name, value in self.widths.items()}

    def _shallower(self, factor: float) -> dict[str, Any]:
        return {name: _times(value, factor, least=1) for name, value in self.depths.items()}

    def depth_factors(self, fine: bool = False) -> list[float]:
        """The depths that differ, falling from 1; all that there are, or some of them."""
        found: dict[str, float] = {}
        for factor in (part / _FINE for part in range(_FINE, 0, -1)) if fine else _DEPTHS:
            found.setdefault(str(self._shallower(factor)), factor)
        return list(found.values())

    def candidate(self, width: float, depth: float) -> Candidate | None:
        """The network of these factors, if there is one that is built and runs.

        Args:
            width: of every width argument.
            depth: of every depth argument.
        """
        changes = {**self._narrowed(width), **self._shallower(depth)}
        changes = {name: value for name, value in changes.items() if value != self.blueprint.arguments[name]}
        net = self._working(changes)
        return None if net is None else Candidate(changes, width, self.blocks_left(depth), _count(net) / self.params)

    def with_flops(self, candidate: Candidate) -> Candidate:
        """The candidate with its FLOPs counted, which takes a while."""
        if not math.isnan(candidate.flops):
            return candidate
        return candidate._replace(flops=count_flops(self.blueprint.build(candidate.changes), self.image) / self.flops)

    def blocks_left(self, depth: float) -> float:
        """The share of the teacher's blocks that there are at a factor of the depths."""
        blocks = sum(_flat(self.depths.values()))
        return sum(_flat(self._shallower(depth).values())) / blocks if blocks else 1.0


def _answer(net: nn.Module, image: Tensor) -> torch.Size | None:
    try:
        with evaluating(net):
            output = net(image)
    except Exception:  # what a network says of an image that it does not take is its own affair
        return None
    return output.shape if isinstance(output, Tensor) else None


def _calls(net: nn.Module, image: Tensor) -> int:
    """How many layers run in a pass, each time counted."""
    count = 0

    def note(*_: Any) -> None:
        nonlocal count
        count += 1

    for layer in net.modules():
        if next(layer.parameters(recurse=False), None) is not None:
            layer.register_forward_hook(note)
    _answer(net, image)
    return count


def _ratios(value: Any) -> Iterator[float]:
    """By what an argument is made smaller: simple parts first; then multiples of its divisors, which heads may want."""
    yield from (1 / 2, 2 / 3, 3 / 4)
    whole = math.gcd(*_flat([value]))
    for divisor in (number for number in range(2, whole) if whole % number == 0):
        yield (whole // divisor // 2 or 1) * divisor / whole


def _count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def _is_whole(value: Any) -> bool:
    values = value if isinstance(value, (list, tuple)) else [value]
    return bool(values) and all(isinstance(each, int) and not isinstance(each, bool) for each in values) and max(values) > 1


def _times(value: Any, factor: float, least: int) -> Any:
    """A whole number, or each of a list, times a factor; 0 stays 0."""
    if isinstance(value, (list, tuple)):
        return [_times(each, factor, least) for each in value]
    return max(least, math.floor(value * factor + 0.5)) if value else value


def _flat(values: Any) -> Sequence[int]:
    return [each for value in values for each in (value if isinstance(value, (list, tuple)) else [value])]
