"""Training: BasicSR's loop, with what it lacks (going on where it stopped, stopping well, a progress bar, a closing table)."""

from __future__ import annotations

import datetime
import itertools
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from os import path as osp
from typing import Any

import basicsr
import torch
from basicsr.data.prefetch_dataloader import CPUPrefetcher, CUDAPrefetcher
from basicsr.models import build_model
from basicsr.train import create_train_val_dataloader, init_tb_loggers
from basicsr.utils import (
    AvgTimer,
    MessageLogger,
    check_resume,
    get_root_logger,
    get_time_str,
    make_exp_dirs,
    mkdir_and_rename,
    set_random_seed,
)
from basicsr.utils.options import copy_opt_file, dict2str
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

import kd_plugins
from kd_plugins.checks import check_file
from kd_plugins.checks.known import MODELS
from kd_plugins.checks.walk import no_entry
from kd_plugins.data.loading import resumable_loader
from kd_plugins.interrupt import Interrupt, Interrupted, RunStopped
from kd_plugins.models.bad_steps import BadSteps
from kd_plugins.models.checkpoints import BadState, load_state, newest_state, remove_leftovers
from kd_plugins.models.report import score_table
from kd_plugins.options import OptionError, option_errors, parse_options
from kd_plugins.process import prepare_process
from kd_plugins.randomness import kept_randomness


def train_pipeline(root_path: str, argv: Sequence[str] | None = None) -> Any:
    """Train the model of an option file.

    Args:
        root_path: the folder that experiments/ and tb_logger/ are made in.
        argv: the command line; that of the process by default.

    Returns:
        The trained model.

    Raises:
        OptionError: see `parse_options`; or no state that `--auto_resume` or `path: resume_state` asks for is good.
        Interrupted: a signal came; the state is saved.
        BadSteps: too many steps in a row had numbers that are not finite; the state is saved.
        SaveError: a checkpoint could not be written.
    """
    opt, args = parse_options(root_path, is_train=True, argv=argv, check=partial(check_file, is_train=True))
    prepare_process(opt)
    resume_state = _load_resume_state(opt, args.warnings)
    if resume_state is None:
        make_exp_dirs(opt)
        if opt["logger"].get("use_tb_logger") and "debug" not in opt["name"] and opt["rank"] == 0:
            mkdir_and_rename(osp.join(root_path, "tb_logger", opt["name"]))
    copy_opt_file(args.opt, opt["path"]["experiments_root"])
    logger = start_log(opt, "train", args.warnings)
    tb_logger = init_tb_loggers(opt)

    with option_errors(args.opt):
        train_loader, sampler, val_loaders, _, total_iters = create_train_val_dataloader(opt, logger)
        train_loader, sampler, warning = resumable_loader(train_loader, sampler, opt)
        model = build_registered_model(opt)
    if warning:
        logger.warning(warning)
    epoch = current_iter = 0
    if resume_state is not None:
        model.resume_training(resume_state)
        epoch, current_iter = resume_state["epoch"], resume_state["iter"]
        logger.info(f"Resuming training from epoch: {epoch}, iter: {current_iter}.")
    message_logger = MessageLogger(opt, current_iter + 1, tb_logger)
    progress = getattr(model, "progress", {})  # what a state keeps of this loop; a model that is not ours keeps nothing
    saved_at = current_iter

    def save() -> None:
        nonlocal saved_at
        if saved_at != current_iter:
            logger.info("Saving models and training states.")
            model.save(epoch, current_iter)
            saved_at = current_iter

    def validate() -> None:
        with kept_randomness():  # a run that goes on may validate once more, or once less
            for loader in val_loaders:
                model.validation(interrupt.watch(loader), current_iter, tb_logger, opt["val"].get("save_img", False))
        progress["validated"] = current_iter

    def validation_due() -> bool:
        return opt.get("val") is not None and progress.get("validated", -1) != current_iter

    def steps(batches: Iterator[tuple[int, int, Any]]) -> None:
        nonlocal epoch, current_iter
        data_timer, iter_timer = AvgTimer(), AvgTimer()
        for epoch, samples, data in itertools.islice(batches, max(total_iters - current_iter, 0)):  # noqa: B007
            data_timer.record()
            current_iter += 1
            progress["samples"] = samples
            model.update_learning_rate(current_iter, warmup_iter=opt["train"].get("warmup_iter", -1))
            model.feed_data(data)
            model.optimize_parameters(current_iter)
            iter_timer.record()
            bar.update()
            if current_iter % opt["logger"]["print_freq"] == 0:
                timing = {"time": iter_timer.get_avg_time(), "data_time": data_timer.get_avg_time()}
                lrs = model.get_current_learning_rate()
                message_logger({"epoch": epoch, "iter": current_iter, "lrs": lrs, **timing, **model.get_current_log()})
                if tb_logger:
                    tb_logger.add_scalar("lr", lrs[0], current_iter)
            if current_iter % int(opt["logger"]["save_checkpoint_freq"]) == 0:
                save()
            interrupt.check()
            if validation_due() and current_iter % int(opt["val"]["val_freq"]) == 0:
                validate()
            data_timer.start()
            iter_timer.start()

    start = time.time()
    with logging_redirect_tqdm([logger]), _progress(opt, current_iter, total_iters) as bar, Interrupt() as interrupt:
        try:
            if current_iter and progress and validation_due() and current_iter % int(opt["val"]["val_freq"]) == 0:
                validate()  # the state was saved before the validation of its iteration
            prefetcher, batch_size = partial(_build_prefetcher, train_loader, opt, logger), train_loader.batch_size or 1
            steps(_batches(prefetcher, sampler, batch_size, epoch, progress.get("samples", 0)))
            logger.info(f"End of training. Time consumed: {datetime.timedelta(seconds=int(time.time() - start))}")
            model.save(epoch=-1, current_iter=-1)  # the latest
            if validation_due():
                validate()
        except RunStopped as stop:
            if isinstance(stop, (Interrupted, BadSteps)):
                save()
                stop.args = (f"{stop}. Saved at iteration {saved_at}; `--auto_resume` goes on from there",)
            logger.error(f"Stopped: {stop}.")
            raise
        finally:
            if tb_logger:
                tb_logger.flush()
    _close(opt, model, logger, tb_logger)
    return model


