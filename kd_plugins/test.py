"""Testing: score a checkpoint and write its images."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from typing import Any

from basicsr.data import build_dataloader, build_dataset
from basicsr.utils import get_root_logger, make_exp_dirs

from kd_plugins import distributed
from kd_plugins.checks import check_file
from kd_plugins.checks.evaluation import scored_phases, trained_student
from kd_plugins.data.loading import readable_loader
from kd_plugins.options import option_errors
from kd_plugins.process import prepare_process
from kd_plugins.run_options import keep_option_file, parse_options
from kd_plugins.train import build_registered_model
from kd_plugins.training.lock import only_run
from kd_plugins.training.restoration_model import RestorationModel
from kd_plugins.training.run_log import begin_log, held_log, start_log


def test_pipeline(root_path: str, argv: Sequence[str] | argparse.Namespace | None = None) -> Any:
    """Score the model of an option file on its validation and test datasets: the weights it names, or those its training left.

    Args:
        root_path: the folder that results/ is made in.
        argv: the command line, or what was parsed of it; that of the process by default.

    Returns:
        The model, with its `scores`.

    Raises:
        OptionError: see `parse_options` and `only_run`.
    """
    opt, args = parse_options(root_path, is_train=False, argv=argv, check=partial(check_file, is_train=False))
    prepare_process(opt)
    with only_run(opt["path"]["results_root"]):
        with held_log(shown=True) as held, option_errors(args.opt):  # nothing is written for what nothing can be built from
            begin_log(opt, args)
            loaders = [_build_loader(opt["datasets"][phase], opt) for phase in scored_phases(opt)]
            if student := trained_student(opt, opt["name"], root_path):
                opt["path"] = {"param_key_g": "params_ema", **opt["path"], "pretrain_network_g": student}
                get_root_logger().info(f"The option file names no weights; scored are those that its training left, {student}.")
            model = build_registered_model(opt)
            if isinstance(model, RestorationModel):
                model.validator.try_metrics(opt["datasets"][phase] for phase in scored_phases(opt))
        make_exp_dirs(opt)
        if opt["rank"] == 0:
            keep_option_file(args.found, opt)
        distributed.broadcast_object(None)  # the folders are there
        logger = start_log(opt, "test", held)
        for loader in loaders:
            logger.info(f"Testing {loader.dataset.opt['name']}...")
            model.validation(loader, current_iter=opt["name"], tb_logger=None, save_img=opt["val"].get("save_img", True))
        logger.info(f"Images: {opt['path']['visualization']}")
        return model


def _build_loader(dataset_opt: dict[str, Any], opt: dict[str, Any]) -> Any:
    dataset = build_dataset(dataset_opt)
    get_root_logger().info(f"Number of test images in {dataset_opt['name']}: {len(dataset)}")
    loader = build_dataloader(dataset, dataset_opt, num_gpu=opt["num_gpu"], dist=opt["dist"], sampler=None, seed=opt["manual_seed"])
    return readable_loader(loader)
