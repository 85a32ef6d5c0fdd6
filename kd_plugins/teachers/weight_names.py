"""Match names of weights with those of a network: prefixes from wrappers, and buffers that are not weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

_MODELS = ("model", "net", "network", "net_g", "netG", "generator", "student")
"""The attributes in which training frameworks hold the network that they train."""
_DERIVED = ("attn_mask",)
"""Buffers that a network computes from its arguments, and recomputes for another image size: SwinIR's, from `img_size`."""


def bare(name: str) -> str:
    """A name without the parts that DataParallel and torch.compile add."""
    name = ".".join(part for part in name.split(".") if part != "_orig_mod")
    while name.startswith("module."):
        name = name.removeprefix("module.")
    return name


def unwrapped(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights by their bare names; unchanged where two would collide."""
    found = {bare(name): value for name, value in weights.items()}
    return found if len(found) == len(weights) else dict(weights)


def without_prefix(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The weights whose names begin with a prefix, without it.

    Raises:
        ValueError: there are none.
    """
    start = prefix if prefix.endswith(".") else f"{prefix}."
    found = {name.removeprefix(start): value for name, value in weights.items() if name.startswith(start)}
    if not found:
        raise ValueError(f"no name begins with prefix {prefix!r}; they begin with {listed(first_parts(weights))}")
    return unwrapped(found)


def first_parts(names: Iterable[str]) -> list[str]:
    """The parts of names up to their first dot."""
    return list(dict.fromkeys(f"{name.partition('.')[0]}." if "." in name else name for name in names))


def listed(names: Iterable[object], most: int = 8) -> str:
    """A few names, for a message."""
    shown = [str(name)[:60] for name in names]
    return ", ".join(shown[:most]) + (f", ... ({len(shown)} in all)" if len(shown) > most else "") if shown else "nothing"


def candidates(weights: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The parts of weights, by prefix, that may be a whole network of unknown kind."""
    starts = first_parts(weights)
    prefixes = starts if len(starts) == 1 else [start for start in starts if start.removesuffix(".") in _MODELS]
    return {prefix: without_prefix(weights, prefix) for prefix in prefixes if prefix.endswith(".")}


def named_as(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Map weights to a network's names, as far as possible.

    Args:
        own: the network's state dict.
        weights: those of a file.

    Returns:
        The weights. Where all names of the network stand behind one prefix, those that begin with it: what else the file has (the
        network of a loss, say) is left there. Buffers that are no weights are the network's where the file has none that fit.

    Raises:
        ValueError: the network's names stand behind several prefixes.
    """
    names = {bare(name): name for name in own}
    found = unwrapped(weights) if len(names) == len(own) else dict(weights)
    sought = [name for name in names if not _is_derived(name)]
    if len(names) == len(own) and not all(name in found for name in sought):
        prefixes = [name.removesuffix(sought[0]) for name in found if name.endswith(f".{sought[0]}")]
        whole = [prefix for prefix in prefixes if all(f"{prefix}{name}" in found for name in sought)]
        fitting = [prefix for prefix in whole if all(found[f"{prefix}{name}"].shape == own[names[name]].shape for name in sought)]
        if len(fitting) > 1:
            raise ValueError(
                f"the network's names stand behind several prefixes; name one of them: `prefix: {fitting[0]}` ({listed(fitting)})"
            )
        found = without_prefix(found, *fitting) if fitting else without_prefix(found, *whole) if len(whole) == 1 else found
    found = {names.get(name, name): value for name, value in found.items() if name in names or not _is_derived(name)}
    derived = {name: value for name, value in own.items() if _is_derived(name)}
    return found | {name: value for name, value in derived.items() if getattr(found.get(name), "shape", None) != value.shape}


def _is_derived(name: str) -> bool:
    return name.rpartition(".")[2] in _DERIVED
