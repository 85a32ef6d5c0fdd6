"""The options of a run: a command line and the option file it names, completed as BasicSR does.

The result is that of basicsr/utils/options.py.
"""

from __future__ import annotations

import argparse
import copy
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from os import path as osp
from typing import Any

from kd_plugins.home import expand_in
from kd_plugins.options import OptionError, OptionFile, add_option_file, read_option_file, require_keys
from kd_plugins.yaml_loader import one_line, text_saying

DATA_PATHS = ("dataroot_gt", "dataroot_lq", "meta_info_file", "meta_info")
"""Keys of a dataset that name a file or folder, in which `~` is the user's own."""


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `train` and `test` take, as BasicSR's own scripts do."""
    add_option_file(parser)
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm"], default="none", help="job launcher")
    parser.add_argument("--auto_resume", action="store_true", help="continue from the newest saved state, if there is one")
    parser.add_argument("--debug", action="store_true", help="log and validate every few iterations")
    parser.add_argument("--local_rank", type=int, default=0, help=argparse.SUPPRESS)


def _parse_run(is_train: bool, argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="basicsr train" if is_train else "basicsr test")
    add_run_arguments(parser)
    return parser.parse_args(argv)


def run_name(name: Any, debug: bool) -> str:
    """The name of a run's folders: that of the file, which YAML reads as a number where it is `2025`."""
    name = str(name)
    return f"debug_{name}" if debug and not name.startswith("debug") else name


def parse_options(
    root_path: str,
    is_train: bool,
    argv: Sequence[str] | argparse.Namespace | None = None,
    check: Callable[[OptionFile, argparse.Namespace], list[str]] | None = None,
) -> tuple[dict[str, Any], argparse.Namespace]:
    """Read the command line and the option file it names, and complete them as BasicSR does.

    Args:
        root_path: the folder that experiments/, tb_logger/ and results/ are made in.
        is_train: training, or test.
        argv: the arguments, or what was parsed of them; those of the process by default.
        check: looks at the whole before anything is done with it; called with the file and the parsed arguments, it returns
            warnings, or raises OptionError.

    Returns:
        The options, and the parsed arguments with `root_path`, `warnings` and the option file, `found`.

    Raises:
        OptionError: see `read_option_file` and `require_keys`.
    """
    import torch
    from basicsr.utils import set_random_seed

    from kd_plugins import distributed

    args = argv if isinstance(argv, argparse.Namespace) else _parse_run(is_train, argv)
    args.root_path, args.found = root_path, read_option_file(args.opt, args.force_yml)
    args.warnings = check(args.found, args) if check else []
    require_keys(args.found)
    opt = copy.deepcopy(args.found.opt)

    opt["dist"] = args.launcher != "none"
    try:
        distributed.init_process_group(args.launcher, opt)
    except ValueError as error:
        raise OptionError(str(error)) from None
    opt["rank"], opt["world_size"] = distributed.rank(), distributed.world_size()
    if opt.get("manual_seed") is None:
        opt["manual_seed"] = distributed.broadcast_object(random.randint(1, 10000))
    set_random_seed(opt["manual_seed"] + opt["rank"])

    opt["auto_resume"] = args.auto_resume
    opt["is_train"] = is_train
    opt["name"] = run_name(opt["name"], args.debug)
    if opt.get("num_gpu", "auto") == "auto":
        opt["num_gpu"] = torch.cuda.device_count()
    opt["root_path"] = root_path
    _complete_datasets(opt)
    _complete_paths(opt, root_path, is_train)
    if is_train and "debug" in opt["name"]:
        for key, often in (("val", {"val_freq": 8}), ("logger", {"print_freq": 1, "save_checkpoint_freq": 8})):
            opt[key] = {**(opt.get(key) or {}), **often}
    return opt, args


def kept_file(found: OptionFile, opt: Mapping[str, Any]) -> str:
    """Where the option file of a run is kept: in its folder."""
    return osp.join(opt["path"]["log"], osp.basename(found.file))


def keep_option_file(found: OptionFile, opt: Mapping[str, Any]) -> None:
    """Write the option file into a run's folder so that it alone repeats the run: its bases, `--force_yml` and the seed included.

    So is a student that was made of the teacher: another timing would choose another one. A file that is complete as it stands
    keeps its comments.

    Args:
        found: the file as it was read.
        opt: the run's options.
    """
    ran = {key: opt[key] for key in ("name", "manual_seed") if str(found.opt.get(key)) != str(opt[key])}
    if chosen := opt.get("chosen_student"):
        ran["network_g"] = chosen["network_g"]
    given = {**found.opt, **ran}
    with open(found.file, encoding="utf-8") as stream:
        text = text_saying(given, stream.read())
    with open(kept_file(found, opt), "w", encoding="utf-8") as stream:
        stream.write(f"# GENERATE TIME: {time.asctime()}\n# CMD:\n# {' '.join(sys.argv)}\n\n{text}")


def summary(opt: Mapping[str, Any], changed: Sequence[str] = ()) -> str:
    """What a run is, in one line: its name, networks, data, steps.

    Args:
        opt: the completed options.
        changed: what `--force_yml` says.
    """
    known = [f"{opt['name']}: {opt['model_type']}"]
    roles = ("teacher", "student") if opt.get("teacher") else ("", "network")
    for role, key in zip(roles, ("teacher", "network_g"), strict=True):
        if role:
            known.append(f"{role} {_network(opt[key])}")
    datasets = {phase: dataset.get("name") for phase, dataset in opt["datasets"].items()}
    known += [f"{phase} {name}" for phase, name in datasets.items() if opt["is_train"] or not phase.startswith("train")]
    if opt["is_train"]:
        known.append(f"{opt['train']['total_iter']} steps")
    if changed:
        known.append(f"--force_yml {' '.join(changed)}")
    return " | ".join(known)


def _network(block: Any) -> str:
    """A network in a word or two: its checkpoint, or its type."""
    if not isinstance(block, Mapping):
        return str(block)
    if isinstance(block.get("tasks"), Mapping):
        return ", ".join(f"{task}: {_network(own)}" for task, own in block["tasks"].items())
    name = block.get("checkpoint") or block.get("type")
    return osp.basename(str(name)) if name else one_line(dict(block))


def _complete_datasets(opt: dict[str, Any]) -> None:
    for phase, dataset in opt["datasets"].items():
        if not isinstance(dataset, dict):
            raise OptionError(f"datasets:{phase}: expected a mapping (name, type, ...), got {dataset!r}")
        dataset["phase"] = phase.split("_")[0]  # val_1, val_2, test_1
        if "scale" in opt:
            dataset["scale"] = opt["scale"]
        dataset.update(expand_in(dataset, DATA_PATHS))


def _complete_paths(opt: dict[str, Any], root_path: str, is_train: bool) -> None:
    paths = opt["path"] = opt.get("path") or {}
    paths.update(expand_in(paths, [key for key in paths if "resume_state" in key or "pretrain_network" in key]))
    root = osp.join(root_path, "experiments" if is_train else "results", opt["name"])
    paths["experiments_root" if is_train else "results_root"] = root
    paths.update(log=root, visualization=osp.join(root, "visualization"))
    if is_train:
        paths.update(models=osp.join(root, "models"), training_states=osp.join(root, "training_states"))
