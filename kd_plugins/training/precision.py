"""Precision and memory layout, as option keys: `amp` and `channels_last`."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

_Placed = TypeVar("_Placed", bound=Tensor | nn.Module)
AMP = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """How a model computes.

    Args:
        opt: the options; `amp`: bf16 or fp16, or nothing for the networks' own precision; `channels_last`: true or false
            (`auto` is false here: a training decides before it builds, see `choose_layout`).

    Raises:
        ValueError: another value.
    """

    def __init__(self, opt: Mapping[str, Any]) -> None:
        self.amp = opt.get("amp") or None
        self.channels_last = opt.get("channels_last", False)
        self.channels_last = False if self.channels_last == "auto" else self.channels_last
        if self.amp not in (None, *AMP):
            raise ValueError(f"amp: {self.amp!r}, expected {', '.join(AMP)} or nothing")
        if not isinstance(self.channels_last, bool):
            raise ValueError(f"channels_last: {self.channels_last!r}, expected true, false or auto")
        one_thread = not opt.get("num_gpu") and torch.get_num_threads() == 1 and torch.backends.mkldnn.is_available()
        self._dilates = not self.amp and one_thread and platform.machine() in ("x86_64", "AMD64")

    def state_dict(self) -> dict[str, Any]:
        """The layout, which may have been chosen by measurement."""
        return {"channels_last": self.channels_last}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing: a run that goes on has read its layout before it was built."""

    def to_memory_format(self, item: _Placed) -> _Placed:
        """A tensor or a network in the memory layout asked for, a network's 1x1 convolutions as that layout likes them."""
        if not self.channels_last or (isinstance(item, Tensor) and item.dim() != 4):
            return item
        if isinstance(item, nn.Module):
            self.dilate_pointwise(item, True)
        return item.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def dilate_pointwise(self, net: nn.Module, channels_last: bool) -> None:
        """Dilate a network's 1x1 convolutions for channels_last on one thread, which changes nothing that they compute.

        Unless they are dilated, PyTorch leaves oneDNN aside for fewer than 16 images, and takes twice as long there, forward and
        backward.
        """
        for layer in net.modules() if self._dilates else ():
            if type(layer) is nn.Conv2d and layer.kernel_size == (1, 1) and layer.weight.dtype is torch.float32:
                layer.dilation = (2, 2) if channels_last else (1, 1)

    def autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        """The context of a training step. Losses leave it by themselves where their statistics need float32."""
        return torch.autocast(device.type, AMP[self.amp]) if self.amp else nullcontext()
