"""`compile`: parts of a training step through torch.compile, each in its place: names of weights, and hooks, stay as they are."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from basicsr.utils import get_root_logger
from torch import nn

_SPECIALISATIONS = 64  # of one function: parts of a kind share its code, and each has a size for each stage
_MODES = {"default": "default", "max-autotune": "max-autotune-no-cudagraphs"}  # features outlive a CUDA graph's next run


@dataclass
class Compilation:
    """How the parts of a step are compiled.

    Attributes:
        mode: `default`, or `max-autotune`, which times kernels on the device and keeps the fastest.
    """

    mode: Literal["default", "max-autotune"] = "default"


class CompiledCall:
    """A function in its compiled form, which names in the log why its graph is broken, once for each reason.

    Args:
        plain: the function.
        label: its name in the log.
        how: see `Compilation`.

    Attributes:
        used: whether this process has any.
    """

    used: ClassVar[bool] = False

    def __init__(self, plain: Callable[..., Any], label: str, how: Compilation) -> None:
        self.plain, self.label = plain, label
        self._run = torch.compile(plain, dynamic=False, mode=_MODES[how.mode])
        self._said: set[str] = set()
        CompiledCall.used = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it."""
        if torch.compiler.is_compiling():  # as a part of another one
            return self.plain(*args, **kwargs)
        breaks, graphs = Counter(_counters("graph_break")), _graphs()
        result = self._run(*args, **kwargs)
        if _graphs() > graphs + 1:
            reasons = [reason.strip().splitlines()[0] for reason in Counter(_counters("graph_break")) - breaks if reason.strip()]
            for reason in reasons or ["a branch depends on values"]:
                if reason not in self._said:
                    self._said.add(reason)
                    get_root_logger().warning(f"compile: {self.label}: the graph breaks: {reason}")
        return result


def read_compilation(value: Any, device: torch.device) -> Compilation | None:
    """The `compile` of an option file; what it asks for is tried out at once.

    Args:
        value: true, false or {mode: ...}.
        device: of the run.

    Returns:
        How to compile; None for not at all.

    Raises:
        ValueError: PyTorch cannot compile here.
    """
    if not value:
        return None
    how = Compilation(**value) if isinstance(value, Mapping) else Compilation()
    if how.mode not in _MODES or not isinstance(value, (bool, Mapping)):
        raise ValueError(f"compile: {value!r}, expected true, false or {{mode: {' or '.join(_MODES)}}}")
    import torch._dynamo.config
    import torch._inductor.config

    for name in ("recompile_limit", "cache_size_limit"):  # the second is its name before PyTorch 2.7
        if hasattr(torch._dynamo.config, name):
            setattr(torch._dynamo.config, name, _SPECIALISATIONS)
    torch._inductor.config.fallback_random = True  # draws are those of the uncompiled run
    factor = random.SystemRandom().random()  # never in the compiler's cache
    try:
        torch.compile(lambda x: torch.relu(x) * factor)(torch.ones(8, device=device))
    except Exception as error:
        cause = getattr(error, "inner_exception", None) or error
        reason = (str(cause).splitlines() or [type(cause).__name__])[0]
        needed = "a C++ compiler (`g++`)" if device.type == "cpu" else "a C++ compiler (`g++`) and Triton"
        raise ValueError(f"compile: PyTorch cannot compile here: {reason}; expected {needed}, or `compile: false`") from error
    return how


def compile_part(module: nn.Module, label: str, how: Compilation, methods: tuple[str, ...] = ("forward",)) -> None:
    """Put a module's methods in their compiled form, in the place of the others; state and hooks stay the module's.

    Args:
        module: the module.
        label: its name in the log.
        how: see `Compilation`.
        methods: their names.
    """
    for name in methods:
        setattr(module, name, CompiledCall(getattr(module, name), label, how))


def compile_inner_parts(module: nn.Module, label: str, how: Compilation) -> None:
    """Compile what the modules inside a module, and itself, say is worth it: by an attribute `compilable`, names of methods."""
    for inner in module.modules():
        if names := tuple(name for name in getattr(inner, "compilable", ()) if not isinstance(getattr(inner, name), CompiledCall)):
            compile_part(inner, f"{label} ({type(inner).__name__})", how, names)


def uncompiled() -> AbstractContextManager[Any]:
    """A context in which the compiled parts run as they were written: for images of other sizes, and a look at what went wrong."""
    return torch.compiler.set_stance("force_eager") if CompiledCall.used else nullcontext()


@contextmanager
def logged_compilation(iteration: int) -> Iterator[None]:
    """Say in the log what compiling has cost, in a step that had something to compile."""
    if not CompiledCall.used:
        yield
        return
    before, start = _graphs(), time.time()
    yield
    if made := _graphs() - before:
        get_root_logger().info(f"compile: {made} graphs in iteration {iteration}, which took {time.time() - start:.0f} s.")


def _graphs() -> int:
    return _counters("stats").get("unique_graphs", 0)


def _counters(kind: str) -> Mapping[str, int]:
    from torch._dynamo.utils import counters

    return counters[kind]
