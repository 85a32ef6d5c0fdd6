"""What costs nothing to build is built: its constructor knows the rules that hold between arguments, upstream's all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from basicsr.archs.vgg_arch import NAMES, insert_bn
from torch import nn

from kd_plugins.arguments import Path
from kd_plugins.arguments.block_specs import house_of, reads_file
from kd_plugins.arguments.build import said_by
from kd_plugins.checks.findings import Findings
from kd_plugins.checks.option_keys import LOSS, OURS, UPSTREAM
from kd_plugins.checks.paths import image_datasets
from kd_plugins.data import build_degradation
from kd_plugins.extractors import EXTRACTOR
from kd_plugins.mappings import blocks_in, mapping
from kd_plugins.messages import choose, show
from kd_plugins.models.terms import TERM, merge_terms
from kd_plugins.training.optimizers import OPTIMIZERS, SCHEDULERS, build_optimizer, build_schedulers

_BESIDE = ("type", *TERM.beside)  # of a term's block, no arguments of its loss
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
    train = mapping(opt.get("train"))
    for name, block in blocks_in(merge_terms(model.default_terms, mapping(train.get("distill")))):
        _attempt_loss(findings, ("train", "distill", name), block)
    for key in ("pixel_opt", "perceptual_opt", "gan_opt"):
        _attempt_loss(findings, ("train", key), mapping(train.get(key)))
    scheduler = mapping(train.get("scheduler"))
    weights = [nn.Parameter(torch.zeros(1))]
    for key in ("optim_g", "optim_d"):
        if str((optimizer := mapping(train.get(key))).get("type")) in OPTIMIZERS:
            _attempt(findings, ("train", key), build_optimizer, optimizer, weights, key)
    if str(scheduler.get("type")) in SCHEDULERS:
        _attempt(findings, ("train", "scheduler"), build_schedulers, scheduler, [torch.optim.SGD(weights, 1.0)])


def _attempt_loss(findings: Findings, path: Path, block: Mapping[Any, Any]) -> None:
    name = block.get("type")
    loss = LOSS.entries.get(name) if isinstance(name, str) else None
    if loss is None or house_of(loss) not in (OURS, UPSTREAM):
        return
    if name == "PerceptualLoss":  # it would load weights
        _check_vgg_layers(findings, path, block)
        return
    arguments = {str(key): value for key, value in block.items() if key not in _BESIDE}
    extractor = {"type": getattr(loss, "default_extractor", None), **mapping(arguments.get("extractor"))}
    cls = EXTRACTOR.entries.get(str(extractor["type"]))
    replaced = cls is not None and (house_of(cls) != OURS or reads_file(cls))
    if replaced:
        arguments["extractor"] = _FREE
    _attempt(findings, path, lambda: loss(**arguments), passes="extractor: " if replaced else None)


def _check_vgg_layers(findings: Findings, path: Path, block: Mapping[Any, Any]) -> None:
    kind = str(block.get("vgg_type", "vgg19"))
    names = NAMES.get(kind.removesuffix("_bn"), [])
    names = insert_bn(names) if kind.endswith("_bn") else names
    for layer, weight in mapping(block.get("layer_weights")).items():
        place = (*path, "layer_weights", str(layer))
        if names and layer not in names and not findings.has_error(place):
            findings.error(place, f"{show(weight)}, {kind} has no such layer; {choose(layer, names)}")


def _attempt(findings: Findings, path: Path, build: Callable[..., Any], *arguments: Any, passes: str | None = None) -> None:
    if findings.has_error(path):
        return
    try:
        build(*arguments)
    except Exception as error:  # whatever a constructor raises at a wrong value
        text = said_by(error)
        if passes is None or passes not in text:
            findings.error(path, text.removeprefix(f"{':'.join(path)}: "))
