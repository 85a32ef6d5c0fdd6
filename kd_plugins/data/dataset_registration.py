"""Datasets whose option keys are the arguments of their constructor, and the keys that stand beside them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from basicsr.utils.registry import DATASET_REGISTRY

from kd_plugins.arguments import Above, Count, Flag, Held, OwnName, Workers, checked
from kd_plugins.messages import choose, is_misspelt, show

LOADER: dict[str, Any] = {
    "name": OwnName | float,
    "phase": Any,  # filled in
    "scale": int | None,  # filled in where the file has one
    "use_shuffle": Flag,
    "num_worker_per_gpu": Workers,
    "batch_size_per_gpu": Held,
    "pin_memory": Flag,
    "dataset_enlarge_ratio": Annotated[float, Above(0)],
    "prefetch_mode": Literal["cpu", "cuda", None],
    "num_prefetch_queue": Held,
    "persistent_workers": Flag,
    "crops_per_image": Count,
    "on_bad_image": Literal["stop", "skip", None],
    "io_backend": Mapping[str, Any],
}
"""What the block of any dataset may hold, for its loader."""
Phase = Literal["train", "val", "test"]
_T = TypeVar("_T", bound=type)


def register_dataset(cls: _T) -> _T:
    """Register a dataset with BasicSR whose option keys are the arguments of its `__init__`.

    ::

        @register_dataset
        class MyDataset(Dataset):
            def __init__(self, root: str, gt_size: Annotated[int, AtLeast(1)] | None = None, phase: Phase = "train") -> None:

    BasicSR builds a dataset from its whole block, as `cls(block)`. Here `__init__` gets the keys that it names, those of `LOADER`
    included, where they have a value, and `self.opt` is the block, which BasicSR's loaders read. They are checked when the dataset
    is built, and by `basicsr check` and the schema before, against the annotations. In Python keyword arguments do as well.

    Args:
        cls: the class. Its attribute `needed_in_training` names arguments that training needs, beside those without a default.

    Returns:
        The same class. Building it raises ValueError where a key is missing, misspelt, or has a wrong value.
    """
    construct = checked(cls).__init__
    parameters = dict(list(inspect.signature(construct).parameters.items())[1:])

    @functools.wraps(construct)
    def build(self: Any, opt: Mapping[str, Any] | None = None, /, **arguments: Any) -> None:
        self.opt = {**(opt or {}), **arguments}
        given = {name: value for name in parameters if (value := self.opt.get(name)) is not None}
        needed = [name for name, parameter in parameters.items() if parameter.default is parameter.empty]
        needed += getattr(self, "needed_in_training", ()) if given.get("phase") == "train" else ()
        for name in needed:
            if name not in given:
                raise ValueError(f"{cls.__name__}: {name}: missing, the dataset needs it")
        for key in self.opt:  # one that is like none of these may be another tool's
            known = {*parameters, *LOADER, "type"}
            if key not in known and is_misspelt(key, known):
                raise ValueError(f"{cls.__name__}: {key}: {show(self.opt[key])}, no such key; {choose(key, known)}")
        construct(self, **given)

    build.takes_options = True  # type: ignore[attr-defined]
    cls.__init__ = build  # type: ignore[misc]
    DATASET_REGISTRY._do_register(cls.__name__, cls)
    return cls


def takes_keywords(cls: object) -> bool:
    """Whether the arguments of a dataset's `__init__` are its option keys (see `register_dataset`)."""
    return getattr(getattr(cls, "__init__", None), "takes_options", False)
