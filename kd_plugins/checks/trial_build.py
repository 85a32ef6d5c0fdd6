"""What costs nothing to build is built: the rules of its arguments stand in its constructor, and nowhere else."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from kd_plugins.checks.block_specs import house_of
from kd_plugins.checks.findings import Findings
from kd_plugins.checks.option_keys import EXTRACTOR, LOSS, OURS, UPSTREAM
from kd_plugins.checks.paths import image_datasets
from kd_plugins.data import build_degradation
from kd_plugins.data.negatives import NegativeInputs
from kd_plugins.mappings import blocks_in, mapping
from kd_plugins.models.history import History
from kd_plugins.models.terms import merge_terms
from kd_plugins.options import Path
from kd_plugins.teachers import ViewTransform
from kd_plugins.training.optimizers import OPTIMIZERS, SCHEDULERS, build_optimizer, build_schedulers

_BESIDE = ("type", "between", "view", "trust", "fade")  # of a term's block, no arguments of its loss
_LOADS_WEIGHTS = ("PerceptualLoss", "GANLoss", "MultiScaleGANLoss")  # or is no loss of images
_FREE = {"type": "TeacherExtractor"}  # in place of one that reads weights


def try_building(findings: Findings, opt: Mapping[str, Any], model: Any, is_train: bool) -> None:
    """Report arguments that the run would refuse when it is built, where nothing else is wrong with them.

    Args:
        findings: where to.
        opt: the options.
        model: the model class if it is one of this project's kind, else None.
        is_train: training, or test.
    """
    for path, dataset in image_datasets(opt):
        if dataset.get("type") == "DegradedPhotoDataset" and dataset.get("degradation"):
            _attempt(findings, (*path, "degradation"), build_degradation, dataset["degradation"])
    if not is_train or model is None:
        return
    train, dckd = mapping(opt.get("train")), mapping(opt.get("dckd"))
    for name, block in blocks_in(merge_terms(model.default_terms, mapping(train.get("distill")))):
        _attempt_loss(findings, ("train", "distill", name), block)
    _attempt_loss(findings, ("train", "pixel_opt"), mapping(train.get("pixel_opt")))
    _attempt(findings, ("train", "transforms"), _given(ViewTransform), mapping(train.get("transforms")))
    _attempt(findings, ("dckd", "negatives"), _given(NegativeInputs), mapping(dckd.get("negatives")))
    _attempt(findings, ("dckd", "history"), _given(partial(History, nn.Identity(), nn.Identity())), mapping(dckd.get("history")))
    optimizer, scheduler = mapping(train.get("optim_g")), mapping(train.get("scheduler"))
    weights = [nn.Parameter(torch.zeros(1))]
    if str(optimizer.get("type")) in OPTIMIZERS:
        _attempt(findings, ("train", "optim_g"), build_optimizer, optimizer, weights)
    if str(scheduler.get("type")) in SCHEDULERS:
        _attempt(findings, ("train", "scheduler"), build_schedulers, scheduler, [torch.optim.SGD(weights, 1.0)])


def _given(target: Callable[..., Any]) -> Callable[[Mapping[str, Any]], Any]:
    return lambda block: target(**block)


def _attempt_loss(findings: Findings, path: Path, block: Mapping[Any, Any]) -> None:
    name = block.get("type")
    loss = LOSS.entries.get(name) if isinstance(name, str) else None
    if loss is None or house_of(loss) not in (OURS, UPSTREAM) or name in _LOADS_WEIGHTS:
        return
    arguments = {str(key): value for key, value in block.items() if key not in _BESIDE}
    extractor = {"type": getattr(loss, "default_extractor", None), **mapping(arguments.get("extractor"))}
    cls = EXTRACTOR.entries.get(str(extractor["type"]))
    replaced = cls is not None and (house_of(cls) != OURS or "weights" in inspect.signature(cls).parameters)
    if replaced:
        arguments["extractor"] = _FREE
    _attempt(findings, path, _given(loss), arguments, passes="extractor: " if replaced else None)


def _attempt(findings: Findings, path: Path, build: Callable[..., Any], *arguments: Any, passes: str | None = None) -> None:
    if findings.has_error(path):
        return
    try:
        build(*arguments)
    except Exception as error:  # whatever a constructor raises at a wrong value
        text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error) or type(error).__name__
        if passes is None or passes not in text:
            findings.error(path, text.removeprefix(f"{':'.join(path)}: "))
