"""Taps: read the outputs of named modules while a network runs, without changing it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import ClassVar

from torch import Tensor, nn


def nearest(name: str, names: Iterable[str], count: int = 3) -> str:
    """The names closest to a wrong one, for an error message."""
    found = difflib.get_close_matches(name, map(str, names), n=count, cutoff=0.3)
    return ", ".join(found) if found else "none is near"


def refuse_untappable(net: nn.Module) -> None:
    """Say so where a network has no layers that could be tapped: a program, an ensemble.

    Raises:
        ValueError: it has none.
    """
    if reason := getattr(net, "untappable", None):
        raise ValueError(f"features: {reason}; expected terms `between: output` only, or one teacher from its class and weights")


@contextmanager
def unheard(listener: EarlyStop | None = None) -> Iterator[None]:
    """A pass that no taps hear, but those of the listener."""
    outer, FeatureTaps._running = FeatureTaps._running, listener or FeatureTaps.NOBODY
    try:
        yield
    finally:
        FeatureTaps._running = outer


class FeatureTaps:
    """Keeps what named modules of a network return, until it is collected.

    Modules with an `inplace` switch have it turned off, and a feature that is still overwritten after it was tapped (found by its
    version counter) is cloned, so that what is collected is what the module returned.

    Args:
        net: the network, unwrapped.
        layers: names of modules, as in `net.named_modules()`.

    Raises:
        KeyError: a name that the network does not have; the nearest ones are named.
        ValueError: the network is a program or an ensemble.
    """

    NOBODY: ClassVar[object] = object()
    _running: ClassVar[object | None] = None  # whose own pass is running

    def __init__(self, net: nn.Module, layers: Iterable[str]) -> None:
        self.layers = list(dict.fromkeys(layers))
        modules = dict(net.named_modules())
        if self.layers:
            refuse_untappable(net)
        for layer in self.layers:
            if layer not in modules or not layer:
                raise KeyError(
                    f"features: {type(net).__name__} has no layer {layer!r}; nearest: {nearest(layer, filter(None, modules))} "
                    "(`basicsr layers -opt FILE --all` lists them)"
                )
        if self.layers:
            for module in modules.values():
                if getattr(module, "inplace", False) is True:
                    setattr(module, "inplace", False)  # noqa: B010 (nn.Module has no such attribute)
        self._clone = set(self.layers)  # until a first pass has shown that nothing overwrites it
        self._features: dict[str, tuple[Tensor, Tensor, int]] = {}
        self._handles = [modules[layer].register_forward_hook(self._hook(layer)) for layer in self.layers]

    def _hook(self, layer: str):
        def keep(module: nn.Module, args: object, output: object) -> None:
            if not self._listens():
                return
            if not isinstance(output, Tensor):
                raise TypeError(f"features: layer {layer!r} returns {type(output).__name__}, expected one tensor")
            kept = output.clone() if layer in self._clone else output
            self._features[layer] = (kept, output, output._version)
            self._kept()

        return keep

    def _listens(self) -> bool:
        return FeatureTaps._running is None

    def _kept(self) -> None:
        """A feature was kept; nothing else to do here."""

    def collect(self) -> dict[str, Tensor]:
        """The features of the last forward pass, by layer name; the taps are empty afterwards.

        Raises:
            RuntimeError: a layer did not run in the last pass, or was overwritten for the first time after passes that left it
                alone.
        """
        missing = [layer for layer in self.layers if layer not in self._features]
        if missing:
            raise RuntimeError(f"features: layer {missing[0]!r} did not run in the forward pass")
        features = {}
        for layer, (kept, output, version) in self._features.items():
            if output._version == version:
                self._clone.discard(layer)
            elif layer not in self._clone:
                self._clone.add(layer)
                self._features = {}
                raise RuntimeError(
                    f"features: layer {layer!r} was overwritten in place, which earlier passes did not do; it is copied from the "
                    "next pass on"
                )
            features[layer] = kept
        self._features = {}
        return features

    def remove(self) -> None:
        """Take the taps off the network."""
        for handle in self._handles:
            handle.remove()


class EarlyStop(FeatureTaps):
    """Taps with a pass of their own, which ends as soon as each layer has run.

    They hear no other pass, and no other taps hear theirs: those of a teacher never keep the features, or the graph, of somebody
    else's pass through the same network.
    """

    class _Reached(Exception):  # noqa: N818 (no error)
        pass

    def run(self, net: nn.Module, *inputs: Tensor) -> dict[str, Tensor]:
        """Run the network these taps are on, as far as they need it.

        Args:
            net: the network.
            inputs: what it takes.

        Returns:
            The features by layer name.

        Raises:
            RuntimeError: see `collect`.
        """
        self._features = {}
        with unheard(self), suppress(EarlyStop._Reached):
            net(*inputs)
        return self.collect()

    def _listens(self) -> bool:
        return FeatureTaps._running is self

    def _kept(self) -> None:
        if len(self._features) == len(self.layers):
            raise EarlyStop._Reached
