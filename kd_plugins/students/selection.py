"""Which channels of its teacher a narrower student keeps, and their part of a tensor."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from kd_plugins.students.trace import Graph


class Selection:
    """Maps each channel of the student to the teacher's channel that it is copied from.

    Args:
        student: its graph.
        teacher: its graph, of the same plan.
        scores: for each tensor of the plan, the score of each element; channels are kept by their sum. None keeps the first ones.

    Attributes:
        chosen: for each channel of the student that is the lowest of its kind, the teacher's.
        narrowed: the families that the student has fewer of.

    Raises:
        ValueError: channels that have no counterpart, or of which the student has more.
    """

    def __init__(self, student: Graph, teacher: Graph, scores: Mapping[str, Tensor] | None) -> None:
        self.student, self.teacher = _with_single_wholes(student, teacher), teacher
        self.narrowed: set[int] = set()
        self.score = None if scores is None else self._sum(scores)
        mine, theirs = (_kinds(graph) for graph in (self.student, teacher))
        if mine.keys() != theirs.keys():
            odd = next(iter(mine.keys() - theirs.keys() or theirs.keys() - mine.keys()))
            raise ValueError(f"inherit: {self._name(odd)} pass through different operations in student and teacher")
        chosen: dict[int, int] = {}
        waiting = dict.fromkeys(mine)
        while waiting:
            for kind in list(waiting):
                if all(whole is None or whole in chosen for whole in mine[kind]):
                    del waiting[kind]
                    self._choose(kind, mine[kind], theirs[kind], chosen)
        self.chosen = torch.zeros(max(chosen, default=0) + 1, dtype=torch.long)
        for channel, source in chosen.items():
            self.chosen[channel] = source

    def _choose(
        self, kind: int, mine: dict[int | None, list[int]], theirs: dict[int | None, list[int]], chosen: dict[int, int]
    ) -> None:
        for whole, channels in mine.items():
            sources = theirs.get(None if whole is None else chosen[whole], [])
            if len(channels) > len(sources):
                raise ValueError(
                    f"inherit: {self._name(kind)}: {len(channels)} in the student, expected at most the teacher's {len(sources)}"
                )
            fixed = bool(self.teacher.fixed.intersection(sources))
            if fixed and len(channels) < len(sources):
                raise ValueError(
                    f"inherit: {self._name(kind)}: {len(channels)} in the student, expected the teacher's {len(sources)}: other "
                    "channels stand beside them"
                )
            if len(channels) < len(sources):
                self.narrowed.add(kind)
            chosen.update(zip(channels, self._pick(kind, sources, len(channels)), strict=True))

    def _pick(self, kind: int, sources: list[int], count: int) -> list[int]:
        if self.score is None or count == len(sources):
            return sources[:count]
        best = sorted(sources, key=lambda source: -self.score[source])  # type: ignore[index]
        return sorted(best[:count])

    def _sum(self, scores: Mapping[str, Tensor]) -> dict[int, float]:
        """The score of each of the teacher's channels; a whole's includes its parts'."""
        total = torch.zeros(max(self.teacher.classes, default=0) + 1, dtype=torch.float64)
        for name, all_ids in self.teacher.ids.items():
            worth = scores[name].detach().cpu().double()
            for ids in all_ids:
                others = [dim for dim in range(worth.dim()) if ids.shape[dim] == 1 and worth.shape[dim] > 1]
                total.index_add_(0, ids.flatten(), (worth.sum(others, keepdim=True) if others else worth).flatten())
        parts = sorted(self.teacher.under, key=self._depth, reverse=True)
        for part in parts:
            total[self.teacher.under[part]] += total[part]
        return dict(enumerate(total.tolist()))

    def _depth(self, channel: int) -> int:
        whole = self.teacher.under.get(channel)
        return 0 if whole is None else 1 + self._depth(whole)

    def _name(self, kind: int) -> str:
        """Describe where channels of a kind are, for a message."""
        for graph in (self.student, self.teacher):
            channels = {channel for channel, number in _told_apart(graph).items() if number == kind}
            for name, all_ids in graph.ids.items():
                if any(channels.intersection(ids.flatten().tolist()) for ids in all_ids):
                    return f"channels of {name}"
        return "groups of channels"


class Shuffle(Selection):
    """All of the teacher's channels, with those of some families shuffled; the same order each time."""

    def __init__(self, teacher: Graph, families: Collection[int]) -> None:
        self.families, self.generator = families, torch.Generator().manual_seed(0)
        super().__init__(teacher, teacher, None)

    def _pick(self, kind: int, sources: list[int], count: int) -> list[int]:
        order = torch.randperm(count, generator=self.generator).tolist()
        return [sources[index] for index in order] if kind in self.families else sources


