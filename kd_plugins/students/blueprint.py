"""The class of a teacher and its constructor arguments, from which other networks of its family are built."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from kd_plugins.teachers.network import build_source, main_block
from kd_plugins.teachers.network_description import explicit_block
from kd_plugins.teachers.network_keys import ADAPTER_KEYS, CLASS_KEYS, teacher_keys

_NO_ARGUMENTS = "whose constructor arguments cannot be read; name the student's own `type` and arguments"


class Blueprint:
    """Builds networks of a teacher's class with other arguments.

    Args:
        teacher: the teacher's block of an option file; of teachers for several tasks, the first one counts.

    Attributes:
        arguments: those of the teacher, defaults of the class with them.

    Raises:
        ValueError: they cannot be read.
    """

    def __init__(self, teacher: Mapping[str, Any]) -> None:
        teacher = main_block(teacher)
        if kind := next((key for key in teacher_keys() if key in teacher), None):
            raise ValueError(f"from_teacher: the teacher is `{kind}`, {_NO_ARGUMENTS}")
        block = explicit_block(teacher)
        if block is None:
            raise ValueError(f"from_teacher: {teacher['checkpoint']} is of a network {_NO_ARGUMENTS}")
        self._block = block
        with torch.random.fork_rng(devices=[]):
            net = build_source(teacher, "teacher")  # with its weights: a file may describe no network larger than they are
        signature = inspect.signature(type(net))
        given = {name: value for name, value in self._block.items() if name not in ("type", *CLASS_KEYS, *ADAPTER_KEYS)}
        defaults = {
            name: parameter.default for name, parameter in signature.parameters.items() if parameter.default is not parameter.empty
        }
        self.arguments: dict[str, Any] = {**defaults, **given}

    def block(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """The option block of a network with changed arguments."""
        return {**self._block, **changes}

    def build(self, changes: Mapping[str, Any]) -> nn.Module:
        """Build that network on the CPU with random weights, without touching the run's random numbers.

        Raises:
            ValueError: arguments that do not go together.
        """
        with torch.random.fork_rng(devices=[]):
            return build_source(self.block(changes), "network_g").eval()

    def outline(self, changes: Mapping[str, Any]) -> nn.Module:
        """Build that network for its shapes alone: on the meta device where the class allows it.

        Raises:
            ValueError: arguments that do not go together.
        """
        try:
            with torch.device("meta"):
                return self.build(changes)
        except Exception:  # many constructors read numbers out of tensors
            return self.build(changes)