def build_registered_model(opt: dict[str, Any]) -> Any:
    """BasicSR's build_model, naming the nearest class where there is no such.

    Raises:
        KeyError: the model_type is not registered.
    """
    if opt["model_type"] not in MODELS.entries:
        raise KeyError(f"model_type: {no_entry(opt['model_type'], MODELS)}")
    return build_model(opt)


def start_log(opt: dict[str, Any], task: str, warnings: Sequence[str]) -> logging.Logger:
    """The run's log, on the terminal and in the experiment's folder, opened with versions, options and warnings about them."""
    file = osp.join(opt["path"]["log"], f"{task}_{opt['name']}_{get_time_str()}.log")
    logger = get_root_logger(logger_name="basicsr", log_level=logging.INFO, log_file=file)
    logger.info(f"kd_plugins {kd_plugins.__version__}, BasicSR {basicsr.__version__}, PyTorch {torch.__version__}")
    logger.info(dict2str(opt))
    for warning in warnings:
        logger.warning(warning)
    return logger


def _batches(
    build_prefetcher: Callable[[], Any], sampler: Any, batch_size: int, first: int, samples: int
) -> Iterator[tuple[int, int, Any]]:
    """Epoch, samples of it used up with this batch, batch, without end; `samples` of the first epoch are left out.

    Upstream counts an epoch's incomplete last batch, which the loader drops, and so may end before the last iteration.
    """
    prefetcher = None
    for epoch in itertools.count(first):
        sampler.set_epoch(epoch, samples)
        if prefetcher is None:
            prefetcher = build_prefetcher()  # it asks for batches at once, so not before the sampler knows which
        else:
            prefetcher.reset()
        while (data := prefetcher.next()) is not None:
            samples += batch_size
            yield epoch, samples, data
        samples = 0


def _progress(opt: dict[str, Any], start: int, total: int) -> Any:
    """A bar with the time left on a terminal; elsewhere nothing: the log lines have it too."""
    return tqdm(initial=start, total=total, unit="it", dynamic_ncols=True, disable=opt["rank"] != 0 or not sys.stderr.isatty())


def _build_prefetcher(loader: Any, opt: dict[str, Any], logger: logging.Logger) -> Any:
    mode = opt["datasets"]["train"].get("prefetch_mode")
    if mode not in (None, "cpu", "cuda"):
        raise OptionError(f"datasets:train:prefetch_mode: {mode!r}, expected cpu, cuda or nothing")
    if mode == "cuda" and opt["num_gpu"] == 0:
        logger.warning("prefetch_mode: cuda needs a GPU; prefetching on the CPU.")
    return CUDAPrefetcher(loader, opt) if mode == "cuda" and opt["num_gpu"] else CPUPrefetcher(loader)


def _load_resume_state(opt: dict[str, Any], warnings: list[str]) -> dict[str, Any] | None:
    """The state to go on from; upstream's needs a GPU for it, looks for it in the working folder, and takes it as it is."""
    path, state = opt["path"].get("resume_state"), None
    states, models = opt["path"]["training_states"], opt["path"]["models"]
    networks = [f"net_{key.removeprefix('network_')}" for key in opt if key.startswith("network_")]
    if opt["auto_resume"]:
        if opt["rank"] == 0:
            remove_leftovers(states, models)
        newest, state, bad = newest_state(states, models, networks)
        if bad and state is None:
            raise OptionError(
                f"--auto_resume: no state in {states} is good; without --auto_resume a new run begins. {' '.join(bad)}"
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
    check_resume(opt, state["iter"])
    if state.get("seed") is not None:
        opt["manual_seed"] = state["seed"]  # an option file need not have one
        set_random_seed(opt["manual_seed"] + opt["rank"])
    return state


def _close(opt: dict[str, Any], model: Any, logger: logging.Logger, tb_logger: Any) -> None:
    for dataset, scores in getattr(model, "scores", {}).items():
        logger.info(score_table(f"Result on {dataset}", scores))
    logger.info(f"Student: {osp.join(opt['path']['models'], 'net_g_latest.pth')}")
    if tb_logger:
        logger.info(f"Curves and pictures: tensorboard --logdir {osp.join(opt['root_path'], 'tb_logger', opt['name'])}")
        tb_logger.close()


if __name__ == "__main__":
    train_pipeline(os.getcwd())
