"""Writes the page of option keys from the schema that `basicsr check` uses."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kd_plugins.arguments import describe
from kd_plugins.checks import json_schema

KINDS = {
    "dataset": "Datasets",
    "degradation": "Degradations",
    "loss": "Losses and terms",
    "extractor": "Extractors",
    "metric": "Metrics",
    "optimizer": "Optimizers",
    "scheduler": "Learning-rate schedules",
}
LEFT_OUT = re.compile("Video|REDS|Vimeo|GAN|FFHQ|_pt$|_basicsr$")  # BasicSR's own, for video and for GANs
BLOCKS = ("datasets", "train", "val", "logger", "path", "dckd")


def write_option_keys(path: Path) -> None:
    """Write the page.

    Args:
        path: the Markdown file; it is made anew.
    """
    schema = json_schema()
    lines = ["# Option keys", "", "Every key that `basicsr check` knows, made from the schema that it uses.", ""]
    top = schema["else"]["then"]
    lines += ["## The file", "", *_table(top), ""]
    for name in BLOCKS:
        block = _mapping(top["properties"].get(name, {}))
        if block and block.get("properties"):
            lines += [f"### {name}", "", *_table(block), ""]
    entries: dict[str, dict[str, Mapping[str, Any]]] = {kind: {} for kind in KINDS}
    for label, found in schema["$defs"].items():
        kind, name, *_ = label.split(" ")
        if kind in entries and found.get("properties") and not LEFT_OUT.search(name):
            entries[kind].setdefault(name, found)
    for kind, title in KINDS.items():
        lines += [f"## {title}", ""]
        for name in sorted(entries[kind]):
            lines += [f"### {name}", "", *_table(entries[kind][name]), ""]
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(lines))


def _table(block: Mapping[str, Any]) -> Iterator[str]:
    yield from ("| key | value |", "|---|---|")
    for key, value in block["properties"].items():
        if isinstance(value, Mapping) and not value.get("deprecated") and key != "type":
            needed = ", needed" if key in block.get("required", ()) else ""
            yield f"| `{key}` | {_words(value)}{needed} |".replace("\n", " ")


def _words(value: Mapping[str, Any]) -> str:
    mapping = _mapping(value)
    if mapping is not None and "properties" in mapping and "type" in mapping["properties"]:
        return "a block with `type`"
    try:
        return describe(value).replace(" or nothing", "").replace("|", "\\|")
    except (KeyError, TypeError):
        return "a block" if mapping is not None else "anything"


def _mapping(value: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Of a choice, the mapping."""
    options = value.get("anyOf", [value])
    return next((option for option in options if isinstance(option, Mapping) and option.get("type") == "object"), None)
