"""Discriminators."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from kd_plugins.checks.findings import Findings
from kd_plugins.checks.option_keys import LOSS
from kd_plugins.mappings import mapping
from kd_plugins.messages import show
from kd_plugins.models.adversarial import missing_parts


def check_discriminator(findings: Findings, opt: Mapping[str, Any]) -> None:
    """Report what a discriminator lacks, and a loss that is none of one."""
    train = mapping(opt.get("train"))
    if not train.get("gan_opt"):
        return
    for path, text in missing_parts(opt):
        if not findings.has_error(path):
            findings.error(path, text)
    name = mapping(train["gan_opt"]).get("type")
    judges = [kind for kind, loss in LOSS.entries.items() if _judges(loss)]
    if str(name) in LOSS.entries and name not in judges:
        said = f"{show(name)}, no loss of a discriminator, expected {' or '.join(judges)}"
        findings.error(("train", "gan_opt", "type"), said)
    _check_turns(findings, train)


def _check_turns(findings: Findings, train: Mapping[str, Any]) -> None:
    """Report a run that ends before the student's first step."""
    keys = ("net_d_init_iters", "net_d_iters", "total_iter")
    alone, every, total = (train.get(key) or least for key, least in zip(keys, (0, 1, 0), strict=True))
    if not total or any(findings.has_error(("train", key)) for key in keys):
        return
    if alone >= total:
        findings.error(("train", keys[0]), f"{show(alone)}, expected less than total_iter, {total}")
    elif (step := (alone // every + 1) * every) > total:
        findings.error(
            ("train", keys[1]), f"{show(every)}, the student's first step would be {step:g}, and the run ends at {total}"
        )


def _judges(loss: Any) -> bool:
    return hasattr(loss, "forward") and "is_disc" in inspect.signature(loss.forward).parameters
