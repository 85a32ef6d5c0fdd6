"""Which stages of a distillation are done, and of what: a distillation that was stopped goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kd_plugins.atomic_files import write_text

_FILE = ".progress.json"


class Progress:
    """The stages that are done, kept in the folder of the distillation.

    Args:
        folder: it.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / _FILE
        try:
            self._done: dict[str, Any] = json.loads(self.file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            self._done = {}

    def is_done(self, stage: str, made_of: Any, *products: Path) -> bool:
        """Whether a stage is done, of these things, and what it made is there."""
        return self._done.get(stage) == digest(made_of) and all(product.exists() for product in products)

    def note(self, stage: str, made_of: Any) -> None:
        """Note that a stage is done."""
        self._write(stage, digest(made_of))

    def setting(self, name: str, value: Any) -> Any:
        """What was asked for beside the option file: now, or else before."""
        if value is not None and self._done.get(name) != value:
            self._write(name, value)
        return self._done.get(name)

    def _write(self, name: str, value: Any) -> None:
        self._done[name] = value
        write_text(self.file, json.dumps(self._done, indent=1))


def digest(made_of: Any) -> str:
    """A short name of things: a file's content, or values."""
    content = made_of.read_bytes() if isinstance(made_of, Path) else json.dumps(made_of, sort_keys=True, default=str).encode()
    return hashlib.sha256(content).hexdigest()[:16]


def begun_with(opt: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a training cannot change on its way: without its length, validation, log and process."""
    kept = {key: value for key, value in opt.items() if key not in ("val", "logger", "num_threads", "num_gpu", "datasets", "train")}
    train = {key: value for key, value in opt["train"].items() if key not in ("total_iter", "scheduler", "ema_decay")}
    return {**kept, "data": opt["datasets"].get("train"), "train": train}
