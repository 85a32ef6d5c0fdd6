"""The images that a student in int8 is made with: of those it trains on for ranges of values, the held-out ones for its loss."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from basicsr.data import build_dataset

from kd_plugins.deploy.calibration import MOST, SIDE, Sample, Samples


def read_samples(opt: Mapping[str, Any]) -> Samples:
    """The centres of whole images, degraded as for validation.

    Args:
        opt: the option file of a distillation.

    Raises:
        ValueError, FileNotFoundError: a dataset cannot be built.
    """
    datasets, scale = opt["datasets"], int(opt.get("scale") or 1)
    train = {**datasets["train"], **({"split": "train"} if datasets["train"].get("photos") == "builtin" else {})}
    return Samples(_samples(train, scale), _samples(datasets["val"], scale))


def _samples(block: Mapping[str, Any], scale: int) -> list[Sample]:
    dataset: Any = build_dataset({**copy.deepcopy(dict(block)), "phase": "val", "scale": scale})
    count = min(len(dataset), MOST)
    items = [dataset[number * len(dataset) // count] for number in range(count)]
    return [Sample(item["lq"][None], item["gt"][None] if "gt" in item else None).crop(SIDE) for item in items]
