"""The log of a run: on the terminal at once, in the run's folder once there is one."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import path as osp
from typing import Any

import basicsr
import torch
from basicsr.utils import get_root_logger, get_time_str
from basicsr.utils.logger import initialized_logger
from basicsr.utils.options import dict2str

import kd_plugins
from kd_plugins import distributed
from kd_plugins.run_options import kept_file, summary


@contextmanager
def held_log(shown: bool = False) -> Iterator[list[logging.LogRecord]]:
    """Keep the lines of BasicSR's log for the file of `start_log`, which cannot exist before the run's folder does.

    Args:
        shown: whether the terminal has them at once, those of the first process.
    """
    logger, held = logging.getLogger("basicsr"), []
    before = logger.handlers, logger.level, dict(initialized_logger)
    logger.handlers = [_Holder(held), *([_Terminal()] if shown and distributed.rank() == 0 else [])]
    logger.setLevel(logging.INFO)
    initialized_logger["basicsr"] = True
    try:
        yield held
    finally:
        logger.handlers, level, initialized = before
        logger.setLevel(level)
        initialized_logger.clear()
        initialized_logger.update(initialized)


class _Holder(logging.Handler):
    def __init__(self, held: list[logging.LogRecord]) -> None:
        super().__init__()
        self.emit = held.append  # type: ignore[method-assign]


class _Terminal(logging.Handler):
    """Writes as BasicSR's log does, through what moves on the terminal meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr, flush=True)


def begin_log(opt: Mapping[str, Any], args: argparse.Namespace) -> None:
    """The first lines of a run: versions, what the options come to, warnings.

    Args:
        opt: the completed options.
        args: the parsed arguments, with the option file and the warnings.
    """
    logger = get_root_logger()
    logger.info(f"kd_plugins {kd_plugins.__version__}, BasicSR {basicsr.__version__}, PyTorch {torch.__version__}")
    logger.info(f"{summary(opt, args.force_yml)} | all options: {osp.relpath(kept_file(args.found, opt))}")
    for warning in args.warnings:
        logger.warning(warning)


def start_log(opt: dict[str, Any], task: str, held: Sequence[logging.LogRecord]) -> logging.Logger:
    """The run's log, on the terminal and in its folder; the file begins with the lines that were kept, and all options."""
    file = osp.join(opt["path"]["log"], f"{task}_{opt['name']}_{get_time_str()}.log")
    logger = get_root_logger(logger_name="basicsr", log_level=logging.INFO, log_file=file)
    options = logging.LogRecord(logger.name, logging.INFO, __file__, 0, dict2str(opt), None, None)
    for handler in logger.handlers:
        if isinstance(handler, logging.FileHandler):
            for record in (*held, options):
                handler.handle(record)
    return logger
