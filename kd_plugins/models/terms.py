"""Terms: the registered losses of the `train: distill:` block, each with what it compares."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from basicsr.losses import build_loss
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn

from kd_plugins.features import nearest
from kd_plugins.teachers import Observation

VIEWS = ("degraded", "clean")
OUTPUT = "output"


@dataclass
class Term:
    """One term of the sum.

    Attributes:
        name: its name in the option file; logged as l_NAME.
        loss: called with (student, teacher), for features once for each stage.
        between: 'output' (the restored images), or a group of the `features` block: 'encoder', 'decoder', ...
        view: what the teacher sees: 'degraded' (as the student does) or 'clean'.
    """

    name: str
    loss: nn.Module
    between: str
    view: str

    def __post_init__(self) -> None:
        self._wants_stride = "stride" in inspect.signature(self.loss.forward).parameters

    def __call__(self, output: Tensor, features: Mapping[str, list[Tensor]], target: Observation, layers: list[str]) -> Tensor:
        """The term's value.

        Args:
            output: the student's image, (N, C, H, W).
            features: the student's features at the teacher's scale, by group.
            target: the teacher's observation of this term's view.
            layers: the teacher's layers of this term's group, in the order of the features.

        Returns:
            A scalar.
        """
        if self.between == OUTPUT:
            return self.loss(output, target.image)
        values = []
        for feature, layer in zip(features[self.between], layers, strict=True):
            teacher = target.features[layer]
            context = {"stride": max(round(output.shape[-2] / teacher.shape[-2]), 1)} if self._wants_stride else {}
            values.append(self.loss(feature, teacher, **context))
        return torch.stack(values).sum()


def build_terms(opt: Mapping[str, Any], groups: Mapping[str, Any], device: torch.device) -> dict[str, Term]:
    """Build the terms of a `distill` block.

    Args:
        opt: {name: {type, between, view, ...arguments of the loss}}; `name: ~` takes a default term out.
        groups: the groups of the `features` block.
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
        between, view = block.pop("between", OUTPUT), block.pop("view", "degraded")
        if between not in (OUTPUT, *groups):
            raise ValueError(f"{key}: between={between!r}, expected one of {', '.join((OUTPUT, *groups))}")
        if view not in VIEWS:
            raise ValueError(f"{key}: view={view!r}, expected one of {', '.join(VIEWS)}")
        if block["type"] not in LOSS_REGISTRY:
            raise KeyError(f"{key}: type: no loss {block['type']!r}; nearest: {nearest(str(block['type']), LOSS_REGISTRY.keys())}")
        try:
            loss = build_loss(block).to(device)
        except TypeError as error:
            raise ValueError(f"{key}: {block['type']}: {error}") from None
        terms[name] = Term(name, loss, between, view)
    return terms
