"""What a training step has computed, for its terms to compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kd_plugins.losses.encodings import Encodings
from kd_plugins.losses.trust import Trust, where_trusted
from kd_plugins.teachers import Observation

if TYPE_CHECKING:
    from kd_plugins.models.terms import Term


@dataclass
class Step:
    """What a training step has computed, for its terms to compare.

    Attributes:
        output: the student's image, (N, C, H, W).
        lq: the degraded input, (N, C, h, w).
        raw: the student's features as they are, by layer.
        convert: brings the student's feature of a stage to the teacher's scale (`ScaleConversion.forward`); None where no term
            reads that.
        targets: the teacher's observation of each view; that of 'transformed' with the transform undone on its image.
        negatives: images to be unlike of, (J, N, C, H, W), if a term asks for them.
        zoomed: by view, what the student sees beside the degraded input, and its image of it.
        terms: the terms of the step: what they read decides what is encoded.
        gt: the clean image, (N, C, H, W), if the batch has one.
        iteration: the step's number, from 1.
    """

    output: Tensor
    lq: Tensor
    raw: Mapping[str, Tensor]
    convert: Callable[[str, int, Tensor, torch.Size], Tensor] | None
    targets: Mapping[str, Observation]
    negatives: Tensor | None = None
    zoomed: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    terms: Sequence[Term] = ()
    gt: Tensor | None = None
    iteration: int = 0
    _converted: dict[tuple[str, int], Tensor] = field(default_factory=dict, init=False, repr=False)
    _masks: dict[tuple[str, Trust], Tensor] = field(default_factory=dict, init=False, repr=False)
    _images: dict[tuple[str, Trust | None], tuple[Tensor, Tensor]] = field(default_factory=dict, init=False, repr=False)
    _encodings: dict[tuple[str, Trust | None], Encodings | None] = field(default_factory=dict, init=False, repr=False)

    def converted(self, group: str, stage: int, layer: str, size: torch.Size) -> Tensor:
        """The student's whole feature of a stage at the teacher's scale, once for all terms."""
        if (group, stage) not in self._converted:
            assert self.convert is not None
            self._converted[group, stage] = self.convert(group, stage, self.raw[layer], size)
        return self._converted[group, stage]

    def seen(self, view: str) -> tuple[Tensor, Tensor]:
        """What the student sees where the teacher sees a view, and its image of it."""
        return self.zoomed.get(view, (self.lq, self.output))

    def truth(self, view: str) -> Tensor | None:
        """What the images of a view should be, if that is known."""
        return self.lq if view == "zoomed_out" else self.gt

    def mask(self, view: str, trust: Trust | None) -> Tensor | None:
        """How far the teacher of a view is trusted at each pixel, (N, 1, H, W); None for everywhere."""
        if trust is None:
            return None
        if (view, trust) not in self._masks:
            truth = self.truth(view)
            assert truth is not None  # else the batch has been refused
            self._masks[view, trust] = trust.mask(self.seen(view)[1], self.targets[view].image, truth)
        return self._masks[view, trust]

    def images(self, view: str, trust: Trust | None) -> tuple[Tensor, Tensor]:
        """The student's images and the teacher's; the former as the latter where the teacher is not trusted."""
        if (view, trust) not in self._images:
            mine, theirs, mask = self.seen(view)[1], self.targets[view].image, self.mask(view, trust)
            self._images[view, trust] = mine if mask is None else where_trusted(mask, mine, theirs), theirs
        return self._images[view, trust]

    def encodings(self, view: str, trust: Trust | None = None) -> Encodings | None:
        """The images of a view, and the negatives, in the spaces of the terms with that view and trust, if any."""
        if (view, trust) not in self._encodings:
            same = [term for term in self.terms if (term.view, term.trust) == (view, trust) and "encodings" in term.asks]
            images = (*self.images(view, trust), None if view in self.zoomed else self.negatives)
            self._encodings[view, trust] = Encodings(*images, [term.loss for term in same]) if same else None
        return self._encodings[view, trust]
