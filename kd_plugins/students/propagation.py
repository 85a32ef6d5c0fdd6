"""What an operation says of channels: which of its inputs' are the same ones, and which its output has.

A tensor is marked by layers, each a label (`union_find.py`): a weight has one for its rows and one for its columns, an attention
map of channels one for queries and one for keys. Only dimensions that differ between student and teacher are labelled at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from kd_plugins.students.union_find import Atoms


@dataclass(frozen=True, eq=False)
class Layer:
    """One label of a tensor.

    Attributes:
        label: the atoms.
        origin: the tensor of the state dict that it came with, and which of its layers it is.
    """

    label: Tensor
    origin: tuple[str, int] | None = None


@dataclass(frozen=True, eq=False)
class Marks:
    """What is known of a tensor.

    Attributes:
        layers: its labels.
        soft: it sums to one along a labelled dimension: the weights of a mean.
        averaged: it is such a mean, which is larger by itself where it is one of fewer.
    """

    layers: tuple[Layer, ...] = ()
    soft: bool = False
    averaged: bool = False


@dataclass
class Rules:
    """Applies operations to marks.

    Attributes:
        atoms: the atoms.
        sums: layers of the state dict's tensors that a sum runs over, except over means.
    """

    atoms: Atoms
    sums: set[tuple[str, int]] = field(default_factory=set)

    # ---------------------------------------------------------------------------------------------- pieces

    def merge(self, layers: Iterable[Layer]) -> tuple[Layer, ...]:
        """Layers of one element: two that tell each other are the same channels, one that is told by another is its whole."""
        found: list[Layer] = []
        for new in layers:
            told = False
            for old in list(found):
                forth, back = self.atoms.relate(old.label, new.label)
                if forth and back:
                    self.atoms.join(old.label, new.label)
                    told = True
                elif forth:
                    self.atoms.put_under(old.label, new.label)
                    told = True
                elif back:
                    self.atoms.put_under(new.label, old.label)
                    found.remove(old)
            if not told:
                found.append(new)
        return tuple(found)

    def along(self, layers: Iterable[Layer], dim: int, size: int) -> list[Layer]:
        """Those that vary along a dimension; one that does not vary at all may do so along a dimension of size 1."""
        return [layer for layer in layers if layer.label.shape[dim] > 1 or (size == 1 and layer.label.numel() == 1)]

    def spread(self, layers: Iterable[Layer], dims: tuple[int, ...]) -> tuple[Layer, ...]:
        """After an operation that mixes positions along these dimensions."""
        return tuple(replace(layer, label=self.atoms.collapse(layer.label, dims)) for layer in layers)

    def sum_over(self, layers: Iterable[Layer], dim: int, size: int) -> tuple[Layer, ...]:
        """After a sum along a dimension, which stays, of size 1: of the channels summed over, their groups are left."""
        layers = list(layers)
        summed = self.along(layers, dim, size)
        groups = [self.atoms.groups(layer.label, dim) for layer in summed]
        return self.merge(
            [*(layer for layer in layers if layer not in summed), *(Layer(group) for group in groups if group is not None)]
        )

    def contract(self, a: Marks, b: Marks, dim: int, size: int) -> tuple[Layer, ...]:
        """After a sum of products along a dimension of a space that both are laid out in."""
        mine, theirs = (self.along(x.layers, dim, size) for x in (a, b))
        if len(mine) > 1 or len(theirs) > 1 or len(mine) != len(theirs):
            raise ValueError("multiplies channels whose number changes by something that does not follow them")
        if mine:
            self.atoms.join(mine[0].label, theirs[0].label)
            if not (a.averaged or b.averaged):
                self.sums.update(layer.origin for layer in (*mine, *theirs) if layer.origin)
        rest = [layer for layer in (*a.layers, *b.layers) if layer not in mine and layer not in theirs]
        return self.merge([*rest, *self.sum_over(mine, dim, size)])

    # ---------------------------------------------------------------------------------------------- operations

    def pointwise(self, rank: int, inputs: list[Marks]) -> Marks:
        """Values at one position, after broadcasting."""
        layers = [Layer(_ranked(layer.label, rank)) for marks in inputs for layer in marks.layers]
        return Marks(self.merge(layers), averaged=any(marks.averaged for marks in inputs))

    def move(self, func: Callable[..., Any], shape: torch.Size, marks: Marks, rest: tuple[Any, ...], options: Any) -> list[Marks]:
        """Elements that change places: the labels do what the elements do; a list of the outputs' marks."""
        outputs: list[list[Layer]] = []
        for layer in marks.layers:
            moved = func(layer.label.expand(shape), *rest, **options)
            for index, label in enumerate(moved if isinstance(moved, (tuple, list)) else [moved]):
                if index == len(outputs):
                    outputs.append([])
                outputs[index].append(replace(layer, label=self.atoms.compact(label)))
        return [replace(marks, layers=tuple(layers)) for layers in outputs]

    def cat(self, tensors: list[Tensor], marks: list[Marks], dim: int) -> Marks:
        """Pieces one after the other; where only some have labels, the others are channels of which none can be left out."""
        dim %= tensors[0].dim()
        kinds: dict[tuple[int, ...], list[Tensor | None]] = {}  # along `dim`, or else by shape
        for index, each in enumerate(marks):
            for layer in each.layers:
                kind = () if layer in self.along([layer], dim, tensors[index].shape[dim]) else layer.label.shape
                if kinds.setdefault(kind, [None] * len(tensors))[index] is not None:
                    raise ValueError("puts maps beside each other that have several kinds of channels")
                kinds[kind][index] = layer.label
        layers = []
        for labels in kinds.values():
            known = [label for label in labels if label is not None]
            sizes = [max(label.shape[axis] for label in known) for axis in range(known[0].dim())]
            alike = any(sizes[axis] > 1 for axis in range(len(sizes)) if axis != dim) and all(
                label.shape[dim] == 1 for label in known
            )
            pieces = []
            for tensor, label in zip(tensors, labels, strict=True):
                size = tensor.shape[dim]
                if label is None:
                    one = [1] * tensor.dim()
                    label = known[0] if alike else self.atoms.new(*one[:dim], size, *one[dim + 1 :], fixed=True)
                pieces.append(label.expand([size if axis == dim else wide for axis, wide in enumerate(sizes)]))
            layers.append(Layer(self.atoms.compact(torch.cat(pieces, dim))))
        return Marks(tuple(layers), averaged=all(each.averaged for each in marks))

    def matmul(self, a: Tensor, b: Tensor, of_a: Marks, of_b: Marks) -> Marks:
        """(..., m, k) times (..., k, n)."""
        mine = replace(of_a, layers=tuple(replace(layer, label=layer.label.unsqueeze(-1)) for layer in of_a.layers))
        theirs = replace(of_b, layers=tuple(replace(layer, label=layer.label.unsqueeze(-3)) for layer in of_b.layers))
        is_mean = of_a.soft and bool(self.along(of_a.layers, a.dim() - 1, a.shape[-1]))
        layers = self.contract(mine, theirs, a.dim() - 1, a.shape[-1])
        return Marks(tuple(Layer(self.atoms.compact(layer.label.squeeze(-2))) for layer in layers), averaged=is_mean)

    def convolution(self, x: Tensor, weight: Tensor, of_x: Marks, of_weight: Marks, transposed: bool, groups: int) -> Marks:
        """A convolution of any number of dimensions, without its bias."""
        positions = tuple(range(2, x.dim()))
        of_x = replace(of_x, layers=self.spread(of_x.layers, positions))
        of_weight = replace(of_weight, layers=self.spread(of_weight.layers, positions))
        if groups == 1:
            if not transposed:
                of_weight = replace(
                    of_weight, layers=tuple(replace(layer, label=layer.label.transpose(0, 1)) for layer in of_weight.layers)
                )
            # positions are of size 1 in all labels: (N, in, out) is enough of a space
            mine = replace(of_x, layers=tuple(replace(layer, label=layer.label.flatten(1)[..., None]) for layer in of_x.layers))
            theirs = replace(
                of_weight, layers=tuple(replace(layer, label=_matrix(layer.label)[None]) for layer in of_weight.layers)
            )
            layers = self.contract(mine, theirs, 1, x.shape[1])
            return Marks(tuple(Layer(_ranked(layer.label.squeeze(1), 2, after=x.dim())) for layer in layers))
        return self._grouped(x, weight, of_x, of_weight, transposed, groups)

    def _grouped(self, x: Tensor, weight: Tensor, of_x: Marks, of_weight: Marks, transposed: bool, groups: int) -> Marks:
        each = x.shape[1] // groups
        if transposed and weight.shape[1] != 1:
            raise ValueError("is a transposed convolution in groups")
        mine = self.along(of_x.layers, 1, x.shape[1])
        rows = [
            _matrix(layer.label) for layer in of_weight.layers if layer.label.shape[0] == len(weight) and layer.label.shape[1] == 1
        ]
        columns = [] if each == 1 else [_matrix(layer.label) for layer in self.along(of_weight.layers, 1, weight.shape[1])]
        if len(mine) > 1 or len(rows) > 1 or len(columns) > 1 or bool(mine) != bool(columns or (each == 1 and rows)):
            raise ValueError("is a convolution in groups whose channels differ in number in another way than its input's")
        rest = tuple(layer for layer in of_x.layers if layer not in mine)
        inner = [layer.label.expand(-1, x.shape[1], *layer.label.shape[2:]).reshape(-1, groups, each) for layer in mine]
        if inner and columns:
            apart = 1 if len(columns[0]) == 1 else groups
            self.atoms.join(inner[0][:, :, None], columns[0].reshape(apart, -1, each))
        if not mine:
            for row in rows:
                self.atoms.fix(row)
            return Marks((*rest, *(Layer(_ranked(row.T, 2, after=x.dim())) for row in rows)))
        outer = [row.reshape(groups, -1) for row in rows]
        of_input = self.atoms.groups(inner[0], 2)
        of_output = self.atoms.groups(outer[0], 1) if outer else None
        if of_input is not None and of_output is not None:
            self.atoms.join(of_input, of_output[None])
        if rows:
            return Marks((*rest, Layer(_ranked(rows[0].T, 2, after=x.dim()))), averaged=of_x.averaged and each == 1)
        if of_input is None:
            return Marks(rest)
        repeated = of_input.expand(-1, -1, weight.shape[0] // groups).flatten(1)
        return Marks((*rest, Layer(_ranked(repeated, 2, after=x.dim()))))


def _matrix(label: Tensor) -> Tensor:
    return label.reshape(label.shape[:2])


def _ranked(label: Tensor, rank: int, after: int | None = None) -> Tensor:
    """With leading dimensions of size 1 up to a rank; or with trailing ones."""
    if after is not None:
        return label.reshape(*label.shape, *[1] * (after - label.dim()))
    return label.reshape(*[1] * (rank - label.dim()), *label.shape)
