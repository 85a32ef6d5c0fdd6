"""Training: BasicSR's loop, with what it lacks: resuming, orderly stops, a progress bar, a closing table."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from functools import partial
from os import path as osp
from pathlib import Path
from typing import Any

from basicsr.models import build_model
from basicsr.train import create_train_val_dataloader
from basicsr.utils import check_resume, get_root_logger, make_exp_dirs, mkdir_and_rename, set_random_seed

from kd_plugins import distributed
from kd_plugins.arguments.traversal import no_entry
from kd_plugins.atomic_files import remove_leftovers
from kd_plugins.checks import check_file
from kd_plugins.checks.evaluation import scored_phases
from kd_plugins.checks.option_keys import MODELS, our_model
from kd_plugins.data.crop_stages import crop_stages, stage_at
from kd_plugins.data.loading import readable_loader
from kd_plugins.data.training_data import TrainingData
from kd_plugins.models import DistillationModel
from kd_plugins.models.dry_run import try_later_steps
from kd_plugins.options import OptionError, option_errors
from kd_plugins.process import prepare_process
from kd_plugins.run_options import keep_option_file, kept_file, parse_options
from kd_plugins.tables import score_table
from kd_plugins.training.accumulation import try_parts
from kd_plugins.training.checkpoint_files import BadState, load_state, newest_state
from kd_plugins.training.curves import open_curves
from kd_plugins.training.length import resize, steps_within
from kd_plugins.training.lock import only_run
from kd_plugins.training.loop import Loop
from kd_plugins.training.option_changes import ANOTHER_RUN, changes
from kd_plugins.training.run_log import begin_log, held_log, start_log


def train_pipeline(root_path: str, argv: Sequence[str] | argparse.Namespace | None = None) -> Any:
    """Train the model of an option file.

    Args:
        root_path: the folder that experiments/ and tb_logger/ are made in.
        argv: the command line, or what was parsed of it; that of the process by default.

    Returns:
        The trained model.

    Raises:
        OptionError: see `parse_options` and `only_run`; or no state that `--auto_resume` or `path: resume_state` asks for is good.
        Interrupted: a signal came; the state is saved.
        BadSteps: too many steps in a row had numbers that are not finite; the state is saved.
        SaveError: a checkpoint could not be written.
    """
    opt, args = parse_options(root_path, is_train=True, argv=argv, check=partial(check_file, is_train=True))
    prepare_process(opt)
    with only_run(opt["path"]["experiments_root"]):
        resume_state = _load_resume_state(opt, args.warnings)
        with held_log(shown=True) as held, option_errors(args.opt):  # nothing is written for what nothing can be built from
            said = _fit_length(opt, args, resume_state)
            begin_log(opt, args)
            if said:
                get_root_logger().info(said)
            model, data, val_loaders, total_iters = build_run(opt, resume_state)
            if said:
                model.saver.progress["total_iter"] = total_iters
        if resume_state is None:
            make_exp_dirs(opt)
            if opt["logger"].get("use_tb_logger") and "debug" not in opt["name"] and opt["rank"] == 0:
                mkdir_and_rename(osp.join(root_path, "tb_logger", opt["name"]))
        if opt["rank"] == 0:
            keep_option_file(args.found, model.opt)
        distributed.broadcast_object(None)  # the folders are there
        logger = start_log(opt, "train", held)
        tb_logger = open_curves(opt, resumes=resume_state is not None)
        if tb_logger:
            text = Path(kept_file(args.found, opt)).read_text(encoding="utf-8")
            tb_logger.add_text("options", f"```yaml\n{text}\n```")
        epoch = current_iter = 0
        if resume_state is not None:
            epoch, current_iter = resume_state["epoch"], resume_state["iter"]
            logger.info(f"Resuming training from epoch: {epoch}, iter: {current_iter}.")
        loop = Loop(opt, model, data, val_loaders, tb_logger, epoch, current_iter)
        loop.run(total_iters)
        _close(opt, model, logger, tb_logger)
        return model


def _fit_length(opt: dict[str, Any], args: argparse.Namespace, resume_state: dict[str, Any] | None) -> str:
    """Shorten a run to `train: max_minutes`, with all that follows its length; a resumed one keeps the length it began with.

    Args:
        opt: the options, changed in place; so are those that are kept in the run's folder, which say the length alone.
        args: the parsed arguments with the option file.
        resume_state: a state to resume from.

    Returns:
        What to say of it; nothing without such a key, or for a model of BasicSR's own, whose states keep no length.

    Raises:
        ValueError, OutOfMemory: see `steps_within`.
    """
    minutes, total = opt["train"].get("max_minutes"), int(opt["train"]["total_iter"])
    if not minutes or not our_model(opt):
        return ""
    done, began_with = 0, None
    if resume_state is not None:
        done, began_with = resume_state["iter"], (resume_state.get("progress") or {}).get("total_iter")
    if began_with is not None:
        steps, said = int(began_with), "as it began"
    else:
        get_root_logger().info(f"train:max_minutes: timing a few steps, to see how many take {minutes:g} minutes.")
        with held_log():
            steps, seconds = steps_within(60 * minutes, opt, build_run, "train:max_minutes")
        steps, said = min(done + steps, total), f"a step takes {seconds:.3g} s"
    if steps < total:
        for options in (opt, args.found.opt):
            resize(options, steps)
    args.found.opt["train"].pop("max_minutes", None)
    kept = f"{steps:,} steps in place of {total:,}, the schedule with them" if steps < total else f"all {total:,} steps fit"
    return f"train:max_minutes: {minutes:g}: {kept} ({said})."


def build_run(opt: dict[str, Any], resume_state: dict[str, Any] | None = None) -> tuple[Any, TrainingData, list[Any], int]:
    """Build everything a training needs; nothing is written.

    Args:
        opt: the completed options; of the training data those of the stage that the run begins in are left.
        resume_state: a state to resume from.

    Returns:
        The model, the training data, the validation loaders, the last iteration.

    Raises:
        KeyError, ValueError, FileNotFoundError: see `option_errors`.
    """
    logger, iteration = get_root_logger(), resume_state["iter"] if resume_state else 0
    _take_one_gpu(opt, logger)
    stages = crop_stages(opt["datasets"]["train"])
    opt["datasets"]["train"] = stages[stage_at(stages, iteration)].block
    try:
        built: tuple[Any, ...] = create_train_val_dataloader(opt, logger)
    except ZeroDivisionError:  # upstream counts the epochs
        raise ValueError("datasets:train: no image to train on") from None
    loader, _, val_loaders, _, total_iters = built
    val_loaders = [readable_loader(each) for each in val_loaders]
    data = TrainingData(opt, stages, loader.dataset, iteration)
    if warning := data.warning():
        logger.warning(warning)
    model = build_registered_model(opt)
    try_parts(opt["train"], [stage.block["batch_size_per_gpu"] for stage in stages], getattr(model, "terms", {}))
    if isinstance(model, DistillationModel):
        try_later_steps(model, data)
        model.validator.try_metrics(opt["datasets"][phase] for phase in scored_phases(opt) if opt.get("val"))
    saver = getattr(model, "saver", None)  # BasicSR's own models have none
    progress: dict[str, int] = saver.progress if saver else {}
    if resume_state is not None:
        for change in _resume(model, resume_state, opt["path"]["resume_state"]):
            logger.warning(change)
        images, before = data.images, progress.get("images", data.images)
        if before != images and not data.begins_at(iteration):  # larger crops may leave out small images
            logger.warning(f"datasets:train: {images} images, {before} before: the state's position in the epoch does not fit.")
    return model, data, val_loaders, total_iters


def _take_one_gpu(opt: dict[str, Any], logger: logging.Logger) -> None:
    """`num_gpu: auto` in one process: BasicSR's DataParallel trains copies of the student, whose layers cannot be tapped."""
    if our_model(opt) and not opt["dist"] and opt["num_gpu"] > 1:
        logger.info(f"Training on 1 of {opt['num_gpu']} GPUs; `torchrun` and `--launcher pytorch` train on all of them.")
        opt["num_gpu"] = 1


