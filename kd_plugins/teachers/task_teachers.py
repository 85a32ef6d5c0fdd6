"""A teacher for each task; builds any teacher from its option block."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kd_plugins.arguments import build
from kd_plugins.messages import nearest
from kd_plugins.teachers.cache import TeacherCache
from kd_plugins.teachers.network import build_trained
from kd_plugins.teachers.network_keys import CACHE, TASKS
from kd_plugins.teachers.teacher import Observation, Teacher


class TaskTeachers(Teacher):
    """Several teachers as one: each sample is shown to the teacher of its own task [ours].

    Where one network has to stand for all of them (`net`), it is the first one's.

    Args:
        members: the teacher of each task.
        key: the name in the option file, for messages.
    """

    def __init__(self, members: Mapping[str, Teacher], key: str = "teacher") -> None:
        super().__init__(next(iter(members.values())).net, key)
        self.names = list(members)
        self.members = nn.ModuleList(members.values())  # no ModuleDict: it takes no '.' in a name, nor that of a method

    def tap(self, layers: Iterable[str]) -> None:
        """Choose the layers whose features a call returns, the same ones of each member.

        Raises:
            KeyError: a layer that a member does not have.
            ValueError: a member has an output and no layers.
        """
        layers = list(layers)
        for member in self._members():
            try:
                member.tap(layers)
            except (KeyError, ValueError) as error:
                raise type(error)(f"{member.key}: {error.args[0]}") from error

    @torch.no_grad()
    def forward(self, x: Tensor, tasks: Sequence[str] | None = None) -> Observation:
        """Restore a batch: each member runs once, on the samples of its task.

        Args:
            x: (N, C, H, W) in [0, 1].
            tasks: the task of each sample.

        Returns:
            The images (N, C', H', W') and the tapped features, in the order of the batch, all detached.

        Raises:
            ValueError: samples without a task, or of one that has no teacher; members that differ in the shape of what they return.
        """
        return self._by_task(x, tasks, Teacher.__call__)

    def observe(self, x: Tensor, tasks: Sequence[str] | None = None) -> Observation:
        """As a call, each member from its cache where it has one."""
        return self._by_task(x, tasks, Teacher.observe)

    def caches(self) -> list[TeacherCache]:
        """Those of the members."""
        return [cache for member in self._members() for cache in member.caches()]

    def _by_task(self, x: Tensor, tasks: Sequence[str] | None, look: Callable[..., Observation]) -> Observation:
        if tasks is None or len(tasks) != len(x):
            raise ValueError(
                f"{self.key}: {TASKS}: {', '.join(self.names)}, but the batch has {'no' if tasks is None else len(tasks)} names of "
                f"tasks (`task`) for {len(x)} samples, expected data of the type TaskDataset"
            )
        if unknown := [task for task in tasks if task not in self.names]:
            raise ValueError(f"{self.key}: {TASKS}: no teacher for {unknown[0]!r}; nearest: {nearest(unknown[0], self.names)}")
        places = {name: [place for place, task in enumerate(tasks) if task == name] for name in self.names}
        seen = {m: look(m, x[mine]) for m, mine in zip(self._members(), places.values(), strict=True) if mine}
        order = torch.tensor([place for mine in places.values() for place in mine], device=x.device)
        return _joined(seen, order.argsort())

    def fit_sizes(self, channels: int) -> None:
        """Fit the sizes of each member."""
        for member in self._members():
            member.fit_sizes(channels)

    def try_out(self, x: Tensor) -> Observation:
        """Restore an example by each member; see `Teacher.try_out`.

        Returns:
            What the first one makes of it.

        Raises:
            ValueError: as there; members that differ in the shape of what they return.
        """
        seen = {member: member.try_out(x) for member in self._members()}
        return _joined(seen, torch.arange(len(x), device=x.device))

    def _members(self) -> list[Teacher]:
        return list(self.members)  # type: ignore[arg-type]


def _joined(seen: Mapping[Teacher, Observation], order: Tensor) -> Observation:
    """Concatenate what several teachers returned for their samples, and restore the order of the batch."""
    (first, expected), *others = seen.items()
    for member, part in others:
        pairs = [("its image", part.image, expected.image)]
        pairs += [(f"features: its layer {layer!r}", value, expected.features[layer]) for layer, value in part.features.items()]
        for what, mine, theirs in pairs:
            if mine.shape[1:] != theirs.shape[1:]:
                raise ValueError(
                    f"{member.key}: {what} is {tuple(mine.shape[1:])}, that of {first.key} {tuple(theirs.shape[1:])}, expected one "
                    "shape for all tasks"
                )
    parts = seen.values()
    features = {layer: torch.cat([part.features[layer] for part in parts])[order] for layer in expected.features}
    return Observation(torch.cat([part.image for part in parts])[order], features)


def build_teacher(opt: Mapping[str, Any], key: str = "teacher") -> Teacher:
    """Build a teacher from its block of an option file.

    Args:
        opt: see `build_source`; with weights: `checkpoint` (a path, or the name of a bundled teacher), `program` or `ensemble`; and
            `cache`, a folder, or the arguments of `TeacherCache`. Or `tasks`: such a block for each task.
        key: the block's name in the option file, for messages.

    Returns:
        The teacher, on the CPU; its call returns the restored image and the tapped features (`Teacher.tap`).

    Raises:
        ValueError: no weights, no architecture, or weights that do not fit; `tasks` beside other keys, or none of them.
        FileNotFoundError: no such checkpoint.
        KeyError: no such architecture.
    """
    if not isinstance(opt, Mapping) or TASKS not in opt:
        return _one_teacher(opt, key)
    tasks = opt[TASKS]
    if len(opt) > 1 or not isinstance(tasks, Mapping) or not tasks:
        raise ValueError(f"{key}: {dict(opt)}, expected nothing but `{TASKS}: {{TASK: {{checkpoint: FILE}}, ...}}`")
    members = {str(task): (block, f"{key}:{TASKS}:{task}") for task, block in tasks.items()}
    return TaskTeachers({task: _one_teacher(*member) for task, member in members.items()}, key)


def _one_teacher(opt: Any, key: str) -> Teacher:
    block = {name: value for name, value in opt.items() if name != CACHE} if isinstance(opt, Mapping) else {}
    named = opt.get(CACHE) if block else None
    options = {"folder": named} if isinstance(named, str) else named
    cache = build(TeacherCache, options, (*key.split(":"), CACHE)) if options else None
    return Teacher(build_trained(opt, key), key, cache, block)
