"""What compares with clean images, where a dataset has none."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, cast

from kd_plugins.arguments import fits
from kd_plugins.arguments.block_specs import house_of, schema_of_leaf
from kd_plugins.checks.findings import Findings
from kd_plugins.checks.option_keys import LOSS, UPSTREAM, our_model
from kd_plugins.checks.paths import image_datasets
from kd_plugins.data import is_unlabelled
from kd_plugins.mappings import blocks_in, mapping
from kd_plugins.messages import show
from kd_plugins.metrics.reference import needs_reference, without_reference
from kd_plugins.models import DistillationModel
from kd_plugins.models.supervised import nothing_to_train_by, truth_readers
from kd_plugins.models.terms import merge_terms, truth_instead
from kd_plugins.training.fade import FADE, Fade, read_fade


def check_ground_truth(findings: Findings, opt: Mapping[str, Any], model: Any, is_train: bool) -> None:
    """Report losses, terms and metrics that read a ground truth, where the option file's datasets have none."""
    ours = our_model(opt)
    for phase, dataset in blocks_in(opt.get("datasets")):
        if is_unlabelled(dataset):
            if not (is_train and phase == "train"):
                _check_metrics(findings, opt, phase, dataset)
            elif ours is not None:
                _check_losses(findings, opt, dataset, ours)
            elif model is not None and house_of(model) == UPSTREAM:
                text = f"{dataset['type']} has no clean images, which {model.__name__} needs, expected PairedImageDataset"
                findings.error(("datasets", "train", "type"), text)
    batch = mapping(opt, "datasets", "train").get("batch_size_per_gpu")
    for path, dataset in image_datasets(opt):
        if path[1] == "train" and dataset.get("type") == "SingleImageDataset" and batch != 1:
            findings.warning(
                (*path, "type"),
                "SingleImageDataset reads whole images: those of a batch must be of one size; DegradedImageDataset crops them",
            )
    if is_train and ours is not None:
        _check_any_loss(findings, opt, ours)


def _terms(opt: Mapping[str, Any], model: type[DistillationModel]) -> dict[str, Any]:
    terms = merge_terms(model.default_terms, mapping(opt, "train", "distill"))
    return {str(name): block for name, block in terms.items() if block is not None}


def fade_of(opt: Mapping[str, Any], block: Mapping[Any, Any]) -> Fade | None:
    """The fade of a term's block; None without, or where the tables have said what is wrong.

    Raises:
        ValueError: its values do not go together.
    """
    fade, total = block.get("fade"), mapping(opt.get("train")).get("total_iter")
    known = isinstance(fade, Mapping) and all(
        key in FADE.keys and fits(value, schema_of_leaf(FADE.keys[key])) for key, value in fade.items()
    )
    return read_fade(fade, cast(float, total)) if known and fits(total, schema_of_leaf(float)) else None


def _check_losses(findings: Findings, opt: Mapping[str, Any], dataset: Mapping[Any, Any], model: type[DistillationModel]) -> None:
    terms = {}
    for name, block in blocks_in(_terms(opt, model)):
        forward = getattr(LOSS.entries.get(str(block.get("type"))), "forward", None)
        bound = forward and partial(forward, None)  # None: in place of `self`
        terms[name] = truth_instead(name, str(block.get("view")), block.get("trust") is not None, bound)
    for path, instead in truth_readers(mapping(opt.get("train")), terms).items():
        findings.error(
            path, f"it compares with the clean image, which datasets:train ({dataset['type']}) does not have, expected {instead}"
        )


def _check_any_loss(findings: Findings, opt: Mapping[str, Any], model: type[DistillationModel]) -> None:
    train = mapping(opt.get("train"))
    own_pixel = model.default_pixel and "pixel_opt" not in train and not is_unlabelled(mapping(opt, "datasets", "train"))
    if own_pixel or "train" not in opt:
        return
    try:
        blocks = [mapping(block) for block in _terms(opt, model).values()]
        fades = [fade_of(opt, block) for block in blocks if block.get("every", 1) == 1 and block.get("loss_weight", 1) != 0]
    except ValueError:  # said where the terms are checked
        return
    if reason := nothing_to_train_by(train, fades):
        findings.error(("train",), reason)


def _check_metrics(findings: Findings, opt: Mapping[str, Any], phase: str, dataset: Mapping[Any, Any]) -> None:
    for name, metric in blocks_in(mapping(opt.get("val")).get("metrics")):
        if needs_reference(metric.get("type")):
            findings.error(
                ("val", "metrics", name, "type"),
                f"{show(metric['type'])}, compares with a clean image, which datasets:{phase} ({dataset['type']}) does not have, "
                f"expected one of {', '.join(without_reference())}",
            )
