"""Training: BasicSR's loop, with what it lacks (CPU resume, the working folder as root, a progress bar, a closing table)."""

from __future__ import annotations

import datetime
import itertools
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from os import path as osp
from typing import Any

import basicsr
import torch
from basicsr.data.prefetch_dataloader import CPUPrefetcher, CUDAPrefetcher
from basicsr.models import build_model
from basicsr.train import create_train_val_dataloader, init_tb_loggers
from basicsr.utils import AvgTimer, MessageLogger, check_resume, get_root_logger, get_time_str, make_exp_dirs, mkdir_and_rename
from basicsr.utils.options import copy_opt_file, dict2str
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

import kd_plugins
from kd_plugins.checks import check_file
from kd_plugins.checks.known import MODELS
from kd_plugins.checks.walk import no_entry
from kd_plugins.models.report import score_table
from kd_plugins.options import OptionError, option_errors, parse_options
from kd_plugins.process import prepare_process


def train_pipeline(root_path: str, argv: Sequence[str] | None = None) -> Any:
    """Train the model of an option file.

    Args:
        root_path: the folder that experiments/ and tb_logger/ are made in.
        argv: the command line; that of the process by default.

    Returns:
        The trained model.

    Raises:
        OptionError: see `parse_options`.
    """
    opt, args = parse_options(root_path, is_train=True, argv=argv, check=partial(check_file, is_train=True))
    prepare_process(opt)
    resume_state = _load_resume_state(opt)
    if resume_state is None:
        make_exp_dirs(opt)
        if opt["logger"].get("use_tb_logger") and "debug" not in opt["name"] and opt["rank"] == 0:
            mkdir_and_rename(osp.join(root_path, "tb_logger", opt["name"]))
    copy_opt_file(args.opt, opt["path"]["experiments_root"])
    logger = start_log(opt, "train", args.warnings)
    tb_logger = init_tb_loggers(opt)

    with option_errors(args.opt):
        train_loader, sampler, val_loaders, total_epochs, total_iters = create_train_val_dataloader(opt, logger)
        model = build_registered_model(opt)
    epoch = current_iter = 0
    if resume_state is not None:
        model.resume_training(resume_state)
        epoch, current_iter = resume_state["epoch"], resume_state["iter"]
        logger.info(f"Resuming training from epoch: {epoch}, iter: {current_iter}.")
    message_logger = MessageLogger(opt, current_iter + 1, tb_logger)
    prefetcher = _build_prefetcher(train_loader, opt, logger)

    def validate() -> None:
        for loader in val_loaders:
            model.validation(loader, current_iter, tb_logger, opt["val"].get("save_img", False))

    start = time.time()
    data_timer, iter_timer = AvgTimer(), AvgTimer()
    validated_at = -1
    with logging_redirect_tqdm([logger]), _progress(opt, current_iter, total_iters) as progress:
        batches = _batches(prefetcher, sampler, epoch, total_epochs)
        for epoch, data in itertools.islice(batches, max(total_iters - current_iter, 0)):
            data_timer.record()
            current_iter += 1
            model.update_learning_rate(current_iter, warmup_iter=opt["train"].get("warmup_iter", -1))
            model.feed_data(data)
            model.optimize_parameters(current_iter)
            iter_timer.record()
            progress.update()
            if current_iter % opt["logger"]["print_freq"] == 0:
                timing = {"time": iter_timer.get_avg_time(), "data_time": data_timer.get_avg_time()}
                lrs = model.get_current_learning_rate()
                message_logger({"epoch": epoch, "iter": current_iter, "lrs": lrs, **timing, **model.get_current_log()})
                if tb_logger:
                    tb_logger.add_scalar("lr", lrs[0], current_iter)
            if current_iter % int(opt["logger"]["save_checkpoint_freq"]) == 0:
                logger.info("Saving models and training states.")
                model.save(epoch, current_iter)
            if opt.get("val") is not None and current_iter % int(opt["val"]["val_freq"]) == 0:
                validate()
                validated_at = current_iter
            data_timer.start()
            iter_timer.start()

    logger.info(f"End of training. Time consumed: {datetime.timedelta(seconds=int(time.time() - start))}")
    model.save(epoch=-1, current_iter=-1)  # the latest
    if opt.get("val") is not None and validated_at != current_iter:
        validate()
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


def _batches(prefetcher: Any, sampler: Any, first: int, last: int) -> Iterator[tuple[int, Any]]:
    for epoch in range(first, last + 1):
        sampler.set_epoch(epoch)
        prefetcher.reset()
        while (data := prefetcher.next()) is not None:
            yield epoch, data


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


def _load_resume_state(opt: dict[str, Any]) -> dict[str, Any] | None:
    """The state to go on from; upstream's needs a GPU for it, and looks for it in the working folder."""
    path = opt["path"].get("resume_state")
    states = opt["path"]["training_states"]
    if opt["auto_resume"] and osp.isdir(states):
        iterations = [int(osp.splitext(name)[0]) for name in os.listdir(states) if name.endswith(".state")]
        path = osp.join(states, f"{max(iterations)}.state") if iterations else path
    if not path:
        return None
    if not osp.isfile(path):
        raise OptionError(f"path:resume_state: {path}: no such file")
    opt["path"]["resume_state"] = path
    state = torch.load(path, map_location="cpu", weights_only=True)
    check_resume(opt, state["iter"])
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
