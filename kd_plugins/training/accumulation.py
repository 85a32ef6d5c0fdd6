"""Gradient accumulation: `train: accumulate: N` computes a batch in N equal parts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kd_plugins.losses import ContrastiveImageLoss


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


def try_parts(train_opt: Mapping[str, Any], batches: Iterable[int], terms: Mapping[str, Any]) -> None:
    """Find out before a run what a stage of it would end with: a part of its batch that is too small for a loss.

    Args:
        train_opt: the `train` block.
        batches: of the stages, in a process.
        terms: by name; the `loss` of each.

    Raises:
        ValueError: there is such a part.
    """
    sizes = {part_size(train_opt, batch) for batch in batches}
    losses = [(name, loss) for name, term in terms.items() for loss in term.loss.modules()]
    for name, loss in losses:
        try:
            for size in sizes if isinstance(loss, ContrastiveImageLoss) else ():
                loss.shifts(size)
        except ValueError as error:
            raise ValueError(f"train:distill:{name}: {error}") from error
