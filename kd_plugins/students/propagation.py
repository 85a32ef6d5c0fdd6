"""How operations propagate channels: which channels of the inputs are tied together, and which ones the output has.

A tensor has labels: a weight has one for its rows and one for its columns, an attention map of channels one for queries and one for
keys. Only dimensions that differ between student and teacher are labelled at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from kd_plugins.students.union_find import ChannelUnionFind


@dataclass(frozen=True, eq=False)
class Label:
    """The channels that the elements of a tensor belong to, in one sense: the rows of a weight, say, or its columns.

    Attributes:
        ids: of the channels, see `union_find.py`.
        origin: the tensor of the state dict that it came with, and which of its labels it is.
    """

    ids: Tensor
    origin: tuple[str, int] | None = None


@dataclass(frozen=True, eq=False)
class ChannelInfo:
    """What is known of a tensor.

    Attributes:
        labels: one for each sense.
        soft: it sums to one along a labelled dimension: the weights of a mean.
        averaged: it is such a mean, which is larger by itself where it is one of fewer.
    """

    labels: tuple[Label, ...] = ()
    soft: bool = False
    averaged: bool = False


@dataclass
class ChannelRules:
    """The effect of operations on labels.

    Attributes:
        channels: which channels are the same.
        sums: labels of the state dict's tensors that a sum runs over, except over means.
    """

    channels: ChannelUnionFind
    sums: set[tuple[str, int]] = field(default_factory=set)

    # ---------------------------------------------------------------------------------------------- pieces

    def merge(self, labels: Iterable[Label]) -> tuple[Label, ...]:
        """Merge labels: those that determine each other are the same channels; one that another determines is its whole."""
        found: list[Label] = []
        for new in labels:
            told = False
            for old in list(found):
                forth, back = self.channels.relate(old.ids, new.ids)
                if forth and back:
                    self.channels.join(old.ids, new.ids)
                    told = True
                elif forth:
                    self.channels.put_under(old.ids, new.ids)
                    told = True
                elif back:
                    self.channels.put_under(new.ids, old.ids)
                    found.remove(old)
            if not told:
                found.append(new)
        return tuple(found)

    def along(self, labels: Iterable[Label], dim: int, size: int) -> list[Label]:
        """The labels that vary along a dimension; along one of size 1, those that do not vary at all."""
        return [label for label in labels if label.ids.shape[dim] > 1 or (size == 1 and label.ids.numel() == 1)]

    def spread(self, labels: Iterable[Label], dims: tuple[int, ...]) -> tuple[Label, ...]:
        """The labels after an operation that mixes positions along these dimensions."""
        return tuple(replace(label, ids=self.channels.collapse(label.ids, dims)) for label in labels)

    def sum_over(self, labels: Iterable[Label], dim: int, size: int) -> tuple[Label, ...]:
        """The labels after a sum along a dimension (kept, of size 1): of the channels summed over, their groups remain."""
        labels = list(labels)
        summed = self.along(labels, dim, size)
        groups = [self.channels.groups(label.ids, dim) for label in summed]
        return self.merge(
            [*(label for label in labels if label not in summed), *(Label(group) for group in groups if group is not None)]
        )

    def contract(self, a: ChannelInfo, b: ChannelInfo, dim: int, size: int) -> tuple[Label, ...]:
        """The labels after a sum of products along a dimension; both operands are broadcast to one shape."""
        mine, theirs = (self.along(x.labels, dim, size) for x in (a, b))
        if len(mine) > 1 or len(theirs) > 1 or len(mine) != len(theirs):
            raise ValueError("multiplies channels whose number changes by something that does not follow them")
        if mine:
            self.channels.join(mine[0].ids, theirs[0].ids)
            if not (a.averaged or b.averaged):
                self.sums.update(label.origin for label in (*mine, *theirs) if label.origin)
        rest = [label for label in (*a.labels, *b.labels) if label not in mine and label not in theirs]
        return self.merge([*rest, *self.sum_over(mine, dim, size)])

    # ---------------------------------------------------------------------------------------------- operations

    def pointwise(self, rank: int, inputs: list[ChannelInfo]) -> ChannelInfo:
        """An elementwise operation, after broadcasting."""
        labels = [Label(_ranked(label.ids, rank)) for info in inputs for label in info.labels]
        return ChannelInfo(self.merge(labels), averaged=any(info.averaged for info in inputs))

    def move(
        self, func: Callable[..., Any], shape: torch.Size, info: ChannelInfo, rest: tuple[Any, ...], options: Any
    ) -> list[ChannelInfo]:
        """An operation that moves elements: it moves the ids likewise. Returns what is known of each output."""
        outputs: list[list[Label]] = []
        for label in info.labels:
            moved = func(label.ids.expand(shape), *rest, **options)
            for index, ids in enumerate(moved if isinstance(moved, (tuple, list)) else [moved]):
                if index == len(outputs):
                    outputs.append([])
                outputs[index].append(replace(label, ids=self.channels.compact(ids)))
        return [replace(info, labels=tuple(labels)) for labels in outputs]

    def cat(self, tensors: list[Tensor], info: list[ChannelInfo], dim: int) -> ChannelInfo:
        """A concatenation; where only some pieces have labels, the channels of the others cannot be left out."""
        dim %= tensors[0].dim()
        kinds: dict[tuple[int, ...], list[Tensor | None]] = {}  # along `dim`, or else by shape
        for index, each in enumerate(info):
            for label in each.labels:
                kind = () if label in self.along([label], dim, tensors[index].shape[dim]) else label.ids.shape
                if kinds.setdefault(kind, [None] * len(tensors))[index] is not None:
                    raise ValueError("puts maps beside each other that have several kinds of channels")
                kinds[kind][index] = label.ids
        labels = []
        for all_ids in kinds.values():
            known = [ids for ids in all_ids if ids is not None]
            sizes = [max(ids.shape[axis] for ids in known) for axis in range(known[0].dim())]
            alike = any(sizes[axis] > 1 for axis in range(len(sizes)) if axis != dim) and all(ids.shape[dim] == 1 for ids in known)
            pieces = []
            for tensor, ids in zip(tensors, all_ids, strict=True):
                size = tensor.shape[dim]
                if ids is None:
                    one = [1] * tensor.dim()
                    ids = known[0] if alike else self.channels.new(*one[:dim], size, *one[dim + 1 :], fixed=True)
                pieces.append(ids.expand([size if axis == dim else wide for axis, wide in enumerate(sizes)]))
            labels.append(Label(self.channels.compact(torch.cat(pieces, dim))))
        return ChannelInfo(tuple(labels), averaged=all(each.averaged for each in info))

    def matmul(self, a: Tensor, b: Tensor, of_a: ChannelInfo, of_b: ChannelInfo) -> ChannelInfo:
        """A product of matrices, (..., m, k) times (..., k, n)."""
        mine = replace(of_a, labels=tuple(replace(label, ids=label.ids.unsqueeze(-1)) for label in of_a.labels))
        theirs = replace(of_b, labels=tuple(replace(label, ids=label.ids.unsqueeze(-3)) for label in of_b.labels))
        weights = [(of_a, a.dim() - 1), (of_b, b.dim() - 2)]  # on either side
        is_mean = any(info.soft and self.along(info.labels, dim, a.shape[-1]) for info, dim in weights)
        labels = self.contract(mine, theirs, a.dim() - 1, a.shape[-1])
        return ChannelInfo(tuple(Label(self.channels.compact(label.ids.squeeze(-2))) for label in labels), averaged=is_mean)

    def convolution(
        self, x: Tensor, weight: Tensor, of_x: ChannelInfo, of_weight: ChannelInfo, transposed: bool, groups: int
    ) -> ChannelInfo:
        """A convolution of any number of dimensions, without its bias."""
        positions = tuple(range(2, x.dim()))
        of_x = replace(of_x, labels=self.spread(of_x.labels, positions))
        of_weight = replace(of_weight, labels=self.spread(of_weight.labels, positions))
        if groups == 1:
            if not transposed:
                of_weight = replace(
                    of_weight, labels=tuple(replace(label, ids=label.ids.transpose(0, 1)) for label in of_weight.labels)
                )
            # positions are of size 1 in all labels: (N, in, out) is enough of a space
            mine = replace(of_x, labels=tuple(replace(label, ids=label.ids.flatten(1)[..., None]) for label in of_x.labels))
            theirs = replace(of_weight, labels=tuple(replace(label, ids=_matrix(label.ids)[None]) for label in of_weight.labels))
            labels = self.contract(mine, theirs, 1, x.shape[1])
            return ChannelInfo(tuple(Label(_ranked(label.ids.squeeze(1), 2, after=x.dim())) for label in labels))
        return self._grouped(x, weight, of_x, of_weight, transposed, groups)

    def _grouped(
        self, x: Tensor, weight: Tensor, of_x: ChannelInfo, of_weight: ChannelInfo, transposed: bool, groups: int
    ) -> ChannelInfo:
        each = x.shape[1] // groups
        if transposed and weight.shape[1] != 1:
            raise ValueError("is a transposed convolution in groups")
        mine = self.along(of_x.labels, 1, x.shape[1])
        rows = [_matrix(label.ids) for label in of_weight.labels if label.ids.shape[0] == len(weight) and label.ids.shape[1] == 1]
        columns = [] if each == 1 else [_matrix(label.ids) for label in self.along(of_weight.labels, 1, weight.shape[1])]
        if len(mine) > 1 or len(rows) > 1 or len(columns) > 1 or bool(mine) != bool(columns or (each == 1 and rows)):
            raise ValueError("is a convolution in groups whose channels differ in number in another way than its input's")
        rest = tuple(label for label in of_x.labels if label not in mine)
        inner = [label.ids.expand(-1, x.shape[1], *label.ids.shape[2:]).reshape(-1, groups, each) for label in mine]
        if inner and columns:
            apart = 1 if len(columns[0]) == 1 else groups
            self.channels.join(inner[0][:, :, None], columns[0].reshape(apart, -1, each))
        if not mine:
            for row in rows:
                self.channels.fix(row)
            return ChannelInfo((*rest, *(Label(_ranked(row.T, 2, after=x.dim())) for row in rows)))
        outer = [row.reshape(groups, -1) for row in rows]
        of_input = self.channels.groups(inner[0], 2)
        of_output = self.channels.groups(outer[0], 1) if outer else None
        if of_input is not None and of_output is not None:
            self.channels.join(of_input, of_output[None])
        if rows:
            return ChannelInfo((*rest, Label(_ranked(rows[0].T, 2, after=x.dim()))), averaged=of_x.averaged and each == 1)
        if of_input is None:
            return ChannelInfo(rest)
        repeated = of_input.expand(-1, -1, weight.shape[0] // groups).flatten(1)
        return ChannelInfo((*rest, Label(_ranked(repeated, 2, after=x.dim()))))


def _matrix(ids: Tensor) -> Tensor:
    return ids.reshape(ids.shape[:2])


def _ranked(ids: Tensor, rank: int, after: int | None = None) -> Tensor:
    """Add leading dimensions of size 1 up to a rank, or trailing ones."""
    if after is not None:
        return ids.reshape(*ids.shape, *[1] * (after - ids.dim()))
    return ids.reshape(*[1] * (rank - ids.dim()), *ids.shape)
