"""Read and complete an option file: the only place that reads YAML.

Same keys and same result as basicsr/utils/options.py, with three differences: the file cannot run code, `1e-4` is a number,
and `--force_yml` takes any YAML value.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import path as osp
from typing import Any

import yaml

from kd_plugins.option_library import find_option_file, unknown_name
from kd_plugins.yaml_loader import Loader

DATA_PATHS = ("dataroot_gt", "dataroot_lq", "meta_info_file", "meta_info")
"""Keys of a dataset that name a file or folder, in which `~` is the user's own."""


class OptionError(ValueError):
    """An option file or a command line that cannot be used; the message says what to write instead."""


@contextmanager
def option_errors(file: str) -> Iterator[None]:
    """While things are built: an error about an option becomes one about the option file.

    Raises:
        OptionError: in place of the errors that wrong options raise; the cause is kept.
    """
    try:
        yield
    except (ValueError, KeyError, FileNotFoundError, NotADirectoryError) as error:
        text = error.args[0] if isinstance(error, KeyError) and error.args else error
        raise OptionError(f"{file}: {text}") from error


def read_options(file: str) -> dict[str, Any]:
    """Read an option file.

    Args:
        file: path of the YAML file.

    Returns:
        The options.

    Raises:
        OptionError: no such file, no valid or safe YAML, or not a mapping.
    """
    opt = _load(file)
    missing = [key for key in ("name", "model_type", "datasets", "network_g") if opt.get(key) is None]
    if missing:
        raise OptionError(f"{file}: missing key(s) {', '.join(missing)}")
    return opt


