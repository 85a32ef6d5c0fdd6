"""A student that starts from its teacher's weights [ours]: which blocks and channels it keeps, and at what scale.

What the layers of a network share is stated for each family (`restormer.py`, `nafnet.py`); nothing here knows a network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from kd_plugins.students.nafnet import nafnet_layout
from kd_plugins.students.paths import Layout, Path, indices, take
from kd_plugins.students.restormer import restormer_layout

FAMILIES: dict[str, Callable[[Mapping[str, Tensor]], Layout]] = {"NAFNet": nafnet_layout, "Restormer": restormer_layout}
CHANNELS = ("magnitude", "first")


@torch.no_grad()
def inherit(student: nn.Module, teacher: nn.Module, channels: str = "magnitude") -> dict[str, Tensor]:
    """Fill a narrower or shallower student with its teacher's weights, in place [ours].

    Blocks are kept at even spacing (`even_blocks`). Channels are chosen once for every path that layers share: a residual
    stream, the two halves of a gate, keys with values, both ends of a skip or a pixel shuffle; each attention head keeps
    equally many. A layer that now sums over fewer channels is scaled by the ratio of its weight's norms, before over after, so
    that its output keeps its size: the square root of the ratio of widths where all channels weigh alike, 1 where only dead
    ones are dropped. Where nothing is left out, the student is the teacher, bit for bit.

    Args:
        student: the network to fill, of a class in `FAMILIES`; its parameters stay the same objects.
        teacher: a network of the same class, at least as wide and deep everywhere.
        channels: 'magnitude' keeps the channels with the largest sum of squared weights, over all kept layers that read or
            write the path; 'first' keeps the first ones.

    Returns:
        For each named layer of the student that puts out inherited channels (stages, blocks, down- and up-samplings), the
        (C_student,) LongTensor, on the CPU, of the teacher's channels that they are: channel i is the teacher's kept[i].

    Raises:
        ValueError: the class is unknown or not the teacher's, the student is wider or deeper somewhere, or it differs in what
            cannot be sliced (image channels, heads, kind of norm). The student is then as it was.
    """
    if channels not in CHANNELS:
        raise ValueError(f"inherit: channels={channels!r}, expected one of {', '.join(map(repr, CHANNELS))}")
    pair = _Pair(student, teacher)
    kept = pair.choose(channels)
    for name, tensor in [(name, pair.slice(name, kept)) for name in pair.student.axes]:
        pair.student.tensors[name].copy_(tensor)
    return {layer: indices(pair.teacher.outputs[pair.source(layer)], kept) for layer in pair.student.outputs}


def even_blocks(count: int, of: int) -> list[int]:
    """Which blocks of a stage are kept: the middle one of each of `count` equal runs, the later of two middle ones.

    Args:
        count: blocks to keep; 0 leaves the stage an identity.
        of: blocks of the teacher's stage.

    Returns:
        `count` numbers, rising: [1, 4] of 6, [1, 3, 5] of 6, [1] of 2, all where `count` equals `of`.
    """
    return [(2 * block + 1) * of // (2 * count) for block in range(count)]


class _Pair:
    """A student's and a teacher's layout, matched name by name."""

    def __init__(self, student: nn.Module, teacher: nn.Module) -> None:
        family, other = type(student).__name__, type(teacher).__name__
        if family != other:
            raise ValueError(f"inherit: the student is a {family}, the teacher a {other}: expected the same class")
        if family not in FAMILIES:
            raise ValueError(f"inherit: no channel paths are known for {family}, expected one of {', '.join(sorted(FAMILIES))}")
        self.student, self.teacher = (_layout(family, net) for net in (student, teacher))
        self._blocks = {
            f"{stage}.{block}": f"{stage}.{source}"
            for stage, count in self.student.stages.items()
            for block, source in enumerate(even_blocks(count, self._depth(stage, count)))
        }
        self._paths = self._match()

    def _depth(self, stage: str, count: int) -> int:
        depth = self.teacher.stages.get(stage, 0)
        if count > depth:
            raise ValueError(f"inherit: the student is deeper: {count} blocks in {stage}, expected at most the teacher's {depth}")
        return depth

    def source(self, name: str) -> str:
        """What a tensor, layer or path of the student is called in the teacher."""
        for stage in self.student.stages:
            if name.startswith(f"{stage}."):
                number, dot, rest = name[len(stage) + 1 :].partition(".")
                return self._blocks[f"{stage}.{number}"] + dot + rest
        return name

    def _match(self) -> dict[str, tuple[Path, Path]]:
        """Pair the paths, by the teacher's names, after checking that each tensor can be cut out of the teacher's."""
        sources = {self.source(name) for name in self.student.axes}
        skipped = tuple(
            f"{stage}.{block}."
            for stage, depth in self.teacher.stages.items()
            for block in range(depth)
            if stage in self.student.stages and f"{stage}.{block}" not in self._blocks.values()
        )
        if left := [name for name in self.teacher.axes if name not in sources and not name.startswith(skipped)]:
            raise ValueError(f"inherit: the student has nothing for the teacher's {left[0]}, expected networks of one structure")
        paths: dict[str, tuple[Path, Path]] = {}
        for name, axes in self.student.axes.items():
            source = self.source(name)
            if source not in self.teacher.axes:
                raise ValueError(f"inherit: the student's {name} is not in the teacher, expected networks of one structure")
            for dim, axis in axes.items():
                for mine, theirs in zip(axis, self.teacher.axes[source][dim], strict=True):
                    _check_path(mine, theirs)
                    paths[theirs.name] = mine, theirs
            mine, theirs = self.student.tensors[name].shape, self.teacher.tensors[source].shape
            for dim, (n, m) in enumerate(zip(mine, theirs, strict=True)):
                if dim not in axes and n != m:
                    raise ValueError(
                        f"inherit: {name} is {tuple(mine)}, the teacher's {tuple(theirs)}: expected {m} along dimension {dim}"
                    )
        return paths

    def choose(self, channels: str) -> dict[str, Tensor]:
        """The kept channels of each path, by the teacher's name."""
        scores = {name: torch.zeros(theirs.size, dtype=torch.float64) for name, (_, theirs) in self._paths.items()}
        for name in map(self.source, self.student.axes):
            energy = self.teacher.tensors[name].cpu().double().square()
            for dim, axis in self.teacher.axes[name].items():
                rows = energy.movedim(dim, 0).reshape(energy.shape[dim], -1).sum(1)
                for path, part in zip(axis, rows.split([path.size * path.times for path in axis]), strict=True):
                    scores[path.name] += part.view(path.size, path.times).sum(1)
        kept = {}
        for name, (mine, theirs) in self._paths.items():
            heads, each = theirs.heads, mine.size // theirs.heads
            score = scores[name].view(heads, -1)
            order = (
                score.argsort(dim=1, descending=True, stable=True)
                if channels == "magnitude"
                else torch.arange(each).expand(heads, -1)
            )
            start = torch.arange(heads)[:, None] * score.shape[1]
            kept[name] = (order[:, :each].sort(1).values + start).flatten()
        return kept

    def slice(self, name: str, kept: Mapping[str, Tensor]) -> Tensor:
        """A tensor of the student, out of the teacher's."""
        source = self.source(name)
        axes, summed = self.teacher.axes[source], self.teacher.sums.get(source)
        whole = take(self.teacher.tensors[source], {dim: axis for dim, axis in axes.items() if dim != summed}, kept)
        if summed is None:
            return whole
        x = take(whole, {summed: axes[summed]}, kept)
        strength = torch.linalg.vector_norm(x)
        return x * (torch.linalg.vector_norm(whole) / strength) if strength else x


def _layout(family: str, net: nn.Module) -> Layout:
    try:
        layout = FAMILIES[family](net.state_dict())
    except KeyError as error:
        raise ValueError(f"inherit: this {family} has no tensor {error}, expected the published parameter names") from error
    if unknown := sorted(set(layout.tensors) - set(layout.axes)):
        raise ValueError(f"inherit: {unknown[0]} is not a tensor of a {family} with the published parameter names")
    return layout


def _check_path(mine: Path, theirs: Path) -> None:
    if mine.heads != theirs.heads:
        raise ValueError(f"inherit: {mine.name} has {mine.heads} heads, expected the teacher's {theirs.heads}")
    if mine.size > theirs.size:
        raise ValueError(
            f"inherit: the student is wider: {mine.size} channels in {mine.name}, expected at most the teacher's {theirs.size}"
        )
