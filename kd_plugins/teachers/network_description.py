"""Descriptions of networks in files of weights: a registered class and plain arguments. Nothing else is built."""

from __future__ import annotations

import inspect
import json
import math
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from os import path as osp
from pathlib import Path
from typing import Any

import yaml
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from kd_plugins.archs.restormer_arch import restormer_arguments
from kd_plugins.archs.spandrel_arch import Recognised, public_name, recognise, spandrel_networks
from kd_plugins.messages import nearest
from kd_plugins.teachers.checkpoint import find_weights, read_checkpoint
from kd_plugins.teachers.network_keys import ADAPTER_KEYS, CLASS_KEYS, SOURCED, WEIGHT_KEYS, source_keys
from kd_plugins.teachers.weight_names import candidates

_WORD = re.compile(r"[\w+-]{0,64}")
_LARGEST, _MOST, _DEEPEST = 2**20, 1000, 4  # of a number, how many values, and how many levels of lists
_LARGEST_PAD = 1024
_SPARE_CALLS, _SPARE_ELEMENTS = 2000, 2**26  # what a constructor may need beyond a multiple of its weights


def is_registered(name: object) -> bool:
    """Whether BasicSR finds an architecture of this name; some of its own have a suffix, which it looks for."""
    return name in ARCH_REGISTRY or f"{name}_basicsr" in ARCH_REGISTRY


def explicit_block(block: Mapping[str, Any]) -> dict[str, Any] | None:
    """A network's block with its class and arguments, and without weights; None where they cannot be read.

    Args:
        block: of a teacher or a student; of one network.

    Raises:
        ValueError, FileNotFoundError: see `find_weights`, `read_checkpoint`, `recognise`, `plain_network`.
    """
    if block.get("type") == SOURCED and isinstance(block.get("network"), Mapping):
        return explicit_block(block["network"])
    rest = {key: value for key, value in block.items() if key not in WEIGHT_KEYS}
    if "type" in rest or "file" in rest:
        return rest
    path = find_weights(str(block.get("checkpoint")))
    weights, network = read_network(path, block.get("param_key"), block.get("prefix"))
    if network is not None:
        return {**plain_network(network, str(path)), **rest}
    found = recognise_part(weights, str(path))
    hyperparameters = getattr(found.net if found else None, "hyperparameters", None)
    if found is None or hyperparameters is None:
        return None
    defaults = {name: parameter.default for name, parameter in inspect.signature(type(found.net)).parameters.items()}
    written = {name: value for name, value in hyperparameters.items() if _is_plain(value)}
    if any(defaults.get(name) is not value for name, value in hyperparameters.items() if name not in written):
        return None  # a class, say, and not the one that is meant without a word
    adapter = {key: value for key in ("output", "noise_level") if (value := getattr(found, key)) is not None}
    return {"type": public_name(type(found.net)), **_as_yaml(written), **adapter, **rest}


def read_network(path: Path, param_key: Any, prefix: Any) -> tuple[dict[str, Tensor], Any]:
    """Weights and the description of their network: the file's own, or that of a Restormer, whose arguments its weights tell.

    Raises:
        ValueError: see `read_checkpoint`.
    """
    weights, network = read_checkpoint(path, param_key, prefix)
    if network is None and (own := restormer_arguments(weights)):  # which spandrel does not know
        network = {"type": "Restormer", **own}
    return weights, network


def recognise_part(weights: Mapping[str, Tensor], source: str) -> Recognised | None:
    """Like `recognise`, but also finds one network within a larger one, as training frameworks save it.

    Raises:
        ValueError: see `recognise`; or there are several such networks.
    """
    if found := recognise(weights, source):
        return found
    parts = {prefix: part for prefix, value in candidates(weights).items() if (part := recognise(value, source))}
    if len(parts) > 1:
        raise ValueError(
            f"checkpoint {source}: holds several networks; name one of them: `prefix: {next(iter(parts))}` ({', '.join(parts)})"
        )
    return next(iter(parts.values()), None)


def described(block: Mapping[str, Any]) -> dict[str, Any] | None:
    """The description to save with a network's weights, see `plain_network`; None where it is not known."""
    explicit = explicit_block(block)
    # as JSON has it: whatever else YAML has, a date say, is no argument that could be read back
    return None if explicit is None else json.loads(json.dumps(explicit, default=str))


