"""TensorBoard's log of a run, and its copy at Weights & Biases."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from basicsr.train import init_tb_loggers

from kd_plugins._compat import repair_wandb


def open_curves(opt: Mapping[str, Any], resumes: bool) -> Any:
    """Open TensorBoard's log; where `logger: wandb` asks for a copy, a run that goes on keeps its id there.

    BasicSR begins another one, unless `resume_id` names it. The id is in the run's folder, in wandb_id.txt.

    Args:
        opt: the options of the run.
        resumes: whether it goes on from a state.

    Returns:
        TensorBoard's writer; None in a run without one.
    """
    block = opt["logger"].get("wandb") or {}
    if block.get("project") is None or "debug" in opt["name"]:
        return init_tb_loggers(opt)
    repair_wandb()
    file = Path(opt["path"]["experiments_root"], "wandb_id.txt")
    if resumes and not block.get("resume_id") and file.is_file():
        block["resume_id"] = file.read_text(encoding="utf-8").strip()
    writer = init_tb_loggers(opt)
    if opt["rank"] == 0:
        file.write_text(f"{importlib.import_module('wandb').run.id}\n", encoding="utf-8")
    return writer
