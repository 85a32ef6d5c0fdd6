"""Build a network from its option block, from any source (docs/teachers.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from basicsr.archs import build_network
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn

from kd_plugins.archs.adapter import Adapter, Sizes
from kd_plugins.archs.file_arch import import_file, import_module, networks_of
from kd_plugins.archs.spandrel_arch import required_sizes, spandrel_networks
from kd_plugins.arguments import build, checked
from kd_plugins.messages import nearest
from kd_plugins.teachers.checkpoint import find_weights, load_strictly
from kd_plugins.teachers.ensemble import Ensemble
from kd_plugins.teachers.network_description import is_registered, plain_network, read_network, recognise_part, within
from kd_plugins.teachers.network_keys import (
    ADAPTER_KEYS,
    CACHE,
    ENSEMBLE,
    SOURCE_REGISTRY,
    SOURCED,
    TASKS,
    WEIGHT_KEYS,
    registered_keys,
    source_keys,
    teacher_keys,
)

WRONG_ARGUMENTS = (TypeError, AssertionError, RuntimeError, IndexError, AttributeError, ArithmeticError)
"""What network classes raise for arguments that they do not accept, beside ValueError."""
TEACHER_ONLY = "can be a teacher only, expected a class: `type` or `file`"
TASKS_AT_THE_TOP = "can stand at the top of a teacher only, expected one network"


def build_source(opt: Mapping[str, Any], key: str) -> nn.Module:
    """Build a network from its block.

    Args:
        opt: one of
            `type` (a registered architecture, one of spandrel's, or an importable `package.module.Class`) and its arguments;
            `file` (a .py file) and `class` in it, and its arguments;
            `checkpoint` alone: a file that describes its network, or whose network spandrel recognises;
            the key of a registered source, as `program` (a TorchScript or torch.export file, with `trust: true`);
            `ensemble`: a list of such blocks, each with a `weight` (default 1).
            With the first two, `checkpoint` names the weights, and `param_key` the dict of them that is meant. With all but the
            last: `pad_to`, sizes are padded to a multiple of it and cropped back, with `pad_square` to squares; `output`, which of
            several outputs is the image; `noise_level`, `value_range`, `mean`: see `Adapter`.
        key: the block's name in the option file, for messages.

    Returns:
        The network, on the CPU. Hooks on it do what `pad_to` and its like say: its layers keep their names.

    Raises:
        ValueError: keys that do not go together, arguments that the class does not take, weights that do not fit or that nothing
            is known about, a file that cannot be read or imported.
        FileNotFoundError: no such file.
        KeyError: no such architecture or class.
    """
    block = {name: value for name, value in opt.items() if name != CACHE}
    if TASKS in block:
        raise ValueError(f"{key}: {TASKS}: {block[TASKS]!r} {TASKS_AT_THE_TOP}")
    if ENSEMBLE in block:
        return _build_ensemble(block, key)
    adapter = {name: block.pop(name) for name in ADAPTER_KEYS if name in block}
    if source := next((name for name in registered_keys() if name in block), None):
        net, found = build(SOURCE_REGISTRY.get(source), block, tuple(key.split(":"))), {}
    else:
        net, found = _build(block, key)
    _adapt(net, {**found, **adapter}, key)
    return net


def build_trained(opt: Any, key: str) -> nn.Module:
    """Build a network from a block that names its weights, as a teacher's has to.

    Raises:
        ValueError: it names none, or see `build_source`, as for the other errors.
    """
    if not isinstance(opt, Mapping) or not any(opt.get(name) for name in ("checkpoint", *registered_keys(), ENSEMBLE)):
        raise ValueError(f"{key}: {opt!r}, expected at least `checkpoint: FILE` (or the name of a bundled teacher)")
    return build_source(opt, key)


def _build(block: dict[str, Any], key: str) -> tuple[nn.Module, dict[str, Any]]:
    """The network, with its weights if any are named, and what is known about running it."""
    checkpoint, param_key, prefix = (block.pop(name, None) for name in WEIGHT_KEYS)
    if not checkpoint:
        net = _construct(block, key)
        return net, {"sizes": required_sizes(net)}
    try:
        path = find_weights(str(checkpoint))
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None
    weights, described = read_network(path, param_key, prefix)
    if not block and described is None:
        if recognised := recognise_part(weights, str(path)):
            return recognised.net, {name: value for name, value in recognised._asdict().items() if name != "net"}
        raise ValueError(
            f"{key}: no `type`, and {path.name} does not describe its architecture by itself, nor does spandrel "
            "recognise it; expected `type: NAME` or `file: FILE.py, class: NAME`"
        )
    adapter: dict[str, Any] = {}
    if block:
        net = _construct(block, key)
    else:
        own = plain_network(described, str(path))
        adapter = {name: own.pop(name) for name in ADAPTER_KEYS if name in own}
        try:
            with within(weights):
                net = _construct(own, key)
        except ValueError as error:
            raise ValueError(f"checkpoint {path}: describes a network that cannot be built: {error}") from error
    load_strictly(net, weights, str(path))
    return net, {"sizes": required_sizes(net), **adapter}


def _construct(block: Mapping[str, Any], key: str) -> nn.Module:
    """Build a network from its class and arguments."""
    if "file" in block:
        if "type" in block or not block.get("class"):
            raise ValueError(f"{key}: file: {block['file']!r}, expected `class: NAME` beside it, and no `type`")
        file, name = str(block["file"]), str(block["class"])
        network = _pick(import_file(file), name, f"{key}: class", file)
    elif "type" not in block:
        raise ValueError(f"{key}: {dict(block)!r}: no `type`")
    elif is_registered(name := str(block["type"])):
        return build_registered(block, key)
    else:
        network = _find(name, f"{key}: type")
    arguments = {argument: value for argument, value in block.items() if argument not in ("type", "file", "class")}
    return _call(network, arguments, f"{key}: {name}")


def _find(name: str, key: str) -> type[nn.Module]:
    """An importable class, or one of spandrel's."""
    module, dot, attribute = name.rpartition(".")
    if dot:
        try:
            return _pick(import_module(module), attribute, key, module)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from error
    networks = spandrel_networks()
    if name not in networks:
        raise KeyError(f"{key}: no architecture {name!r}; nearest: {nearest(name, [*ARCH_REGISTRY.keys(), *networks])}")
    return networks[name]


def _pick(module: ModuleType, name: str, key: str, source: str) -> type[nn.Module]:
    classes = networks_of(module)
    if name not in classes:
        raise KeyError(f"{key}: no network {name!r} in {source}; nearest: {nearest(name, classes)}")
    return classes[name]


def _call(make: Callable[..., nn.Module], arguments: Mapping[str, Any], key: str) -> nn.Module:
    try:
        return make(**arguments)
    except (*WRONG_ARGUMENTS, LookupError) as error:
        reason = str(error) or f"{type(error).__name__}, with {dict(arguments)}"
        raise ValueError(f"{key}: {reason}") from error


def _build_ensemble(block: Mapping[str, Any], key: str) -> Ensemble:
    members = block[ENSEMBLE]
    if len(block) > 1 or not isinstance(members, list) or not members or not all(isinstance(m, Mapping) for m in members):
        raise ValueError(f"{key}: {dict(block)}, expected nothing but `ensemble: [{{checkpoint: FILE, weight: 0.7}}, ...]`")
    blocks = [{name: value for name, value in member.items() if name != "weight"} for member in members]
    nets = [build_trained(block, f"{key}:ensemble:{number}") for number, block in enumerate(blocks)]
    try:
        return Ensemble(nets, [member.get("weight", 1) for member in members])
    except ValueError as error:
        raise ValueError(f"{key}:{error}") from None


def _adapt(net: nn.Module, options: dict[str, Any], key: str) -> None:
    """Attach the hooks that a network's options ask for, if any."""
    sizes = options.pop("sizes", None)
    if (sizes or Sizes()) != Sizes() or any(options.get(name) is not None for name in ADAPTER_KEYS):
        build(Adapter, options, tuple(key.split(":")), sizes).attach(net)


def build_registered(opt: Mapping[str, Any], key: str) -> nn.Module:
    """Build a registered architecture; the error for an unknown name gives the nearest one.

    Args:
        opt: `type` and arguments.
        key: the block's name in the option file, for the message.

    Raises:
        KeyError: not registered.
        ValueError: arguments that the architecture does not take.
    """
    name = opt.get("type")
    if not is_registered(name):
        raise KeyError(f"{key}: type: no architecture {name!r}; nearest: {nearest(str(name), ARCH_REGISTRY.keys())}")
    return _call(build_network, {"opt": dict(opt)}, f"{key}: {name}")


def main_block(teacher: Mapping[str, Any]) -> Mapping[str, Any]:
    """The block of a teacher's network; where each task has its own, that of the first task."""
    tasks = teacher.get(TASKS)
    first = next(iter(tasks.values()), None) if isinstance(tasks, Mapping) else None
    block = first if isinstance(first, Mapping) else teacher
    return {key: value for key, value in block.items() if key != CACHE}


@ARCH_REGISTRY.register()
@checked
def SourcedNetwork(network: Mapping[str, Any]) -> nn.Module:  # noqa: N802 (named as an architecture)
    """A student from any source, for `network_g` of any model of BasicSR.

    Args:
        network: its block, see `build_source`.

    Returns:
        The network.

    Raises:
        ValueError: a source that is for teachers only, or see `build_source`.
    """
    for name in teacher_keys():
        if name in network:
            raise ValueError(f"network_g: {name}: {network[name]!r} {TEACHER_ONLY}")
    return build_source(network, "network_g")


def student_block(opt: Mapping[str, Any]) -> Mapping[str, Any]:
    """A `network_g` block for BasicSR's build_network: unchanged, or wrapped in a SourcedNetwork where BasicSR does not know it."""
    if is_registered(opt.get("type")) and not any(name in opt for name in source_keys()):
        return opt
    return {"type": SOURCED, "network": dict(opt)}


def padded_block(opt: Mapping[str, Any], sizes: Sizes) -> Mapping[str, Any]:
    """The block of a student for BasicSR's build_network, with padding to such sizes."""
    block = opt["network"] if opt.get("type") == SOURCED else opt
    return student_block({**block, "pad_to": sizes.multiple, **({"pad_square": True} if sizes.square else {})})
