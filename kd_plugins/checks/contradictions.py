"""Options that are right one by one and cannot hold together."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, cast

from kd_plugins.arguments import Path, fits, schema_of
from kd_plugins.arguments.block_specs import house_of
from kd_plugins.checks.channels import check_channels
from kd_plugins.checks.discriminator import check_discriminator
from kd_plugins.checks.findings import Findings
from kd_plugins.checks.ground_truth import check_ground_truth, fade_of
from kd_plugins.checks.idle_keys import check_idle_keys
from kd_plugins.checks.multi_task import TEACHERS, check_multi_task
from kd_plugins.checks.network_sources import NETWORK, sources_of, without_layers
from kd_plugins.checks.option_keys import LOSS, MODELS, OURS, UPSTREAM, our_model
from kd_plugins.checks.paths import image_datasets
from kd_plugins.checks.teacher_cache import check_teacher_cache
from kd_plugins.checks.training_data import check_training_data
from kd_plugins.checks.wandb import check_wandb
from kd_plugins.data import build_degradation
from kd_plugins.features.layer_pairs import GROUPS
from kd_plugins.mappings import blocks_in, mapping
from kd_plugins.messages import choose, show
from kd_plugins.models.distillation_model import no_negatives
from kd_plugins.models.terms import OUTPUT, VIEWS, asked, compared, merge_terms, needed, no_sides, no_trust
from kd_plugins.students.from_teacher import read_request
from kd_plugins.teachers.checkpoint import find_checkpoint, network_in
from kd_plugins.teachers.network import main_block
from kd_plugins.teachers.network_description import plain_network
from kd_plugins.teachers.network_keys import teacher_keys
from kd_plugins.training.optimizers import SCHEDULERS

_RESTARTS: dict[Any, tuple[str, tuple[int, ...]]] = {  # the argument that `restart_weights` goes with, and its default
    SCHEDULERS["CosineAnnealingRestartLR"]: ("periods", ()),
    SCHEDULERS["MultiStepRestartLR"]: ("restarts", (0,)),
}


def check_contradictions(findings: Findings, opt: Mapping[str, Any], is_train: bool) -> None:
    """Report contradictions."""
    model = MODELS.entries.get(str(opt.get("model_type")))
    ours = model if model is not None and house_of(model) == OURS else None
    _check_phases(findings, opt, is_train)
    _check_scale(findings, opt)
    check_ground_truth(findings, opt, model, is_train)
    check_multi_task(findings, opt, is_train)
    sources = dict(sources_of(opt, is_ours=our_model(opt) is not None))
    for path, block in sources.items():
        _check_checkpoint(findings, path, block)
        _check_weights(findings, path, block.get("ensemble"))
    if ours is not None:
        check_idle_keys(findings, opt, ours, is_train)
    check_channels(findings, opt, sources)
    _check_student(findings, opt)
    if not is_train:
        return
    _check_schedule(findings, mapping(opt.get("train")))
    check_training_data(findings, opt)
    check_wandb(findings, opt)
    _check_pixel_loss(findings, mapping(opt, "train", "pixel_opt"))
    if ours is not None:
        check_discriminator(findings, opt)
        check_teacher_cache(findings, opt)
        _check_terms(findings, opt, ours)


def _check_phases(findings: Findings, opt: Mapping[str, Any], is_train: bool) -> None:
    phases = [str(phase) for phase in mapping(opt.get("datasets"))]
    for phase in phases:
        start = phase.split("_")[0]
        allowed = ("val",) if is_train else ("train", "val", "test")
        if start not in allowed and not (is_train and phase == "train"):
            findings.error(("datasets", phase), f"expected train, val or val_... {'in training' if is_train else 'or test'}")
        if start != "train" and mapping(mapping(opt["datasets"])[phase]).get("type") == "RealESRGANDataset":
            findings.error(
                ("datasets", phase, "type"), "RealESRGANDataset has no degraded images, expected PairedImageDataset, say"
            )
    if is_train and "train" not in phases:
        findings.error(("datasets", "train"), f"missing, training needs it; found {', '.join(phases) or 'nothing'}")


def _check_scale(findings: Findings, opt: Mapping[str, Any]) -> None:
    scale = opt.get("scale")
    if not isinstance(scale, (int, float)):  # said by its type
        return
    if scale < 1:
        findings.error(("scale",), f"{show(scale)}, expected a whole number from 1 up")
        return
    for path, dataset in image_datasets(opt):
        factor = _shrinks_by(dataset)
        if factor not in (None, scale):
            findings.error(
                (*path, "degradation"),
                f"makes images {factor} times smaller, expected the file's scale, {scale}: {{type: downsample, scale: {scale}}}",
            )
    outermost = {(key,): mapping(opt.get(key)) for key in ("network_g", "teacher")}
    for path, block in {**outermost, **dict(sources_of(opt, is_ours=True))}.items():
        if house_of(NETWORK.entries.get(str(block.get("type")))) != UPSTREAM:
            continue
        key = next((key for key in ("upscale", "scale") if key in block), None)
        if key and isinstance(block[key], int) and block[key] != scale:
            findings.error((*path, key), f"{block[key]}, expected the file's scale, {scale}")


def _shrinks_by(dataset: Mapping[Any, Any]) -> int | None:
    """The factor of a degradation; None where there is none, or it is wrong in itself."""
    try:
        return build_degradation(dataset["degradation"]).factor if dataset.get("type") == "DegradedPhotoDataset" else None
    except (KeyError, TypeError, ValueError):
        return None


def _check_checkpoint(findings: Findings, path: Path, block: Mapping[Any, Any]) -> None:
    """Report a file that should describe its network, and cannot be read."""
    file, alone = block.get("checkpoint"), not any(key in block for key in ("type", "class", *teacher_keys()))
    if not alone or not isinstance(file, str):
        return
    try:
        file = find_checkpoint(file)
    except FileNotFoundError:
        return
    try:
        if (network := network_in(file)) is not None:
            plain_network(network, str(file))
    except ValueError as error:
        findings.error((*path, "checkpoint"), f"{file} {str(error).removeprefix(f'checkpoint {file}: ')}")


def _check_weights(findings: Findings, path: Path, members: Any) -> None:
    weights = [mapping(member).get("weight", 1) for member in members] if isinstance(members, list) else []
    if weights and all(weight == 0 for weight in weights):
        findings.error((*path, "ensemble"), f"weights {show(weights)}, expected one above 0")


def _check_schedule(findings: Findings, train: Mapping[Any, Any]) -> None:
    schedule, total = mapping(train.get("scheduler")), train.get("total_iter")
    turn, warmup = schedule.get("T_max"), train.get("warmup_iter")
    if isinstance(total, (int, float)):
        if isinstance(turn, (int, float)) and turn < total:
            said = f"{show(turn)}, and total_iter is {show(total)}: the learning rate rises again after iteration {show(turn)}"
            findings.warning(("train", "scheduler", "T_max"), said)
        if isinstance(warmup, (int, float)) and warmup >= total:
            findings.warning(("train", "warmup_iter"), f"{show(warmup)}, and the run ends at {show(total)}, before it is warm")
    key, default = _RESTARTS.get(SCHEDULERS.get(str(schedule.get("type"))), (None, ()))
    if key is None:
        return
    starts, weights = schedule.get(key, default), schedule.get("restart_weights", (1,))
    for name, value in ((key, starts), ("restart_weights", weights)):
        if not fits(list(value) if isinstance(value, tuple) else value, schema_of(list[float])):
            findings.error(("train", "scheduler", name), f"{show(value)}, expected a list of numbers")
            return
    if len(starts) != len(weights):
        findings.error(
            ("train", "scheduler", "restart_weights"), f"{len(weights)} weights, expected one for each of {len(starts)} {key}"
        )
    if key == "periods" and isinstance(total, (int, float)) and sum(starts) < total - 1:  # it takes one step less than the model
        findings.error(
            ("train", "scheduler", "periods"), f"{show(starts)}, together {sum(starts)}, expected at least total_iter, {total}"
        )


def _check_pixel_loss(findings: Findings, block: Mapping[Any, Any]) -> None:
    forward, path = getattr(LOSS.entries.get(str(block.get("type"))), "forward", None), ("train", "pixel_opt", "type")
    if forward is None:
        return
    bound = partial(forward, None)  # None: in place of `self`
    if reason := no_sides(bound):
        findings.error(path, f"{show(block['type'])}, {reason}")
    elif missing := needed(bound):
        findings.error(path, f"{show(block['type'])}, which needs {missing[0]!r} as well, expected a term of `distill`")


def _check_student(findings: Findings, opt: Mapping[str, Any]) -> None:
    """A student that is made of the teacher needs one, and one share of its cost."""
    request, path = mapping(opt.get("network_g")).get("from_teacher"), ("network_g", "from_teacher")
    if request is None:
        return
    if not opt.get("teacher"):
        findings.error(path, "there is no `teacher` to make a student of")
    elif kind := next((key for key in teacher_keys() if key in main_block(mapping(opt["teacher"]))), None):
        findings.error(path, f"the teacher is `{kind}`, whose arguments cannot be read; expected the student's own `type`")
    if not findings.has_error(path):
        try:
            read_request(request)
        except ValueError as error:
            findings.error(path, str(error).removeprefix("from_teacher: ").removeprefix("from_teacher:"))


def _check_terms(findings: Findings, opt: Mapping[str, Any], model: Any) -> None:
    own = mapping(opt, "train", "distill")
    terms = {name: block for name, block in merge_terms(model.default_terms, own).items() if block is not None}
    if not opt.get("teacher"):
        if terms:
            findings.error(("teacher",), f"missing, {', '.join(map(str, terms))} compare with it, expected {{checkpoint: FILE}}")
        elif opt.get("init", "random") != "random":
            findings.error(("init",), f"{opt['init']!r}, but there is no `teacher`")
    features = opt.get("features")
    groups = features if isinstance(features, Mapping) else dict.fromkeys(GROUPS, "auto")
    outputs = [key for teacher in TEACHERS for key in without_layers(mapping(opt.get(teacher)))]
    for name, block in blocks_in(terms):
        between = _check_term(findings, opt, name, block, groups, model)
        if not findings.has_error(("scale",)) and (said := _no_view(opt, block.get("view"))):
            where = ("view",) if "view" in mapping(own.get(name)) else ()
            findings.error(("train", "distill", name, *where), f"{said}, or `{name}: ~`")
        if outputs and between:
            findings.error(
                ("train", "distill", name, "between"),
                f"{show(block['between'])}, but a teacher with `{outputs[0]}` has an output and no layers, expected {OUTPUT}",
            )
    for group, value in groups.items():
        if value == "auto" and group not in GROUPS:
            findings.error(
                ("features", str(group)),
                f"'auto' is known for {' and '.join(GROUPS)}, expected [[student layer, teacher layer], ...]",
            )


def _no_view(opt: Mapping[str, Any], view: Any) -> str:
    """Why there is no such view at the scale of a run; nothing where there is."""
    scale, side = opt.get("scale", 1), mapping(mapping(opt.get("datasets")).get("train")).get("gt_size")
    if view == "clean" and scale != 1:
        return f"the clean image is no input of a teacher at scale {scale}, expected view: degraded"
    if view == "zoomed_out" and scale == 1:
        return "at scale 1 there is nothing to zoom out of, expected view: zoomed"
    if view == "zoomed_out" and isinstance(side, int) and side % scale**2:
        return f"crops of gt_size: {side} are inputs of {side // scale}, expected a multiple of {scale**2}, the scale twice"
    return ""


def _check_term(
    findings: Findings, opt: Mapping[str, Any], name: str, block: Mapping[Any, Any], groups: Mapping[Any, Any], model: Any
) -> tuple[str, ...]:
    """Report what is wrong with a term; returns the groups that it compares."""
    path = ("train", "distill", name)
    between, view = compared(block), block.get("view", "degraded")
    missing = [str(group) for group in between if group != OUTPUT and str(group) not in groups]
    if not between or missing or (OUTPUT in between and len(between) > 1):
        findings.error(
            (*path, "between"), f"{show(block['between'])}, expected {OUTPUT}, or groups of `features`; {choose(missing, groups)}"
        )
        return ()
    if block.get("trust") is not None and (reason := no_trust(view)):
        findings.error((*path, "trust"), reason.removeprefix("trust: "))
    every, total = block.get("every"), mapping(opt.get("train")).get("total_iter")
    if isinstance(every, int) and isinstance(total, (int, float)) and every > total:
        findings.warning((*path, "every"), f"{every}, and the run ends at {show(total)}: the term never counts")
    if block.get("trust") is not None and view == "clean":
        findings.warning((*path, "trust"), "the teacher sees the clean image in this view, and is trusted almost everywhere")
    try:
        fade = fade_of(opt, block)
        if fade is not None and fade.start >= cast(float, total):
            said = (
                f"it begins at iteration {fade.start:g}, and the run ends at {total}: the weight stays {fade.first:g} times its own"
            )
            findings.warning((*path, "fade"), said)
    except ValueError as error:
        findings.error((*path, "fade"), str(error).removeprefix("fade: "))
    loss = LOSS.entries.get(str(block.get("type")))
    forward = getattr(loss, "forward", None)
    if forward is not None and view in VIEWS:
        try:
            asks = asked(partial(forward, None), between, view)  # None: in place of `self`
        except ValueError as error:
            findings.error(path, str(error))
        else:
            if "negatives" in asks and not model.makes_negatives:
                findings.error(path, f"{block['type']}: {no_negatives(model)}")
    return () if between == (OUTPUT,) else tuple(map(str, between))
