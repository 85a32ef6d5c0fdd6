"""How long a teacher and students of its family take on the machine at hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from kd_plugins.archs.adapter import describe_refusal
from kd_plugins.metrics.latency import RESTORED, Latency, describe_machine, read_size, time_at, using_threads
from kd_plugins.students.family import Candidate, Family

_ALONE = (5, 1.0)  # passes and seconds of one network alone: enough to know where to look next
_IN_TURNS = (7, 15.0)


class Stopwatch:
    """Times networks of a family on one image, each once, with random weights and without gradient.

    Args:
        family: the teacher's.
        size: of the image, see `read_size`; by default the restored one is 256 x 256.
        threads: of the CPU; by default as many as PyTorch takes.
        device: where they run; by default a GPU if there is one.
        note: called with a line for each network that was timed alone.

    Attributes:
        where: the size and the machine, in words.

    Raises:
        ValueError: no such device, or no size.
    """

    def __init__(
        self,
        family: Family,
        size: Any = None,
        threads: int | None = None,
        device: str | None = None,
        note: Callable[[str], Any] = lambda line: None,
    ) -> None:
        self.family = family
        self.threads = threads
        self.note = note
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        side = RESTORED * family.image.shape[-1] // family.answer[-1]
        height, width = read_size(side if size is None else size)
        generator = torch.Generator().manual_seed(0)
        try:
            self.image = torch.rand(1, family.image.shape[1], height, width, generator=generator).to(device)
        except (RuntimeError, AssertionError) as error:  # PyTorch without CUDA asserts
            raise ValueError(f"from_teacher:device: {device!r}, expected cpu, or cuda where PyTorch has a GPU") from error
        with using_threads(threads):
            self.where = f"{height}x{width} on {describe_machine(self.image.device)}"
        self._known: dict[str, Latency] = {}

    @property
    def teacher(self) -> Latency:
        """Of the teacher."""
        return self._of({})

    def latency(self, candidate: Candidate) -> Latency:
        """Of a candidate: measured when it is asked for first, and by `take_turns`."""
        return self._of(candidate.changes)

    def share(self, candidate: Candidate) -> float:
        """A candidate's latency over the teacher's, of the fastest passes: other work on the machine is in them least."""
        return self.latency(candidate).fastest / self.teacher.fastest

    def take_turns(self, candidates: Sequence[Candidate]) -> None:
        """Time the teacher and candidates alternately; what was known before is forgotten: the machine may have changed."""
        changes = [{}, *(each.changes for each in candidates)]
        self._known = dict(zip(map(str, changes), self._time(changes, *_IN_TURNS), strict=True))

    def _of(self, changes: Mapping[str, Any]) -> Latency:
        if str(changes) not in self._known:
            self._known[str(changes)] = found = self._time([changes], *_ALONE)[0]
            self.note(f"{changes or 'the teacher'}: {found}")
        return self._known[str(changes)]

    def _time(self, changes: Sequence[Mapping[str, Any]], repeats: int, seconds: float) -> list[Latency]:
        nets: list[nn.Module] = [self.family.blueprint.build(each).to(self.image.device) for each in changes]
        with using_threads(self.threads), torch.inference_mode():
            try:
                return time_at(nets, self.image, repeats, seconds)
            except (RuntimeError, AssertionError, ValueError) as error:
                raise ValueError(f"from_teacher:size: {describe_refusal(nets[0], self.image, error)}") from error
