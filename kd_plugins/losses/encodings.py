"""What extractors make of a step's images, computed once for all the losses that ask."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

LEVELS, CODES, NEGATIVES = "levels", "codes", "negatives"


class Encoded(NamedTuple):
    """Images in an extractor's space.

    Attributes:
        levels: its features, shallow to deep.
        z: what a tokenizer compares with its codebook, (N, D, h, w); None where no loss reads it.
    """

    levels: list[Tensor]
    z: Tensor | None


class Encoding(NamedTuple):
    """A step in an extractor's space; all but the student's part without gradient.

    Attributes:
        student: the student's images.
        teacher: the teacher's images.
        negatives: features of the negatives, (J, N, C, H, W) for each level; empty where no loss reads them.
    """

    student: Encoded
    teacher: Encoded
    negatives: list[Tensor]


class Encodings:
    """The images of a step in the spaces of several losses, each space computed when it is first asked for, and then kept.

    An extractor runs once over the student's images, and once, without gradient, over the teacher's and the negatives as one batch;
    no loss reads z of the negatives.

    Args:
        student: (N, 3, H, W) in [0, 1].
        teacher: (N, 3, H, W).
        negatives: (J, N, 3, H, W), or None.
        losses: who is going to ask: modules with an `extractor`, and `reads`, what they read of it: 'levels' (of student and
            teacher), 'negatives' (their levels), 'codes' (z).
    """

    def __init__(self, student: Tensor, teacher: Tensor, negatives: Tensor | None = None, losses: Iterable[Any] = ()) -> None:
        self.student = student
        self.teacher = teacher
        self.negatives = negatives
        self._reads: dict[int, set[str]] = {}
        for loss in losses:
            self._reads.setdefault(id(loss.extractor), set()).update(loss.reads)
        self._done: dict[int, Encoding] = {}

    def __call__(self, extractor: nn.Module) -> Encoding:
        """The step in the space of an extractor that one of the losses named has.

        Raises:
            ValueError: negatives are read and there are none, or their shape is not that of the student's images.
        """
        key = id(extractor)
        if key not in self._done:
            self._done[key] = self._encode(extractor, self._reads[key])
        return self._done[key]

    def _encode(self, extractor: Any, reads: set[str]) -> Encoding:
        own = next(extractor.parameters(), self.student)  # frozen weights: the images come to their precision
        batch = len(self.teacher)
        known = [self.teacher]
        if NEGATIVES in reads:
            if self.negatives is None or self.negatives.shape[1:] != self.student.shape or not len(self.negatives):
                given = "there are none" if self.negatives is None else f"they are {tuple(self.negatives.shape)}"
                raise ValueError(f"negatives: {given}, expected one or more like the student's images {tuple(self.student.shape)}")
            known.append(self.negatives.flatten(0, 1))

        def encode(images: Tensor) -> Encoded:
            images = images.to(own.dtype)
            return Encoded(*extractor.encode(images, batch)) if CODES in reads else Encoded(extractor(images), None)

        with torch.no_grad():  # first: what it needs in passing does not come on top of the student's graph
            levels, z = encode(torch.cat(known))
        student = encode(self.student)
        teacher = Encoded([level[:batch] for level in levels], z)
        negatives = [level[batch:].unflatten(0, (-1, batch)) for level in levels] if NEGATIVES in reads else []
        return Encoding(student, teacher, negatives)