def _is_plain(value: Any) -> bool:
    """Whether YAML can write an argument."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(each) for key, each in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))


def _as_yaml(value: Any) -> Any:
    """Convert tuples to lists, as YAML has no tuples."""
    if isinstance(value, Mapping):
        return {key: _as_yaml(each) for key, each in value.items()}
    return [_as_yaml(each) for each in value] if isinstance(value, (list, tuple)) else value


# ------------------------------------------------------------------------------------------------ reading


def plain_network(found: Any, source: str) -> dict[str, Any]:
    """The block of a network that a file describes.

    Args:
        found: what the file says.
        source: the file's name, for messages.

    Returns:
        Its type, one of BasicSR's registry or of spandrel's; its arguments: numbers, words, and lists of them; and what stands
        beside arguments in any block (`pad_to`, `output`, `noise_level`).

    Raises:
        ValueError: it says something else.
    """
    start = f"checkpoint {source}: describes its network"
    if not isinstance(found, Mapping) or not all(isinstance(key, str) for key in found):
        raise ValueError(f"{start} as {_shown(found)}, expected its type and arguments")
    name = found.get("type")
    dotted = isinstance(name, str) and "." in name and name not in _spandrel_names()
    if dotted or any(key in found for key in CLASS_KEYS):
        raise ValueError(
            f"{start} by code of its own, which weights may not bring along; if you trust it, name it beside `checkpoint`: "
            f"{_shown(found)}"
        )
    if source_key := next((key for key in found if key in source_keys() and key not in ADAPTER_KEYS), None):
        raise ValueError(f"{start} by {source_key!r}, expected a registered type and its arguments alone")
    if (
        not isinstance(name, str)
        or name == SOURCED
        or not (is_registered(name) or name in {*_spandrel_names(), *spandrel_networks()})
    ):
        raise ValueError(f"{start} by no architecture that is registered here: type: {_shown(name)}; nearest: {_nearest(name)}")
    arguments = {key: value for key, value in found.items() if key != "type"}
    if len(tree_leaves(arguments)) > _MOST:
        raise ValueError(f"{start} by more than {_MOST} values")
    for key, value in arguments.items():
        if wrong := _fault(value) or ("" if key != "pad_to" or value in range(_LARGEST_PAD) else "expected a size"):
            raise ValueError(f"{start} with {key}: {_shown(value)}, {wrong}")
    return dict(found)


@cache
def _spandrel_names() -> frozenset[str]:
    return frozenset(map(public_name, spandrel_networks().values()))


def _nearest(name: object) -> str:
    return nearest(str(name)[:100], {*ARCH_REGISTRY.keys(), *spandrel_networks()} - {SOURCED})


def _fault(value: Any, depth: int = 0) -> str:
    """What is wrong with an argument; an empty text where it is plain."""
    if isinstance(value, list):
        return "nested too deep" if depth == _DEEPEST else next((fault for each in value if (fault := _fault(each, depth + 1))), "")
    if value is None or isinstance(value, bool):
        return ""
    if isinstance(value, (int, float)):
        return "" if math.isfinite(value) and abs(value) <= _LARGEST else f"expected numbers of at most {_LARGEST}"
    if isinstance(value, str):
        return "" if _WORD.fullmatch(value) and not (value and osp.lexists(value)) else "expected words, and no names of files"
    return "expected numbers, words, and lists of them"


def _shown(value: Any) -> str:
    try:
        text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6).removesuffix("...\n").strip()
    except (yaml.YAMLError, RecursionError):
        text = repr(type(value).__name__)
    return text if len(text) <= 300 else f"{text[:297]}..."


# ------------------------------------------------------------------------------------------------ building


@contextmanager
def within(weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Guard the building of a described network: it may not become much larger than its weights, nor open files or connections.

    Raises:
        ValueError: it does; before the memory is asked for.
    """
    _watch()
    token = _building.set(True)
    try:
        with _Budget(weights):
            yield
    finally:
        _building.reset(token)


class _Budget(TorchDispatchMode):
    """Counts calls, and elements of new tensors, before they are made."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.calls = 100 * len(weights) + _SPARE_CALLS
        self.elements = 16 * sum(value.numel() for value in weights.values()) + _SPARE_ELEMENTS

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.calls -= 1
        if all(result.alias_info is None for result in func._schema.returns):  # no view, nothing in place
            self.elements -= _elements(func, args, kwargs)
        if min(self.calls, self.elements) < 0:
            raise ValueError("it is much larger than its weights")
        return func(*args, **kwargs)


def _elements(func: Any, args: Any, kwargs: Any) -> int:
    """How many elements a call's results have, without making them."""
    args, kwargs = tree_map_only(Tensor, lambda value: value.to("meta"), (args, {**kwargs}))
    if any(argument.name == "device" for argument in func._schema.arguments):
        kwargs["device"] = "meta"
    try:
        return sum(value.numel() for value in tree_leaves(func(*args, **kwargs)) if isinstance(value, Tensor))
    except Exception:  # numbers decide on them: there are no more than those of what it reads
        return 0


_building: ContextVar[bool] = ContextVar("building", default=False)
_OUTSIDE = ("socket.", "subprocess.", "os.system", "os.exec", "os.spawn", "os.posix_spawn")
_CODE = (".py", ".pyc", ".so", ".pyd")  # of a module that a constructor imports


@cache
def _watch() -> None:
    """Install the audit hook, once: Python keeps it as long as the process lives."""
    sys.addaudithook(_refuse_outside)


def _refuse_outside(event: str, args: tuple[Any, ...]) -> None:
    if not _building.get():
        return
    if (event == "open" and not str(args[0]).endswith(_CODE)) or event.startswith(_OUTSIDE):
        what = f"file {args[0]!r}" if event == "open" else event
        raise ValueError(f"it asks for more than its weights: {what}")
