"""The teacher: frozen, without gradient, one forward for all its views."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kd_plugins.archs.adapter import describe_output, describe_refusal
from kd_plugins.features import FeatureTaps, fit_sizes
from kd_plugins.teachers.cache import TeacherCache, identity_of


class Observation(NamedTuple):
    """What a network returned for a batch: the restored images, and the tapped features by layer name."""

    image: Tensor
    features: dict[str, Tensor]

    def part(self, start: int, stop: int) -> Observation:
        """The images `start` to `stop` of the batch."""
        return Observation(self.image[start:stop], {name: value[start:stop] for name, value in self.features.items()})


class Teacher(nn.Module):
    """A frozen network that returns the restored image and the features of named layers.

    It stays in eval mode whatever its parent is set to, its parameters ask for no gradient, and it runs under `torch.no_grad` (not
    inference mode: its tensors are targets of losses, and some losses save their targets for the backward pass).

    Args:
        net: the network with its weights.
        key: its name in the option file, for messages.
        cache: where `observe` looks first, if anywhere.
        block: its options, which belong to what names it in the cache.
    """

    def __init__(
        self, net: nn.Module, key: str = "teacher", cache: TeacherCache | None = None, block: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.key, self.cache, self.block = key, cache, block or {}
        self._identity = ""  # known once there is something to look up: it takes a pass over all weights
        self.net = net.requires_grad_(False).eval()
        self._taps = FeatureTaps(net, [])

    def tap(self, layers: Iterable[str]) -> None:
        """Choose the layers whose features a call returns, in place of those chosen before.

        Raises:
            KeyError: a layer that the network does not have.
        """
        self._taps.remove()
        self._taps, self._identity = FeatureTaps(self.net, layers), ""

    def train(self, mode: bool = True) -> Teacher:
        """Stay in eval mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, x: Tensor, tasks: Sequence[str] | None = None) -> Observation:
        """Restore a batch.

        Args:
            x: (N, C, H, W) in [0, 1].
            tasks: the task of each sample; no matter to a teacher of all (see `TaskTeachers`).

        Returns:
            The image (N, C', H', W') and the tapped features, all detached.

        Raises:
            ValueError: the network returns several outputs.
        """
        with self._taps:
            image = self.net(x)
        if not isinstance(image, Tensor):
            raise ValueError(f"{self.key}: {describe_output(self.net, image)}; choose one: `output: 0`, or a key")
        return Observation(image, self._taps.collect())

    def observe(self, x: Tensor, tasks: Sequence[str] | None = None) -> Observation:
        """As a call, from the cache where there is one."""
        if self.cache is None:
            return self(x, tasks)
        self._identity = self._identity or identity_of(self.net, self.block, self._taps.layers, x.device)
        return Observation(*self.cache(self, self._identity, x))

    def caches(self) -> list[TeacherCache]:
        """The caches that `observe` looks into."""
        return [] if self.cache is None else [self.cache]

    def fit_sizes(self, channels: int) -> None:
        """Find the sizes of images that the network takes, and pad others to them (see `fit_sizes`)."""
        fit_sizes(self.net, [channels], self.key)

    def try_out(self, x: Tensor) -> Observation:
        """Restore an example before the first step, to report what would fail in it.

        Args:
            x: (N, C, H, W) in [0, 1].

        Returns:
            As a call.

        Raises:
            ValueError: the network does not take the image, returns several outputs, or numbers that are not finite.
        """
        try:
            seen = self(x)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, AssertionError, TypeError, IndexError, AttributeError) as error:
            raise ValueError(f"{self.key}: {describe_refusal(self.net, x, error)}") from error
        if not torch.isfinite(seen.image).all():
            raise ValueError(f"{self.key}: its image has numbers that are not finite, expected weights that restore images")
        return seen


def observe(
    teachers: Mapping[str, Teacher], views: Mapping[str, Tensor], tasks: Sequence[str] | None = None
) -> dict[str, Observation]:
    """Show each teacher its views; a teacher that has several of one size sees them as ONE batch.

    Args:
        teachers: the teacher of each view, e.g. {'degraded': A, 'clean': B}; A and B may be the same object.
        views: the images (N, C, H, W) of each view.
        tasks: the task of each of the N samples, where the data has several.

    Returns:
        What the teacher made of each view.

    Raises:
        ValueError: a clean view of another size: super-resolution has none.
    """
    sizes = {view: tuple(image.shape) for view, image in views.items()}
    if len({size[1:] for view, size in sizes.items() if view in ("degraded", "clean")}) > 1:
        said = f"{sizes['degraded']}, clean {sizes['clean']}"
        raise ValueError(f"teacher: its views are degraded {said}, expected one size: at a scale above 1 there is no clean view")
    observations: dict[str, Observation] = {}
    for key in dict.fromkeys((id(teachers[view]), sizes[view][1:]) for view in views):
        names = [view for view in views if (id(teachers[view]), sizes[view][1:]) == key]
        teacher = teachers[names[0]]
        images = torch.cat([views[name] for name in names]) if len(names) > 1 else views[names[0]]
        seen = teacher.observe(images, None if tasks is None else [*tasks] * len(names))
        start = 0
        for name in names:
            stop = start + len(views[name])
            observations[name] = seen.part(start, stop)
            start = stop
    return observations
