"""Terms: the registered losses of the `train: distill:` block, each with what it compares."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from basicsr.losses import build_loss
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn

from kd_plugins.extractors.sharing import sharing_extractors
from kd_plugins.features import Pair, nearest
from kd_plugins.losses.encodings import Encodings
from kd_plugins.teachers import Observation

VIEWS = ("degraded", "clean", "transformed", "zoomed")
IMAGE_VIEWS = ("transformed", "zoomed")  # of these the restored image alone is compared
TRUTH_VIEWS = ("clean", "zoomed")  # made of the ground truth
OUTPUT = "output"
CONTEXT = {"output": ("lq", "negatives", "encodings"), "features": ("raw", "stride")}
"""What a loss may ask for beside (student, teacher): `lq`, the degraded input; `negatives`, images to be unlike of,
(J, N, C, H, W); `encodings`, all these images in the space of its `extractor`, computed once for all losses that name the same
one (`Encodings`); `raw`, the student's feature before the conversion to the teacher's scale; `stride`, image pixels per feature
pixel."""


@dataclass
class Step:
    """What a training step has computed, for its terms to compare.

    Attributes:
        output: the student's image, (N, C, H, W).
        lq: the degraded input, (N, C, h, w).
        raw: the student's features as they are, by layer.
        features: the student's features at the teacher's scale, by group, in the order of its pairs; as they are in groups
            where no term reads the conversion.
        targets: the teacher's observation of each view; that of 'transformed' with the transform undone on its image.
        negatives: images to be unlike of, (J, N, C, H, W), if a term asks for them.
        zoomed: the crop that the student sees in the 'zoomed' view, and its image of it, if a term asks for that view.
        terms: the terms of the step: what they read decides what is encoded.
    """

    output: Tensor
    lq: Tensor
    raw: Mapping[str, Tensor]
    features: Mapping[str, list[Tensor]]
    targets: Mapping[str, Observation]
    negatives: Tensor | None = None
    zoomed: Sequence[Tensor] = ()
    terms: Sequence[Term] = ()
    _encodings: dict[str, Encodings | None] = field(default_factory=dict, init=False, repr=False)

    def seen(self, view: str) -> Sequence[Tensor]:
        """What the student sees where the teacher sees a view, and its image of it."""
        return self.zoomed if view == "zoomed" else (self.lq, self.output)

    def encodings(self, view: str) -> Encodings | None:
        """The student's images, the teacher's of a view, and the negatives, in the spaces of the terms with that view, if any."""
        if view not in self._encodings:
            losses = [term.loss for term in self.terms if term.view == view and "encodings" in term.asks]
            images = (self.seen(view)[1], self.targets[view].image, None if view == "zoomed" else self.negatives)
            self._encodings[view] = Encodings(*images, losses) if losses else None
        return self._encodings[view]


@dataclass
class Term:
    """One term of the sum.

    Attributes:
        name: its name in the option file; logged as l_NAME.
        loss: called with (student, teacher), for features once for each stage, and with what else its forward asks for by name
            (`CONTEXT`).
        between: ('output',) (the restored images), or groups of the `features` block: ('encoder',), ('encoder', 'decoder'), ...
        view: what the teacher sees: 'degraded' (as the student does), 'clean', or 'transformed', the degraded image in another
            guise, which is undone on what the teacher makes of it; or 'zoomed', a crop of the clean image that both see as an
            input. Of the last two the restored image alone can be compared.
        pairs: the layers of the groups, in their order.
        asks: what of `CONTEXT` the loss's forward asks for.
        reads_conversion: whether the loss looks at the student's feature at the teacher's scale; one that does not says so by an
            attribute of that name.

    Raises:
        ValueError: the loss asks for what a term between these two does not have.
    """

    name: str
    loss: nn.Module
    between: tuple[str, ...]
    view: str
    pairs: Sequence[Pair] = ()

    def __post_init__(self) -> None:
        self.asks = asked(self.loss.forward, self.between, self.view)
        self.reads_conversion = OUTPUT not in self.between and getattr(self.loss, "reads_conversion", True)

    def __call__(self, step: Step) -> Tensor:
        """The term's value in a step, a scalar."""
        target = step.targets[self.view]
        if OUTPUT in self.between:
            lq, output = step.seen(self.view)
            context = {"lq": lq, "negatives": step.negatives, "encodings": step.encodings(self.view)}
            return self._compare(output, target.image, **context)
        stages = [feature for group in self.between for feature in step.features[group]]
        values = []
        for feature, pair in zip(stages, self.pairs, strict=True):
            teacher = target.features[pair.teacher]
            stride = max(round(step.output.shape[-2] / teacher.shape[-2]), 1)
            values.append(self._compare(feature, teacher, raw=step.raw[pair.student], stride=stride))
        return torch.stack(values).sum()

    def _compare(self, student: Tensor, teacher: Tensor, **context: Any) -> Tensor:
        return self.loss(student, teacher, **{name: value for name, value in context.items() if name in self.asks})