def _with_single_wholes(student: Graph, teacher: Graph) -> Graph:
    """The student's graph with the wholes that its own trace does not show because there is only one: a single attention head."""
    parts: dict[int, set[int]] = defaultdict(set)
    for part, whole in teacher.under.items():
        parts[whole].add(teacher.family[part])
    kinds = {(teacher.family[whole], frozenset(families)) for whole, families in parts.items()}
    free = {family for channel, family in student.family.items()} - {student.family[part] for part in student.under}
    family, under = dict(student.family), dict(student.under)
    for number, families in sorted(kinds, key=str):
        orphans = [channel for channel in student.classes if student.family[channel] in families & free]
        wholes = [channel for channel in student.classes if number and student.family[channel] == number]
        if orphans and len(wholes) < 2:
            whole = wholes[0] if wholes else max(family) + 1
            family[whole] = number
            under.update(dict.fromkeys(orphans, whole))
    return replace(student, family=family, under=under, classes=sorted(family))


def _told_apart(graph: Graph) -> dict[int, int]:
    """The family of each channel, refined: wholes with different parts, and parts of different wholes, differ."""
    family = graph.family
    for _ in range(3):
        parts: dict[int, set[int]] = defaultdict(set)
        for part, whole in graph.under.items():
            parts[whole].add(family[part])
        family = {each: hash((number, *sorted(parts[each]))) for each, number in family.items()}
        family = {
            each: hash((number, family[graph.under[each]])) if each in graph.under else number for each, number in family.items()
        }
    return family


def _kinds(graph: Graph) -> dict[int, dict[int | None, list[int]]]:
    """The channels of each family, by the whole that they are parts of, in rising order."""
    kinds: dict[int, dict[int | None, list[int]]] = defaultdict(lambda: defaultdict(list))
    family = _told_apart(graph)
    for channel in graph.classes:
        kinds[family[channel]][graph.under.get(channel)].append(channel)
    return kinds


def lookup(whole: Tensor, wanted: Tensor, name: str) -> Tensor:
    """Find the places of the wanted ids; repeated ids are matched in order.

    Raises:
        ValueError: they are not there equally often.
    """
    places = torch.isin(whole, wanted).nonzero().flatten()
    places = places[whole[places].argsort(stable=True)]
    order = wanted.argsort(stable=True)
    if len(places) != len(order) or not torch.equal(whole[places], wanted[order]):
        raise ValueError(f"inherit: {name}: its channels in the student are not a part of its channels in the teacher")
    return torch.empty_like(order).scatter_(0, order, places)


def kept_rows(tensor: Tensor, name: str, plan: Sequence[tuple[int, ...]], graphs: tuple[Graph, Graph], chosen: Tensor) -> Tensor:
    """The indices along the teacher's first dimension that the student keeps; see `take`."""
    if (0,) not in plan:
        return torch.arange(len(tensor))
    mine, theirs = (graph.ids[name][list(plan).index((0,))].flatten() for graph in graphs)
    return lookup(theirs, chosen[mine], name)


def take(
    tensor: Tensor,
    name: str,
    plan: Sequence[tuple[int, ...]],
    graphs: tuple[Graph, Graph],
    chosen: Tensor,
    scaled: bool = True,
) -> Tensor:
    """Cut the student's tensor out of the teacher's.

    Args:
        tensor: the teacher's.
        name: of both.
        plan: the dimensions of its layers.
        graphs: the student's and the teacher's.
        chosen: see `Selection`.
        scaled: whether a tensor that is summed over keeps its norm.
    """
    mine, theirs = (list(graph.ids.get(name, ())) for graph in graphs)
    summed = {number for number in range(len(plan)) if (name, number) in graphs[1].sums}
    for number in sorted(range(len(plan)), key=lambda number: (len(plan[number]), number in summed)):
        before, dims, wanted = tensor, plan[number], chosen[mine[number]]
        if len(dims) == 1:
            index = lookup(theirs[number].flatten(), wanted.flatten(), name)
            tensor = tensor.index_select(dims[0], index.to(tensor.device))
            theirs = [ids if ids.shape[dims[0]] == 1 else ids.index_select(dims[0], index) for ids in theirs]
        else:
            index = lookup(theirs[number].flatten(), wanted.flatten(), name)
            tensor = tensor.flatten(0, 1)[index.to(tensor.device)].reshape(*wanted.shape[:2], *tensor.shape[2:])
        strength = torch.linalg.vector_norm(tensor)
        if number in summed and scaled and strength:
            tensor = tensor * (torch.linalg.vector_norm(before) / strength)
    return tensor
