"""What is scored: the sets of images, and in a test the student's weights."""

from __future__ import annotations

from collections.abc import Mapping
from os import path as osp
from typing import Any

from basicsr.models.sr_model import SRModel

from kd_plugins.arguments.block_specs import house_of
from kd_plugins.checks.findings import Findings
from kd_plugins.checks.network_sources import sources_of
from kd_plugins.checks.option_keys import UPSTREAM
from kd_plugins.home import expand
from kd_plugins.mappings import blocks_in, mapping
from kd_plugins.messages import show
from kd_plugins.training import tiling
from kd_plugins.training.restoration_model import RestorationModel


def scored_phases(opt: Mapping[str, Any]) -> list[str]:
    """The keys of the datasets that are validated or tested on; that of a file's training data is none."""
    return [str(phase) for phase in mapping(opt.get("datasets")) if str(phase).split("_")[0] != "train"]


def trained_student(opt: Mapping[str, Any], name: str, root_path: str) -> str | None:
    """The student that training by an option file has left, where a test of the file is to take it.

    Args:
        opt: the options.
        name: of the run.
        root_path: the folder that experiments/ is in.

    Returns:
        Its file; None where the file names weights of its own, or where there is none.
    """
    if mapping(opt.get("path")).get("pretrain_network_g") or (_brings_weights(opt) and not _trains(opt)):
        return None
    return _latest(name, root_path)


def check_evaluation(findings: Findings, opt: Mapping[str, Any], model: Any, is_train: bool, name: str, root_path: str) -> None:
    """Report sets of images that would be taken for each other, and a test of a student that nobody has trained.

    Args:
        findings: where to.
        opt: the options.
        model: the model class; None for one that is not registered.
        is_train: training, or test.
        name: of the run.
        root_path: the folder that experiments/ is in.
    """
    first: dict[str, str] = {}
    phases = scored_phases(opt)
    for phase, dataset in blocks_in(opt.get("datasets")):
        if phase in phases and dataset.get("name") is not None and first.setdefault(str(dataset["name"]), phase) != phase:
            said = f"{show(dataset['name'])}, as datasets:{first[str(dataset['name'])]}, expected another: scores are kept by it"
            findings.error(("datasets", phase, "name"), said)
    keys = [("tile",), *(("val", key) for key in tiling.VAL)]
    if model is not None and issubclass(model, RestorationModel) and not any(map(findings.has_error, keys)):
        for path, text in tiling.faults(opt):
            findings.error(path, text)
    if is_train:
        return
    if not phases and mapping(opt.get("datasets")):
        findings.error(("datasets",), "nothing to score beside the training data, expected val or test")
    given, latest = mapping(opt.get("path")).get("pretrain_network_g"), _latest(name, root_path)
    if given and _trains(opt) and latest and osp.realpath(expand(str(given))) != osp.realpath(latest):
        said = f"{show(given)}, from which the training began, is scored, and not what it left, {latest}"
        findings.warning(("path", "pretrain_network_g"), said)
    if given or latest or _brings_weights(opt) or model is None:
        return
    known = issubclass(model, (SRModel, RestorationModel)) or house_of(model) == UPSTREAM  # others may load their weights elsewhere
    (findings.error if known else findings.warning)(
        ("path", "pretrain_network_g"),
        f"missing, expected the weights to score; {_path(name, root_path)}, which training would have left, is not there",
    )


def _path(name: str, root_path: str) -> str:
    return osp.join(root_path, "experiments", name, "models", "net_g_latest.pth")


def _latest(name: str, root_path: str) -> str | None:
    return path if osp.isfile(path := _path(name, root_path)) else None


def _trains(opt: Mapping[str, Any]) -> bool:
    return len(scored_phases(opt)) < len(mapping(opt.get("datasets")))


def _brings_weights(opt: Mapping[str, Any]) -> bool:
    sources = [block for path, block in sources_of(opt, is_ours=True) if path[0] == "network_g"]
    return any(block.get("checkpoint") for block in sources)
