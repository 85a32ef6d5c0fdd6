"""Gradient accumulation: `train: accumulate: N` computes a batch in N equal parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def part_size(train_opt: Mapping[str, Any], batch: int) -> int:
    """How many samples a part of the batch has.

    Args:
        train_opt: the `train` block; `accumulate`: the number of parts, 1 without.
        batch: samples in the batch of a process.

    Raises:
        ValueError: the parts would not be equal: their mean would not be that of the batch.
    """
    count = train_opt.get("accumulate") or 1
    if isinstance(count, bool) or not isinstance(count, int) or count < 1 or batch % count:
        divisors = [number for number in range(1, batch + 1) if batch % number == 0]
        raise ValueError(
            f"train:accumulate: {count!r}, expected a divisor of the batch of {batch}: {', '.join(map(str, divisors))}"
        )
    return batch // count
