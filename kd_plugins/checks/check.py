"""The check of an option file, and the command that does nothing else."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from kd_plugins.checks.built import check_built
from kd_plugins.checks.gpus import check_gpus
from kd_plugins.checks.known import MODELS, file_block
from kd_plugins.checks.paths import check_paths, mapping
from kd_plugins.checks.report import Report, show
from kd_plugins.checks.schema import json_schema
from kd_plugins.checks.scored import check_scored
from kd_plugins.checks.sense import check_sense
from kd_plugins.checks.sources import holds_itself
from kd_plugins.checks.walk import NOTES, no_entry, walk_block
from kd_plugins.models import DistillationModel
from kd_plugins.options import OptionFile, Path, read_option_file, run_name


def check_file(found: OptionFile, args: argparse.Namespace, is_train: bool) -> list[str]:
    """Check an option file; no network is built and no image is read.

    Args:
        found: the file as it was read.
        args: the command line it was named on; `auto_resume`, `debug`, `launcher` and `root_path` (where it is run) are looked at.
        is_train: training, or test.

    Returns:
        Warnings, a line each.

    Raises:
        OptionError: the file has errors; the message names all of them, a line each.
    """
    report, opt = Report(found), found.opt
    for path, line in found.twice.items():
        report.error(path, f"stands twice, in lines {found.lines.get(path, 0)} and {line}; the first would have no effect")
    name = opt.get("model_type")
    model = MODELS.entries.get(name) if isinstance(name, str) else None
    if model is None and name is not None:
        report.error(("model_type",), no_entry(name, MODELS))
        if str(name) not in MODELS.renamed:  # what a model that nobody knows would read is not known
            return report.close()
    if endless := [str(key) for key, value in opt.items() if holds_itself(value, opt)]:
        for key in endless:
            report.error((key,), "holds itself: an anchor stands inside what it names")
        return report.close()
    is_debug = args.debug or "debug" in str(opt.get("name"))
    walk_block(report, (), opt, file_block(model, is_train, is_debug))
    _check_nan(report, (), opt)
    check_sense(report, opt, is_train)
    check_scored(report, opt, model, is_train, run_name(opt.get("name"), args.debug), getattr(args, "root_path", ""))
    own = model if model is not None and issubclass(model, DistillationModel) else None
    check_built(report, opt, own, is_train)
    check_gpus(report, opt, getattr(args, "launcher", None), is_train)
    check_paths(report, opt, is_train, args.auto_resume or bool(mapping(opt.get("path")).get("resume_state")))
    return report.close()


def _check_nan(report: Report, path: Path, value: Any) -> None:
    """Report what is not a number wherever it stands, blocks whose keys nobody knows included: every comparison lets it pass."""
    if isinstance(value, Mapping | list):
        for key, below in value.items() if isinstance(value, Mapping) else enumerate(value):
            _check_nan(report, (*path, str(key)), below)
    elif isinstance(value, float) and math.isnan(value) and not report.has_error(path) and not path[0].startswith(NOTES):
        report.error(path, f"{show(value)}, expected a number")


def check_pipeline(root_path: str, argv: Sequence[str] | None = None) -> None:
    """Check an option file, or print the JSON schema of all option files.

    Args:
        root_path: the folder that experiments/ would be in.
        argv: the command line; that of the process by default.

    Raises:
        OptionError: see `check_file`, `read_option_file`.
    """
    parser = argparse.ArgumentParser(prog="basicsr check")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("-opt", metavar="FILE", help="the option file (YAML)")
    what.add_argument("--schema", action="store_true", help="print the JSON schema of option files, for editors")
    parser.add_argument("--force_yml", nargs="+", default=[], metavar="KEY:SUBKEY=VALUE", help="override options")
    args = parser.parse_args(argv)
    if args.schema:
        print(json.dumps(json_schema(), indent=1))
        return
    found = read_option_file(args.opt, args.force_yml)
    is_train = any(str(phase).split("_")[0] == "train" for phase in mapping(found.opt.get("datasets")))
    args.auto_resume, args.debug, args.root_path = False, False, root_path
    for warning in check_file(found, args, is_train):
        print(f"{warning} (a warning)", file=sys.stderr)
    print(f"{args.opt}: fine, for `basicsr {'train' if is_train else 'test'}`")
