"""The channels of the data against those that the networks take."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from kd_plugins.archs.spandrel_arch import spandrel_networks
from kd_plugins.arguments import Path
from kd_plugins.checks.findings import Findings
from kd_plugins.checks.network_sources import NETWORK
from kd_plugins.checks.paths import image_datasets
from kd_plugins.data import channels_of
from kd_plugins.mappings import mapping
from kd_plugins.teachers.checkpoint import find_checkpoint, network_in
from kd_plugins.teachers.network_keys import CLASS_KEYS, teacher_keys

_ARGUMENTS = ("num_in_ch", "in_chans", "in_nc", "inp_channels", "in_channels", "img_channel", "in_ch", "n_colors")
"""What architectures call the channels of their input."""


def check_channels(findings: Findings, opt: Mapping[str, Any], sources: Mapping[Path, Mapping[Any, Any]]) -> None:
    """Report networks, of the blocks of `sources_of` and the student, that take other channels than the data has."""
    known = {path: count for path, block in image_datasets(opt) if (count := channels_of(block))}
    if not known:
        return
    place, count = next(iter(known.items()))
    where = ":".join(place)
    for path, other in known.items():
        if other != count:
            findings.error((*path, "color"), f"makes images of {other} channels, expected {count}, as those of {where} have")
    for path, block in {("network_g",): mapping(opt.get("network_g")), **sources}.items():
        key, taken = _taken(block) or ("", count)
        if taken != count:
            instead = {1: ", or `color: y` in the datasets", 3: ", or no `color: y` in the datasets"}.get(taken, "")
            said = f"it takes images of {taken} channels, those of {where} have {count}; expected {count}{instead}"
            findings.error((*path, key), said)


def _taken(block: Mapping[Any, Any]) -> tuple[str, int] | None:
    """The key that says how many channels an image has, and how many; None where it cannot be told."""
    if any(key in block for key in (*CLASS_KEYS, *teacher_keys())):
        return None
    network, where = (block, "") if "type" in block else (_described(block), "checkpoint")
    name = str(network.get("type"))
    entry = NETWORK.entries.get(name) or (spandrel_networks().get(name) if "type" in network and "." not in name else None)
    if entry is None:
        return None
    parameters = inspect.signature(entry).parameters
    key = next((key for key in _ARGUMENTS if key in parameters), "")
    value = network.get(key, parameters[key].default) if key else None
    if not isinstance(value, int):
        return None
    more = block.get("noise_level", network.get("noise_level")) is not None
    return where or (key if key in block else "type"), value - more


def _described(block: Mapping[Any, Any]) -> Mapping[Any, Any]:
    try:
        return mapping(network_in(find_checkpoint(str(block["checkpoint"]))))
    except (KeyError, FileNotFoundError, ValueError):  # said elsewhere
        return {}