def _load(file: str, read: Callable[[Any], Any] = Loader.get_single_data, kind: type = dict) -> Any:
    if not osp.isfile(file):
        raise OptionError(f"-opt {file}: no such file (looked from {osp.abspath(osp.curdir)}), and {unknown_name(file)}")
    try:
        with open(file, encoding="utf-8") as stream:
            content = read(Loader(stream))
    except OSError as error:
        raise OptionError(f"-opt {file}: cannot be read: {error.strerror or error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise OptionError(f"{file}: not a valid option file: {error}") from None
    if not isinstance(content, kind):
        raise OptionError(f"{file}: expected `key: value` lines at the top, got {type(content).__name__}")
    return content


Path = tuple[str, ...]


@dataclass
class OptionFile:
    """An option file as it was read, `--force_yml` entries applied, for a check of the whole.

    Attributes:
        file: its path.
        opt: the options.
        lines: the line of each key, by the keys that lead there; 0 for what `--force_yml` says.
        twice: the keys that stand twice in one mapping, where YAML takes the last.
    """

    file: str
    opt: dict[str, Any]
    lines: dict[Path, int]
    twice: dict[Path, int]

    def line(self, path: Path) -> int:
        """The line that a key stands in, or the nearest one above it that does."""
        return next((self.lines[path[:depth]] for depth in range(len(path), 0, -1) if path[:depth] in self.lines), 1)

    def place(self, path: Path) -> str:
        """Where a key comes from."""
        line = self.line(path)
        return f"{self.file}:{line}" if line else "--force_yml"


def read_option_file(file: str, entries: Sequence[str] = ()) -> OptionFile:
    """Read an option file with the line of each key; a key that is missing is no error yet.

    Args:
        file: path of the YAML file.
        entries: `--force_yml` entries.

    Raises:
        OptionError: see `read_options` and `force_options`.
    """
    found = OptionFile(file, _load(file), {}, {})
    _note_lines(_load(file, Loader.get_single_node, yaml.MappingNode), (), found, set())
    force_options(found.opt, entries)
    for entry in entries:
        path = tuple(key.strip() for key in entry.partition("=")[0].split(":"))
        found.lines = {key: line for key, line in found.lines.items() if key[: len(path)] != path}
        found.lines[path] = 0
    return found


def _note_lines(node: yaml.Node, path: Path, found: OptionFile, seen: set[int]) -> None:
    if id(node) in seen:  # an alias: its lines are those of the anchor, and it may hold itself
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            below = (*path, str(key.value))
            if key.tag != "tag:yaml.org,2002:merge":  # `<<`: what it brings is overridden on purpose
                (found.twice if below in found.lines else found.lines)[below] = key.start_mark.line + 1
            _note_lines(value, below, found, seen)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _note_lines(value, (*path, str(index)), found, seen)


def force_options(opt: dict[str, Any], entries: Sequence[str]) -> None:
    """Apply `--force_yml` entries in place.

    Args:
        opt: the options.
        entries: `a:b:c=value`, the value in YAML; a key that is not there yet is made.

    Raises:
        OptionError: no `=`, a value that is not YAML, or a path through something that is not a mapping.
    """
    for entry in entries:
        path, separator, text = entry.partition("=")
        keys = [key.strip() for key in path.split(":")]
        if not separator or not all(keys):
            raise OptionError(f"--force_yml {entry}: expected key:subkey=value")
        try:
            value = yaml.load(text, Loader=Loader)  # noqa: S506 (a SafeLoader)
        except yaml.YAMLError as error:
            reason = f" ({error.problem})" if isinstance(error, yaml.MarkedYAMLError) else ""
            raise OptionError(f"--force_yml {entry[:200]}: {text[:200]!r} is not a YAML value{reason}") from None
        node: Any = opt
        for depth, key in enumerate(keys[:-1], 1):
            if node.get(key) is None:  # not there, or nothing stands after it
                node[key] = {}
            node = node[key]
            if not isinstance(node, dict):
                raise OptionError(f"--force_yml {entry}: {':'.join(keys[:depth])} is {node!r}, it has no keys below it")
        node[keys[-1]] = value


def add_option_file(parser: argparse.ArgumentParser, one_of: argparse._MutuallyExclusiveGroup | None = None) -> None:
    """Declare `-opt` and `--force_yml`.

    Args:
        parser: of a command.
        one_of: a required group that `-opt` is one of; without, `-opt` is required.
    """
    (one_of or parser).add_argument(
        "-opt",
        required=one_of is None,
        metavar="FILE",
        type=find_option_file,
        help="option file (YAML), or a bundled one's name",
    )
    parser.add_argument("--force_yml", nargs="+", default=[], metavar="KEY:SUBKEY=VALUE", help="override options")


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
            warnings, which are then the arguments' `warnings`, or raises OptionError.

    Returns:
        The options and the parsed arguments.

    Raises:
        OptionError: see `read_options` and `force_options`.
    """
    import torch
    from basicsr.utils import set_random_seed

    from kd_plugins import distributed

    args = argv if isinstance(argv, argparse.Namespace) else _parse_run(is_train, argv)
    if check is None:
        opt = read_options(args.opt)
        force_options(opt, args.force_yml)
    else:
        found = read_option_file(args.opt, args.force_yml)
        args.root_path = root_path
        args.warnings = check(found, args)
        opt = found.opt

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


def _complete_datasets(opt: dict[str, Any]) -> None:
    for phase, dataset in opt["datasets"].items():
        if not isinstance(dataset, dict):
            raise OptionError(f"datasets:{phase}: expected a mapping (name, type, ...), got {dataset!r}")
        dataset["phase"] = phase.split("_")[0]  # val_1, val_2, test_1
        if "scale" in opt:
            dataset["scale"] = opt["scale"]
        for key in DATA_PATHS:
            if isinstance(dataset.get(key), str):
                dataset[key] = osp.expanduser(dataset[key])


def _complete_paths(opt: dict[str, Any], root_path: str, is_train: bool) -> None:
    paths = opt["path"] = opt.get("path") or {}
    for key, value in paths.items():
        if value is not None and ("resume_state" in key or "pretrain_network" in key):
            paths[key] = osp.expanduser(value)
    root = osp.join(root_path, "experiments" if is_train else "results", opt["name"])
    paths["experiments_root" if is_train else "results_root"] = root
    paths.update(log=root, visualization=osp.join(root, "visualization"))
    if is_train:
        paths.update(models=osp.join(root, "models"), training_states=osp.join(root, "training_states"))