def asked(forward: Callable[..., Any], between: tuple[str, ...], view: str) -> set[str]:
    """What a loss is given beside (student, teacher), told from its bound `forward`.

    Raises:
        ValueError: it asks for what a term between these two does not have.
    """
    parameters = list(inspect.signature(forward).parameters)[2:]
    offered = CONTEXT["output" if OUTPUT in between else "features"]
    if view == "zoomed":
        offered = tuple(name for name in offered if name != "negatives")  # they are of the degraded images
    if missing := [name for name in needed(forward) if name not in offered]:
        raise ValueError(f"between: {', '.join(between)}: the loss needs {missing[0]!r}; here it can have {', '.join(offered)}")
    if view in IMAGE_VIEWS and OUTPUT not in between:
        raise ValueError(f"view: {view}: between: {', '.join(between)}, expected output: of this view images alone are compared")
    return set(parameters) & set(offered)


def needed(forward: Callable[..., Any]) -> list[str]:
    """What a loss cannot do without beside its two sides, told from its bound `forward`."""
    beside = list(inspect.signature(forward).parameters.values())[2:]
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [parameter.name for parameter in beside if parameter.default is parameter.empty and parameter.kind not in variadic]


def compared(block: Mapping[str, Any]) -> tuple[str, ...]:
    """What a term's block says it is `between`: one name, or a list of them."""
    between = block.get("between", OUTPUT)
    return tuple(between) if isinstance(between, (list, tuple)) else (between,)


def merge_terms(defaults: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The blocks of the terms by name: those of a model class, changed and added to by an option file.

    Args:
        defaults: the class's.
        own: the option file's. A block without `type` changes single keys of the class's; one with it stands in its place.
    """

    def merged(name: str, block: Any) -> Any:
        changes = isinstance(block, Mapping) and "type" not in block
        return {**defaults.get(name, {}), **block} if changes else block

    return {**defaults, **{name: merged(name, block) for name, block in own.items()}}


def build_terms(opt: Mapping[str, Any], groups: Mapping[str, Sequence[Pair]], device: torch.device) -> dict[str, Term]:
    """Build the terms of a `distill` block.

    Args:
        opt: {name: {type, between, view, ...arguments of the loss}}; `name: ~` takes a default term out.
        groups: the pairs of layers, by group of the `features` block.
        device: where losses with parameters or buffers go.

    Returns:
        The terms by name.

    Raises:
        ValueError: a term that is not a mapping, or an unknown `between`, `view` or argument.
        KeyError: an unknown loss.
    """
    with sharing_extractors():
        return {name: _build_term(name, value, groups, device) for name, value in opt.items() if value is not None}


def _build_term(name: str, value: Any, groups: Mapping[str, Sequence[Pair]], device: torch.device) -> Term:
    key = f"train:distill:{name}"
    if not isinstance(value, Mapping) or "type" not in value:
        raise ValueError(f"{key}: {value!r}, expected {{type: LOSS, between: ..., view: ..., loss_weight: ...}} or ~")
    block = dict(value)
    between, view = compared(block), block.pop("view", "degraded")
    block.pop("between", None)
    if between != (OUTPUT,) and (not between or not set(between) <= set(groups)):
        raise ValueError(f"{key}: between={value['between']!r}, expected {OUTPUT}, or one or more of {', '.join(groups)}")
    if view not in VIEWS:
        raise ValueError(f"{key}: view={view!r}, expected one of {', '.join(VIEWS)}")
    if block["type"] not in LOSS_REGISTRY:
        raise KeyError(f"{key}: type: no loss {block['type']!r}; nearest: {nearest(str(block['type']), LOSS_REGISTRY.keys())}")
    try:
        pairs = [pair for group in between for pair in groups.get(group, ())]
        return Term(name, build_loss(block).to(device), between, view, pairs)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{key}: {block['type']}: {error}") from None
