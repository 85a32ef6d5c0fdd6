"""What the words of the command line mean: a degradation, a time."""

from __future__ import annotations

import re
from typing import Any

import yaml

from kd_plugins.data.degradations import DEGRADATION_REGISTRY, build_degradation
from kd_plugins.messages import choose
from kd_plugins.yaml_loader import Loader

_NUMBERED = {"noise": "sigma", "blur": "length", "defocus": "radius", "downsample": "scale"}
"""The argument that stands behind the colon."""
_TIME = re.compile(r"(?:([\d.]+)h)?(?:([\d.]+)m)?(?:([\d.]+)s)?")


def read_degradation(text: str) -> dict[str, Any]:
    """The block of a degradation in an option file.

    Args:
        text: a name (rain), one with a number or a range (noise:25, noise:5-50, downsample:4), or a block ({type: rain}).

    Raises:
        ValueError: something else.
    """
    name, colon, value = text.partition(":")
    try:
        if text.startswith("{"):
            block = yaml.load(text, Loader)
        elif name not in DEGRADATION_REGISTRY:
            raise ValueError(choose(name, [known for known, _ in DEGRADATION_REGISTRY]))
        elif colon and name not in _NUMBERED:
            raise ValueError(f"{name} takes no number; a whole block does: '{{type: {name}, ...}}'")
        else:
            block = {"type": name, **({_NUMBERED[name]: _number(value)} if colon else {})}
        build_degradation(block)
    except (ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        reason = error.args[0] if isinstance(error, KeyError) else " ".join(str(error).split())
        raise ValueError(f"--degradation {text}: {reason}") from error
    return block


def _number(text: str) -> Any:
    """A number, or the two of a range."""
    values = [yaml.load(part, Loader) for part in text.split("-")]
    if len(values) > 2 or not all(isinstance(value, (int, float)) for value in values):
        raise ValueError(f"{text!r}, expected a number or a range, as in noise:25 and noise:5-50")
    return values if len(values) == 2 else values[0]


def read_time(text: str) -> float:
    """Seconds of a time like 90s, 30m, 1.5h or 1h30m.

    Raises:
        ValueError: something else, or no time at all.
    """
    match = _TIME.fullmatch(text.strip())
    try:
        seconds = sum(float(part or 0) * unit for part, unit in zip(match.groups(), (3600, 60, 1), strict=True)) if match else 0.0
    except ValueError:
        seconds = 0.0
    if not seconds:
        raise ValueError(f"--budget {text}: expected a time above 0, as in 90s, 30m or 1h30m")
    return seconds
