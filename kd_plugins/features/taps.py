"""Taps: read the outputs of named modules while a network runs, without changing it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from kd_plugins.messages import nearest

_ALL = "@all"


def refuse_untappable(net: nn.Module) -> None:
    """Raise an error for a network that has no layers to tap: a program, an ensemble.

    Raises:
        ValueError: it has none.
    """
    if reason := getattr(net, "untappable", None):
        raise ValueError(f"features: {reason}; expected terms `between: output` only, or one teacher from its class and weights")


class TapError(ValueError):
    """A named layer does not return exactly one map in a pass."""


class FeatureTaps:
    """Keeps what named modules of a network return in a pass inside `with taps:`, until it is collected.

    Passes outside are not heard: several taps may be on one network, and none keeps the features, or the graph, of another's pass.

    Modules with an `inplace` switch have it turned off, and a feature that is still overwritten after it was tapped (found by its
    version counter) is cloned, so that what is collected is what the module returned.

    Args:
        net: the network, unwrapped.
        layers: names of modules, as in `net.named_modules()`. Of a module that runs several times in a pass, NAME@2 is its second
            run, and NAME@all all of them, beside each other as channels.

    Raises:
        KeyError: a name that the network does not have; the nearest ones are named.
        ValueError: the network is a program or an ensemble, or a run that is none.
    """

    def __init__(self, net: nn.Module, layers: Iterable[str]) -> None:
        self.layers = list(dict.fromkeys(layers))
        modules = dict(net.named_modules())
        if self.layers:
            refuse_untappable(net)
        parsed = {layer: _parse_layer(layer) for layer in self.layers}
        for layer, (name, _) in parsed.items():
            if name not in modules or not name:
                raise KeyError(
                    f"features: {type(net).__name__} has no layer {layer!r}; nearest: {nearest(name, filter(None, modules))} "
                    "(`basicsr layers -opt FILE --all` lists them)"
                )
        if self.layers:
            for module in modules.values():
                if getattr(module, "inplace", False) is True:
                    setattr(module, "inplace", False)  # noqa: B010 (nn.Module has no such attribute)
        self._clone = set(self.layers)  # until a first pass has shown that nothing overwrites it
        self._features: dict[str, list[tuple[Tensor, Tensor | None, int]]] = {}
        self._runs: dict[str, int] = {}
        self._handles = [modules[name].register_forward_hook(self._hook(layer, run)) for layer, (name, run) in parsed.items()]
        self._listens = False

    def __enter__(self) -> FeatureTaps:
        self._listen()
        return self

    def __exit__(self, *error: object) -> None:
        self._listens = False

    def _listen(self) -> None:
        self._features, self._runs, self._listens = {}, {}, True

    def _hook(self, layer: str, wanted: int | None):
        def keep(module: nn.Module, args: object, output: object) -> None:
            if not self._listens:
                return
            self._runs[layer] = self._runs.get(layer, 0) + 1
            if wanted not in (None, self._runs[layer]):
                return
            if not isinstance(output, Tensor):
                raise TapError(f"features: layer {layer!r} returns {type(output).__name__}, expected one tensor")
            kept = output.clone() if layer in self._clone else output
            if layer not in self._features:
                self._features[layer] = []
            compiling = torch.compiler.is_compiling()  # compiled code overwrites what the pass before it did
            self._features[layer].append((kept, None, 0) if compiling else (kept, output, output._version))
            self._kept()

        return keep

    def _kept(self) -> None:
        """Called after a feature was kept."""

    def collect(self) -> dict[str, Tensor]:
        """The features of the pass, by layer name; the taps are empty afterwards.

        Raises:
            TapError: a layer did not run in the last pass, or several times where one run is meant, or was overwritten for the
                first time after passes that left it alone.
        """
        found, runs = self._features, self._runs
        self._features, self._runs = {}, {}
        for layer in self.layers:
            if layer not in found:
                often = f", which had {runs[layer]} of its runs" if layer in runs else ""
                raise TapError(f"features: layer {layer!r} did not run in the forward pass{often}")
            if len(found[layer]) > 1 and not layer.endswith(_ALL):
                raise TapError(
                    f"features: layer {layer!r} ran {len(found[layer])} times in the forward pass, expected which run counts: "
                    f"{layer}@1 is the first, {layer}{_ALL} all of them"
                )
        watched = {layer: each for layer, each in found.items() if each[0][1] is not None}
        overwritten = {layer for layer, each in watched.items() if any(_is_overwritten(last, version) for _, last, version in each)}
        if new := overwritten - self._clone:
            self._clone |= new
            raise TapError(
                f"features: layer {min(new)!r} was overwritten in place, which earlier passes did not do; it is copied from the "
                "next pass on"
            )
        self._clone -= watched.keys() - overwritten
        return {layer: _joined(layer, [kept for kept, _, _ in found[layer]]) for layer in found}

    def remove(self) -> None:
        """Take the taps off the network."""
        for handle in self._handles:
            handle.remove()


class EarlyStop(FeatureTaps):
    """Taps whose pass ends as soon as each layer has run."""

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
            TapError: see `collect`.
        """
        self._listen()  # no `with`: the compiler does not follow one
        try:
            net(*inputs)
        except EarlyStop._Reached:
            pass
        finally:
            self._listens = False
        return self.collect()

    def _kept(self) -> None:
        if torch.compiler.is_compiling():  # the compiler leaves out what nothing is made of
            return
        if len(self._features) == len(self.layers) and not any(layer.endswith(_ALL) for layer in self.layers):
            raise EarlyStop._Reached


def _is_overwritten(output: Tensor | None, version: int) -> bool:
    return output is not None and output._version != version


def _parse_layer(layer: str) -> tuple[str, int | None]:
    """The module that a layer names, and which of its runs counts; None for all of them."""
    name, at, run = layer.rpartition("@")
    if not at or layer.endswith(_ALL):
        return (name if at else layer), None
    if not (run.isdecimal() and int(run) > 0):
        raise ValueError(f"features: layer {layer!r}, expected a run behind the @: {name}@1 is the first, {name}{_ALL} all of them")
    return name, int(run)


def _joined(layer: str, maps: list[Tensor]) -> Tensor:
    """Concatenate the outputs of a layer's runs along channels."""
    if len({(*each.shape[:1], *each.shape[2:]) for each in maps}) > 1:
        raise TapError(
            f"features: layer {layer!r} returns {', '.join(str(tuple(each.shape)) for each in maps)}, expected maps of one size"
        )
    return maps[0] if len(maps) == 1 else torch.cat(maps, 1)
