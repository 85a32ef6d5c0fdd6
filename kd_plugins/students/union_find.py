"""Ids of channels: which of them are the same channel, and which are parts of one.

*Ids* are an integer tensor that says for each element of another tensor which channel it belongs to. It has as many dimensions, and
size 1 along those that it does not vary along.
"""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor


class ChannelUnionFind:
    """A union-find over whole arrays of ids, and a forest: a channel of a head is under the id of that head."""

    def __init__(self) -> None:
        self._root = torch.empty(0, dtype=torch.long)
        self._fixed: list[Tensor] = []
        self._under: list[tuple[Tensor, Tensor]] = []

    def new(self, *shape: int, fixed: bool = False) -> Tensor:
        """New ids, numbered upwards.

        Args:
            shape: of the ids.
            fixed: whether nothing may be left out of them.
        """
        count = len(self._root)
        ids = torch.arange(count, count + int(torch.Size(shape).numel()))
        self._root = torch.cat([self._root, ids])
        if fixed:
            self.fix(ids)
        return ids.view(shape)

    def fix(self, ids: Tensor) -> None:
        """Mark channels as fixed: none of them may be left out."""
        self._fixed.append(ids.flatten())

    def find(self, ids: Tensor) -> Tensor:
        """The lowest id of each channel."""
        return self._root[ids]

    def join(self, a: Tensor, b: Tensor) -> None:
        """Join channels element by element; the ids broadcast."""
        a, b = torch.broadcast_tensors(a, b)
        while True:
            mine, theirs = self.find(a), self.find(b)
            apart = mine != theirs
            if not apart.any():
                return
            pair = torch.stack([mine[apart], theirs[apart]])
            self._root.scatter_reduce_(0, pair.amax(0), pair.amin(0), "amin")
            while not torch.equal(root := self._root[self._root], self._root):
                self._root = root

    def collapse(self, ids: Tensor, dims: tuple[int, ...]) -> Tensor:
        """Join all channels along these dimensions. Returns the ids with these dimensions of size 1."""
        for dim in dims:
            if ids.shape[dim] > 1:
                first = ids.narrow(dim, 0, 1)
                self.join(ids, first)
                ids = first
        return ids

    def put_under(self, parts: Tensor, wholes: Tensor) -> None:
        """Declare parts of wholes, element by element: keeping a part keeps its whole. The ids broadcast."""
        parts, wholes = torch.broadcast_tensors(parts, wholes)
        self._under.append((parts.flatten(), wholes.flatten()))

    def compact(self, ids: Tensor) -> Tensor:
        """The lowest ids, of size 1 along dimensions in which they do not vary."""
        ids = self.find(ids)
        for dim, size in enumerate(ids.shape):
            if size > 1 and bool((ids == (first := ids.narrow(dim, 0, 1))).all()):
                ids = first
        return ids

    def relate(self, a: Tensor, b: Tensor) -> tuple[bool, bool]:
        """Whether an element's id in a determines its id in b, and the other way round; the ids broadcast."""
        a, b = torch.broadcast_tensors(self.find(a), self.find(b))
        if torch.equal(a, b):
            return True, True
        pairs = (a * len(self._root) + b).unique().numel()
        return pairs == a.unique().numel(), pairs == b.unique().numel()

    def groups(self, ids: Tensor, dim: int) -> Tensor | None:
        """The group of each run of ids along a dimension, where there are several disjoint runs: heads, say.

        Args:
            ids: e.g. (heads, channels).
            dim: of the runs.

        Returns:
            The ids of the groups, of size 1 along `dim`, with the members put under it; None where all runs are the same.

        Raises:
            ValueError: runs that overlap.
        """
        ids = self.compact(ids)
        rows = ids.movedim(dim, -1)
        kinds, which = rows.reshape(-1, rows.shape[-1]).sort(-1).values.unique(dim=0, return_inverse=True)
        if len(kinds) == 1:
            return None
        sets = [kind.unique() for kind in kinds]
        if len(torch.cat(sets)) != kinds.unique().numel():
            raise ValueError("sums over sets of channels that overlap")
        if all(len(members) == 1 for members in sets):
            groups = kinds[:, 0]
        else:
            groups = self.new(len(kinds))
            self.put_under(kinds, groups[:, None])
        return groups[which].view(rows.shape[:-1]).unsqueeze(dim)

    def settle(self) -> tuple[Tensor, dict[int, int], Tensor]:
        """Resolve everything at the end of a pass.

        Returns:
            The lowest id of each; the whole that a (lowest) id is under, at most one for each; which ids are fixed.
        """
        while True:
            under: dict[int, set[int]] = defaultdict(set)
            for parts, wholes in self._under:
                for part, whole in {*zip(self.find(parts).tolist(), self.find(wholes).tolist(), strict=True)}:
                    if part != whole:
                        under[part].add(whole)
            crowded = {(part, whole) for part, wholes in under.items() for whole in wholes if part in under.get(whole, ())}
            for wholes in () if crowded else under.values():  # a whole of a whole is implied
                wholes -= {above for whole in wholes for above in under.get(whole, ())}
            crowded |= {tuple(sorted(wholes)[:2]) for wholes in under.values() if len(wholes) > 1}
            if not crowded:
                break
            inside: dict[int, set[int]] = defaultdict(set)
            for part, wholes in under.items():
                for whole in wholes:
                    inside[whole].add(part)
            for a, b in crowded:
                if inside[a] < inside[b]:
                    self.put_under(torch.tensor(a), torch.tensor(b))
                elif inside[b] < inside[a]:
                    self.put_under(torch.tensor(b), torch.tensor(a))
                else:
                    self.join(torch.tensor([a]), torch.tensor([b]))
        fixed = torch.zeros(len(self._root), dtype=torch.bool)
        for ids in self._fixed:
            fixed[self.find(ids)] = True
        return self._root, {part: next(iter(wholes)) for part, wholes in under.items() if wholes}, fixed
