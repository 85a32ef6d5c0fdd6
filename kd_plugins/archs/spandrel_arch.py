"""Every architecture of spandrel (MIT): by name, or recognised from its weights. Imported where it is asked for: it is slow."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from kd_plugins.archs.adapter import Sizes
from kd_plugins.archs.file_arch import networks_of

if TYPE_CHECKING:
    from spandrel import ImageModelDescriptor


class Recognised(NamedTuple):
    """A network that spandrel found for some weights, loaded, and how it is run."""

    net: nn.Module
    sizes: Sizes
    output: int | None
    noise_level: float | None


@cache
def spandrel_networks() -> dict[str, type[nn.Module]]:
    """The network classes of all of spandrel's architectures, by name.

    Raises:
        ModuleNotFoundError: spandrel is not installed.
    """
    from spandrel import MAIN_REGISTRY

    found = {}
    for support in MAIN_REGISTRY:
        module = sys.modules[type(support.architecture).__module__]
        found.update({name: value for name, value in networks_of(module).items() if name in module.__all__})
    return found


def required_sizes(net: nn.Module) -> Sizes:
    """The sizes that spandrel says a network of one of its classes takes; any size for a class that is not spandrel's."""
    if not type(net).__module__.startswith("spandrel."):
        return Sizes()
    from spandrel import MAIN_REGISTRY

    for support in MAIN_REGISTRY:
        if type(net).__module__.startswith(f"{type(support.architecture).__module__}."):
            with torch.random.fork_rng(devices=[]):  # it builds the network anew: the run's random numbers stay as they are
                try:
                    return _sizes(support.architecture.load(net.state_dict()))
                except Exception:  # arguments that spandrel cannot read back from weights: nothing is known
                    break
    return Sizes()


def recognise(weights: Mapping[str, Tensor], source: str) -> Recognised | None:
    """Find the architecture of weights.

    Args:
        weights: a state dict.
        source: the file's name, for messages.

    Returns:
        The network with its weights, or None where spandrel does not know them.

    Raises:
        ValueError: spandrel knows the architecture, but it is not one that maps an image to an image, or is not run as spandrel
            runs it: its values have another range, say.
    """
    from spandrel import MAIN_REGISTRY, ImageModelDescriptor, UnsupportedModelError

    try:
        with torch.random.fork_rng(devices=[]):
            found = MAIN_REGISTRY.load(dict(weights))
    except UnsupportedModelError:
        return None
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"checkpoint {source}: spandrel cannot load what it recognises in it ({reason}); name its `type`"
        ) from error
    if not isinstance(found, ImageModelDescriptor):
        raise ValueError(f"checkpoint {source}: {found.architecture.name} needs a mask beside the image, expected an image alone")
    return _as_spandrel_runs_it(found, source)


def _as_spandrel_runs_it(found: ImageModelDescriptor[Any], source: str) -> Recognised:
    """Which output, and which noise level, make the network's image the one that spandrel's own call returns."""
    net, sizes = found.model.eval(), _sizes(found)
    side = 16 + sizes.padding(16, 16)[0]
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, found.input_channels, side, side, generator=generator)
    expected = found(image)
    first = next((module for module in net.modules() if isinstance(module, nn.Conv2d)), None)
    noise_level = 15.0 if first is not None and first.in_channels == found.input_channels + 1 else None  # spandrel's own
    level = [] if noise_level is None else [torch.full_like(image[:, :1], noise_level / 255)]
    with torch.no_grad():
        outputs = net(torch.cat([image, *level], 1))
    output = None if isinstance(outputs, Tensor) else 0
    restored = outputs if output is None else outputs[0]
    if restored.shape != expected.shape or not torch.allclose(restored.clamp(0, 1), expected, atol=1e-4):
        raise ValueError(
            f"checkpoint {source}: spandrel does not run {found.architecture.name} as a plain network (another range of values, or "
            "further inputs); write a class around it, and name it: `file: FILE.py, class: NAME`"
        )
    return Recognised(net, sizes, output, noise_level)


def _sizes(found: Any) -> Sizes:
    required = found.size_requirements
    return Sizes(required.multiple_of, required.minimum, required.square)


def public_name(network: type[nn.Module]) -> str:
    """The `package.module.Class` under which spandrel offers one of its classes; where Python finds it otherwise."""
    from spandrel import MAIN_REGISTRY

    for support in MAIN_REGISTRY:
        module = sys.modules[type(support.architecture).__module__]
        if getattr(module, network.__name__, None) is network:
            return f"{module.__name__}.{network.__name__}"
    return f"{network.__module__}.{network.__qualname__}"
