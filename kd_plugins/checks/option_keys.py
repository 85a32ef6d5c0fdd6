"""Every key of an option file that is read here or by BasicSR, and those of its forks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal, cast

import torch
from basicsr.models import lr_scheduler
from basicsr.utils.registry import METRIC_REGISTRY, MODEL_REGISTRY

from kd_plugins.arguments import Above, AtLeast, AtMost, Flag, MultipleOf, OwnName, Text, Threads
from kd_plugins.arguments.block_specs import NOTHING, WARNING, Block, Named, Spec, house_of, signature_block, spec_of
from kd_plugins.checks.basicsr_forks import FORKS, RENAMED
from kd_plugins.checks.datasets import DATASETS
from kd_plugins.checks.network_sources import ANY_STUDENT, NETWORK, TEACHER
from kd_plugins.compiling import Compilation
from kd_plugins.data import realesrgan
from kd_plugins.models import DistillationModel, terms
from kd_plugins.models.student_init import INIT
from kd_plugins.teachers import ViewTransform
from kd_plugins.training import tiling
from kd_plugins.training.optimizers import OPTIMIZER, SCHEDULER

Number = float | None
NotNegative = Annotated[float, AtLeast(0)] | None
Seed = Annotated[int, AtLeast(0), AtMost(2**32 - 1)] | None  # NumPy's range
Often = Annotated[float, AtLeast(1)]
"""Every so many iterations; a whole number, that may be written 5e3."""
OURS, UPSTREAM = "kd_plugins", "basicsr"


LOSS, TERM = replace(terms.LOSS, renamed=RENAMED["loss"]), replace(terms.TERM, renamed=RENAMED["loss"])


def _measures(metric: Callable[..., Any]) -> Block:
    nested: dict[str, Spec] = {"crop_border": Annotated[int, AtLeast(0)], "input_order": Literal["HWC"]}  # as images come here
    if house_of(metric) == UPSTREAM:
        nested["convert_to"] = Literal["y", "gray"]  # anything else would be scored as if it were none
    return signature_block(metric, ("img", "img2"), nested)


METRIC = Named("metric", METRIC_REGISTRY, _measures, beside={"better": Literal["higher", "lower", None]})
_UPSTREAMS_SCHEDULERS = {
    "MultiStepLR": lr_scheduler.MultiStepRestartLR,
    "MultiStepRestartLR": lr_scheduler.MultiStepRestartLR,
    "CosineAnnealingRestartLR": lr_scheduler.CosineAnnealingRestartLR,
}


_UPSTREAMS_OPTIMIZER = replace(OPTIMIZER, registry={"Adam": torch.optim.Adam})
_SOLVERS: dict[str, dict[str, Spec]] = {
    OURS: {"optim_g": OPTIMIZER, "optim_d": OPTIMIZER, "scheduler": replace(SCHEDULER, renamed=RENAMED["scheduler"])},
    UPSTREAM: {
        "optim_g": _UPSTREAMS_OPTIMIZER,
        "optim_d": _UPSTREAMS_OPTIMIZER,
        "scheduler": replace(SCHEDULER, registry=_UPSTREAMS_SCHEDULERS, renamed=RENAMED["scheduler"]),
    },
}


_TRAIN: dict[str, Spec] = {
    "ema_decay": Annotated[float, AtLeast(0), AtMost(1)],
    "total_iter": Annotated[float, AtLeast(1), AtMost(10**12)],
    "warmup_iter": float,
    "pixel_opt": LOSS,
    "perceptual_opt": LOSS,
    "gan_opt": LOSS,
    "net_d_iters": Annotated[float | None, AtLeast(1), MultipleOf(1)],
    "net_d_init_iters": Annotated[float | None, AtLeast(0), MultipleOf(1)],
}
_TRAIN_OURS: dict[str, Spec] = {
    "distill": Block("distill", every=TERM),
    "transforms": signature_block(ViewTransform),
    "grad_clip": NotNegative | Literal[False],
    "use_grad_clip": Flag,
    "max_bad_steps": Annotated[int, AtLeast(0)],
    "max_minutes": Annotated[float | None, Above(0)],
    "accumulate": Annotated[int | None, AtLeast(1)],
}
_TRAIN_UPSTREAM: dict[str, Spec] = {
    **{"ldl_opt": LOSS, "feature_matching_opt": LOSS, "fix_flow": Any},
    **dict.fromkeys(("tsa_iter", "dcn_lr_mul", "flow_lr_mul", "lr_flow"), Number),
    **dict.fromkeys(("r1_reg_weight", "path_reg_weight", "net_g_reg_every", "net_d_reg_every", "mixing_prob"), Number),
    "path_batch_shrink": Number,
}
_VAL: dict[str, Spec] = {
    "val_freq": Often,
    "save_img": Flag,
    "suffix": Literal["", None] | OwnName | int,
    "pbar": Flag,
    "metrics": Block("metrics", every=METRIC),
}
_VAL_OURS: dict[str, Spec] = {"panels": Annotated[int, AtLeast(0)], "baselines": Flag, **tiling.VAL}
_VAL_UPSTREAM: dict[str, Spec] = {"num_val_samples": int, "center_frame_only": Flag, "flip_seq": Flag}
_LOGGER = {
    "print_freq": Often,
    "save_checkpoint_freq": Often,
    "use_tb_logger": Flag,
    "wandb": Block("wandb", {"project": Text, "resume_id": Text}, unknown=WARNING),
}
_NETWORKS = ("g", "d")
_PATH: dict[str, Spec] = {
    "resume_state": Text,
    "ignore_resume_networks": str | list[str] | None,
    **{f"pretrain_network_{net}": Text for net in _NETWORKS},
    **{f"param_key_{net}": Text for net in _NETWORKS},
    **{f"strict_load_{net}": Flag for net in _NETWORKS},
}
# filled in from `name`: what the file says is overwritten
_PATH_FILLED = ("experiments_root", "results_root", "models", "training_states", "log", "visualization")
_TOP: dict[str, Spec] = {
    "name": OwnName | float,
    "model_type": str,
    "scale": int | None,
    "num_gpu": Annotated[int, AtLeast(0)] | Literal["auto"],
    "num_threads": Threads,
    "manual_seed": Seed,
    "find_unused_parameters": Flag,
    "datasets": Block("datasets", every=DATASETS),
    "network_g": NETWORK,
    "network_d": NETWORK,
    "dist_params": Block("dist_params", {"backend": str, "port": int | str | None}, unknown=WARNING),
    **realesrgan.OPTIONS,
}
_TOP_OURS: dict[str, Spec] = {
    "tile": tiling.HAT,
    "network_g": ANY_STUDENT,
    "teacher": TEACHER,
    "teacher_clean": TEACHER,
    "init": INIT,
    "features": Block("features", every=Literal["auto"] | list[tuple[Any, Any]], words=("auto",)),
    "amp": Literal["bf16", "fp16", False, None],
    "channels_last": bool | Literal["auto"],
    "compile": replace(signature_block(Compilation), name="compile", words=(True, False)),
}


def file_block(
    model: Callable[..., Any] | None,
    is_train: bool,
    is_debug: bool = False,
    brought: Mapping[str, Any] | None = None,
    read: Mapping[str, Any] | None = None,
) -> Block:
    """The block of a whole option file.

    Args:
        model: its model class; None for one that is not registered.
        is_train: training, or test.
        is_debug: whether the run is one that fills in how often to log by itself.
        brought: the terms that an option file may change without naming their `type`; by default those of the model.
        read: the further blocks at the top; by default those that the model says it reads (`option_blocks`).

    Returns:
        The block. What the models of this project do not read is an error, what BasicSR's do not read a warning. A user's own
        model may read anything: there it is a warning only if it looks like a key that exists.
    """
    house = OURS if model is None else house_of(model)
    known, named = house in (OURS, UPSTREAM), getattr(model, "__name__", "the model")
    own = model is None or issubclass(cast(type, model), DistillationModel)
    others: dict[str, Any] = {} if house == OURS else {"misspelt": WARNING, "unknown": WARNING if known else NOTHING}
    forks = FORKS if known else {}
    solver = _SOLVERS.get(house, {})
    train = {**_TRAIN, **(_TRAIN_OURS if own else _TRAIN_UPSTREAM), **solver}
    brought = getattr(model, "default_terms", {}) if brought is None else brought
    if brought:
        changed = {name: replace(TERM, default=block["type"]) for name, block in brought.items()}
        train["distill"] = replace(cast(Block, train["distill"]), keys=changed)
    val = {**_VAL, **(_VAL_OURS if own else _VAL_UPSTREAM)}
    solver_needs = ("optim_g", "scheduler", "total_iter") if solver else ("total_iter",)
    often = () if is_debug else ("print_freq", "save_checkpoint_freq")
    blocks: dict[str, Spec] = {
        "path": Block("path", {**_PATH, **dict.fromkeys(_PATH_FILLED, Any)}, **others),
        "train": Block(named, train, solver_needs if is_train else (), forks=forks.get("train", {}), **others),
        "val": Block(named, val, ("val_freq",) if is_train and not is_debug else (), forks=forks.get("val", {}), **others),
        "logger": Block(
            "the log", _LOGGER, (*often, "use_tb_logger") if is_train else (), forks=forks.get("logger", {}), unknown=WARNING
        ),
    }
    further: Mapping[str, Any] = getattr(model, "option_blocks", {}) if read is None else read
    blocks.update({key: spec_of(what, key) for key, what in further.items()})
    required = ("name", "model_type", "datasets", "network_g", *(("train", "logger") if is_train else ("val",)))
    return Block(named, {**_TOP, **(_TOP_OURS if own else {}), **blocks}, required, forks=forks.get("top", {}), **others)


MODELS = Named("model", MODEL_REGISTRY, lambda model: None, renamed=RENAMED["model"])


def our_model(opt: Mapping[str, Any]) -> type[DistillationModel] | None:
    """The model class of an option file, if it is one of this project's kind."""
    model = MODELS.entries.get(str(opt.get("model_type")))
    return model if model is not None and issubclass(model, DistillationModel) else None
