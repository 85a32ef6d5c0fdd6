"""The check of an option file."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from textwrap import shorten
from typing import Any

from kd_plugins import home
from kd_plugins.arguments.traversal import NOTES, check_block, no_entry
from kd_plugins.checks.contradictions import check_contradictions
from kd_plugins.checks.evaluation import check_evaluation
from kd_plugins.checks.findings import Findings
from kd_plugins.checks.gpus import check_gpus
from kd_plugins.checks.network_sources import holds_itself
from kd_plugins.checks.option_keys import MODELS, file_block, our_model
from kd_plugins.checks.paths import check_paths
from kd_plugins.checks.trial_build import try_building
from kd_plugins.mappings import mapping
from kd_plugins.messages import show
from kd_plugins.options import MAIN_KEYS, OptionError, OptionFile, Path
from kd_plugins.run_options import run_name


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
    findings, opt = Findings(found), found.opt
    if sum(key in opt for key in MAIN_KEYS) < 2:  # for something else, or a part that others have as a base
        own = shorten(", ".join(map(str, opt)), 80, placeholder=" ...")
        raise OptionError(f"{found.file}: not the options of a whole run, expected {', '.join(MAIN_KEYS)}; its keys are {own}")
    for path, where in found.twice.items():
        findings.error(path, f"stands twice, {where}; the first would have no effect")
    name = opt.get("model_type")
    model = MODELS.entries.get(name) if isinstance(name, str) else None
    if model is None and name is not None:
        findings.error(("model_type",), no_entry(name, MODELS))
        if str(name) not in MODELS.renamed:  # what a model that nobody knows would read is not known
            return findings.close()
    if endless := [str(key) for key, value in opt.items() if holds_itself(value, opt)]:
        for key in endless:
            findings.error((key,), "holds itself: an anchor stands inside what it names")
        return findings.close()
    is_debug = args.debug or "debug" in str(opt.get("name"))
    check_block(findings, (), opt, file_block(model, is_train, is_debug))
    _check_values(findings, (), opt)
    check_contradictions(findings, opt, is_train)
    check_evaluation(findings, opt, model, is_train, run_name(opt.get("name"), args.debug), getattr(args, "root_path", ""))
    try_building(findings, opt, our_model(opt), is_train)
    check_gpus(findings, opt, getattr(args, "launcher", None), is_train)
    check_paths(findings, opt, is_train, args.auto_resume or bool(mapping(opt.get("path")).get("resume_state")))
    return findings.close()


def _check_values(findings: Findings, path: Path, value: Any) -> None:
    """Report values that are wrong wherever they stand, blocks whose keys nobody knows included.

    Those are what is not a number, which every comparison lets pass, and paths in the home of nobody.
    """
    if isinstance(value, Mapping | list):
        for key, below in value.items() if isinstance(value, Mapping) else enumerate(value):
            _check_values(findings, (*path, str(key)), below)
        return
    wrong = f"{show(value)}, expected a number" if isinstance(value, float) and math.isnan(value) else ""
    if isinstance(value, str) and path != ("name",):
        wrong = home.fault(value)
    if wrong and not findings.has_error(path) and not path[0].startswith(NOTES):
        findings.error(path, wrong)
