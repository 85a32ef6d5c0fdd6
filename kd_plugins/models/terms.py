"""Terms: the registered losses of the `train: distill:` block, each with what it compares."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from basicsr.losses import build_loss
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn

from kd_plugins.features import Pair, nearest
from kd_plugins.teachers import Observation

VIEWS = ("degraded", "clean")
OUTPUT = "output"
CONTEXT = {"output": ("lq",), "features": ("raw", "stride")}
"""What a loss may ask for beside (student, teacher): `lq`, the degraded input; `raw`, the student's feature before the conversion
to the teacher's scale; `stride`, image pixels per feature pixel."""


@dataclass
class Step:
    """What a training step has computed, for its terms to compare.

    Attributes:
        output: the student's image, (N, C, H, W).
        lq: the degraded input, (N, C, h, w).
        raw: the student's features as they are, by layer.
        features: the student's features at the teacher's scale, by group, in the order of its pairs.
        targets: the teacher's observation of each view.
    """

    output: Tensor
    lq: Tensor
    raw: Mapping[str, Tensor]
    features: Mapping[str, list[Tensor]]
    targets: Mapping[str, Observation]


@dataclass
class Term:
    """One term of the sum.

    Attributes:
        name: its name in the option file; logged as l_NAME.
        loss: called with (student, teacher), for features once for each stage, and with what else its forward asks for by name
            (`CONTEXT`).
        between: ('output',) (the restored images), or groups of the `features` block: ('encoder',), ('encoder', 'decoder'), ...
        view: what the teacher sees: 'degraded' (as the student does) or 'clean'.
        pairs: the layers of the groups, in their order.

    Raises:
        ValueError: the loss asks for what a term between these two does not have.
    """

    name: str
    loss: nn.Module
    between: tuple[str, ...]
    view: str
    pairs: Sequence[Pair] = ()

    def __post_init__(self) -> None:
        asked = list(inspect.signature(self.loss.forward).parameters.values())[2:]
        offered = CONTEXT["output" if OUTPUT in self.between else "features"]
        for parameter in asked:
            needed = parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
            if needed and parameter.name not in offered:
                raise ValueError(
                    f"between: {', '.join(self.between)}: the loss needs {parameter.name!r}; here it can have {', '.join(offered)}"
                )
        self._asked = {parameter.name for parameter in asked}

    def __call__(self, step: Step) -> Tensor:
        """The term's value in a step, a scalar."""
        target = step.targets[self.view]
        if OUTPUT in self.between:
            return self._compare(step.output, target.image, lq=step.lq)
        stages = [feature for group in self.between for feature in step.features[group]]
        values = []
        for feature, pair in zip(stages, self.pairs, strict=True):
            teacher = target.features[pair.teacher]
            stride = max(round(step.output.shape[-2] / teacher.shape[-2]), 1)
            values.append(self._compare(feature, teacher, raw=step.raw[pair.student], stride=stride))
        return torch.stack(values).sum()

    def _compare(self, student: Tensor, teacher: Tensor, **context: Any) -> Tensor:
        return self.loss(student, teacher, **{name: value for name, value in context.items() if name in self._asked})


def compared(block: Mapping[str, Any]) -> tuple[str, ...]:
    """What a term's block says it is `between`: one name, or a list of them."""
    between = block.get("between", OUTPUT)
    return tuple(between) if isinstance(between, (list, tuple)) else (between,)


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
    terms = {}
    for name, value in opt.items():
        if value is None:
            continue
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
            terms[name] = Term(name, build_loss(block).to(device), between, view, pairs)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{key}: {block['type']}: {error}") from None
    return terms
