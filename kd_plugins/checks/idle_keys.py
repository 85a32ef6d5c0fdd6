"""Keys that have no effect, since another one is not there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kd_plugins.arguments import Path
from kd_plugins.checks.findings import Findings
from kd_plugins.mappings import blocks_in, mapping
from kd_plugins.messages import show
from kd_plugins.models.terms import merge_terms
from kd_plugins.training.tiling import GRIDS

_GAN, _TILE, _GRIDS = ("train", "gan_opt"), ("val", "tile"), ("val", "grids")
_NEEDS: dict[Path, Path] = {
    **dict.fromkeys((("network_d",), ("path", "pretrain_network_d")), _GAN),
    **{("train", key): _GAN for key in ("optim_d", "net_d_iters", "net_d_init_iters")},
    **{("val", key): _TILE for key in ("tile_overlap", "tile_pad")},
    **{("val", key): _GRIDS for key in GRIDS},
}
_OF_VIEW = {("teacher_clean",): "clean", ("train", "transforms"): "transformed"}


def check_idle_keys(findings: Findings, opt: Mapping[str, Any], model: Any, is_train: bool) -> None:
    """Warn of keys that would do nothing; one whose partner is there and turned off is meant to do so."""
    for path, needed in _NEEDS.items():
        value = _value(opt, path)
        if value is not None and _value(opt, needed) is None and (is_train or path[0] == "val") and not findings.has_error(path):
            findings.warning(path, f"{show(value)}, it has no effect without `{': '.join(needed)}`")
    terms = blocks_in(merge_terms(model.default_terms, mapping(opt, "train", "distill")))
    views = [block.get("view") for _, block in terms]
    for path, view in _OF_VIEW.items():
        if is_train and _value(opt, path) and view not in views and not findings.has_error(path):
            findings.warning(path, f"{show(_value(opt, path))}, it has no effect without a term of `view: {view}`")


def _value(opt: Mapping[str, Any], path: Path) -> Any:
    return mapping(opt, *path[:-1]).get(path[-1])