def build_registered_model(opt: dict[str, Any]) -> Any:
    """BasicSR's build_model; an unknown class gets the nearest name.

    Raises:
        KeyError: the model_type is not registered.
    """
    if opt["model_type"] not in MODELS.entries:
        raise KeyError(f"model_type: {no_entry(opt['model_type'], MODELS)}")
    return build_model(opt)


def _load_resume_state(opt: dict[str, Any], warnings: list[str]) -> dict[str, Any] | None:
    """The state to resume from; upstream needs a GPU to load it, looks in the working folder, and does not check it."""
    path, state = opt["path"].get("resume_state"), None
    states, models = opt["path"]["training_states"], opt["path"]["models"]
    networks = [f"net_{key.removeprefix('network_')}" for key in opt if key.startswith("network_")]
    if opt["auto_resume"]:
        newest, bad = None, []
        if opt["rank"] == 0:
            remove_leftovers(states, models)
            newest, state, bad = newest_state(states, models, networks)
        newest, bad = distributed.broadcast_object((newest, bad))
        if bad and newest is None:
            raise OptionError(
                f"--auto_resume: no state in {states} can be used; without --auto_resume a new run begins. {' '.join(bad)}"
            )
        path = newest or path
        warnings.extend(bad)
    if not path:
        return None
    if not osp.isfile(path):
        raise OptionError(f"path:resume_state: {path}: no such file")
    if state is None:
        try:
            state = load_state(path, models, networks)
        except BadState as error:
            raise OptionError(f"path:resume_state: not a good state: {error}; --auto_resume takes the newest good one") from error
    opt["path"]["resume_state"] = path
    joins = opt.get("network_d") and opt["train"].get("gan_opt") and state.get("files")  # BasicSR's own states do not list them
    if joins and f"net_d_{state['iter']}.pth" not in state["files"]:
        raise OptionError(f"path:resume_state: {path} has no discriminator: {ANOTHER_RUN}")
    check_resume(opt, state["iter"])
    if state.get("seed") is not None:
        opt["manual_seed"] = state["seed"]  # an option file need not have one
        set_random_seed(opt["manual_seed"] + opt["rank"])
    if opt.get("channels_last") == "auto" and "channels_last" in state:
        opt["channels_last"] = state["channels_last"]  # another layout would have other bits
    return state


def _resume(model: Any, state: dict[str, Any], path: str) -> list[str]:
    try:
        changed = list(changes(model, state))
        model.resume_training(state)
        return changed
    except Exception as error:  # the state of another model makes its parts raise anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise OptionError(f"path:resume_state: {path} does not fit this run: {reason}") from error


def _close(opt: dict[str, Any], model: Any, logger: logging.Logger, tb_logger: Any) -> None:
    has_teacher = bool(opt.get("teacher"))
    for dataset, scores in getattr(model, "scores", {}).items():
        logger.info(score_table(f"Result on {dataset}", scores, has_teacher))
    logger.info(f"{'Student' if has_teacher else 'Network'}: {osp.join(opt['path']['models'], 'net_g_latest.pth')}")
    if tb_logger:
        logger.info(f"Curves and pictures: tensorboard --logdir {osp.join(opt['root_path'], 'tb_logger', opt['name'])}")
        tb_logger.close()
