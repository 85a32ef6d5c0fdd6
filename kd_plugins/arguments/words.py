"""The words in which a signature says what an argument may be: `sigma: Annotated[float, Above(0)]`.

A bound holds for every number in a value: of `Annotated[float | tuple[float, float], AtLeast(0)]` for one, or for both of two.
The bounds are those of annotated-types, so that pydantic and Hypothesis read them, too, and theirs are read here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt, Interval, Le, Lt

Above, AtLeast, Below, AtMost = Gt, Ge, Lt, Le


def Between(low: float, high: float) -> Interval:
    """Of an annotated number: its smallest and its largest value."""
    return Interval(ge=low, le=high)


@dataclass(frozen=True)
class Ordered:
    """Of an annotated list: no value is smaller than the one before it."""

    ordered: bool = True


@dataclass(frozen=True)
class Why:
    """Of an annotated value: why it has to be there, and be so."""

    description: str


@dataclass(frozen=True)
class OneName:
    """Of an annotated text: it names a folder or a file in a folder of the run's, and leads nowhere else."""

    pattern: str = r"^(?!\.\.?$)(?![\s\S]*[/\\\u0000-\u001f])[\s\S]"
    maxLength: int = 200  # noqa: N815 (the schema's word): names have 255 bytes, and the run's files add to this one


Text = str | None
Flag = bool | None
OwnName = Annotated[str, OneName()]
Share = Annotated[float, Between(0, 1)]
Range = Annotated[float | tuple[float, float], Ordered()]
"""A number, or [lo, hi] to draw one from."""
WholeRange = Annotated[int | tuple[int, int], Ordered()]
Count = Annotated[int, AtLeast(1)] | None
Workers = Annotated[int, Between(0, 256)] | None  # each is a process of some hundred MB
Threads = Annotated[int, Between(0, 1024)] | None
Held = Annotated[int, Between(1, 2**16)] | None
"""Of something that is held in memory: images of a batch, batches of a queue."""
