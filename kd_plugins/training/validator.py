"""Validation: the student's scores beside the teacher's and the input's, and panels to look at."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from itertools import zip_longest
from os import path as osp
from typing import Any

import numpy as np
import torch
from basicsr.utils import get_root_logger, imwrite
from torch import Tensor

from kd_plugins import distributed
from kd_plugins.data.downsample import enlarge
from kd_plugins.data.image_sizes import shorter_sides
from kd_plugins.data.pictures import Image, to_image
from kd_plugins.errors import BadData
from kd_plugins.metrics.reference import needs_reference, without_reference
from kd_plugins.metrics.score import score
from kd_plugins.options import OptionError
from kd_plugins.randomness import kept_randomness
from kd_plugins.tables import GAP, ROLES, Scores, role_word, score_table, score_tag
from kd_plugins.terminal import bar
from kd_plugins.training.panels import draw_panel

_TRIED = 256  # pixels each way, which any metric takes
Restore = Callable[[Mapping[str, Any], bool], Mapping[str, Tensor]]


class Validator:
    """Scores the student, beside it the teacher and the input, and shows panels; with clean images or without.

    Teacher and input do not change: they are restored and scored once for each dataset.

    Args:
        val_opt: the `val` block: SRModel's keys (metrics, save_img, suffix; `pbar: false` hides the bar), `panels`, how many
            images to show in TensorBoard (default 2), as input, student, teacher, clean side by side, and `baselines`, whether
            teacher and input are scored too (default true).
        restore: called with a batch of one image, and whether the baselines are wanted; returns images (1, C, H, W): the
            `student`'s, the `clean` one where there is one, and the baselines, `teacher` and `input`, as far as there are such.
        image_path: called with a dataset's name, an image's and the iteration: where a restored image is saved.
        has_teacher: whether what is trained is a student.

    Attributes:
        scores: by dataset, role and metric: of the last validation.
        best: by dataset and metric: the student's best value (`val`), its iteration (`iter`) and which way is `better`.
    """

    def __init__(
        self, val_opt: Mapping[str, Any], restore: Restore, image_path: Callable[[str, str, Any], str], has_teacher: bool = True
    ) -> None:
        self.opt, self.restore, self.image_path, self.has_teacher = val_opt, restore, image_path, has_teacher
        self.metrics: Mapping[str, Mapping[str, Any]] = val_opt.get("metrics") or {}
        self.scores: dict[str, dict[str, Mapping[str, float]]] = {}
        self.best: dict[str, dict[str, dict[str, Any]]] = {}

    def run(self, loader: Any, iteration: Any, tb_logger: Any, save_img: bool) -> None:
        """Restore and score a dataset, or this process's share of it; all processes call this.

        Args:
            loader: of one image at a time; None in place of a batch where other processes have one image more.
            iteration: the step after which this is, or a name where nothing is trained.
            tb_logger: TensorBoard's writer, or None.
            save_img: whether the student's images are saved.

        Raises:
            OptionError: a metric needs a clean image, which the dataset does not have.
            BadData: no image of the dataset can be used, or a metric cannot take one.
        """
        dataset = loader.dataset.opt["name"]
        with_baselines = dataset not in self.scores and self.opt.get("baselines", True)
        rows: list[Scores] = []  # one for each image
        images_of = bar(loader, desc=dataset, unit="image", shown=self.opt.get("pbar") is not False)
        for index, data in enumerate(images_of):
            if data is None:
                continue
            shown = bool(tb_logger) and index < int(self.opt.get("panels", 2))
            images = _as_images(self.restore(data, with_baselines or shown))
            if "clean" not in images:
                _refuse_references(dataset, self.metrics)
            name = osp.splitext(osp.basename(data["lq_path"][0]))[0]
            if save_img:
                imwrite(images["student"], self.image_path(dataset, name, iteration))
            try:
                rows.append(self._score(images, ROLES if with_baselines else ("student",)))
            except ValueError as error:
                raise BadData(f"dataset {dataset!r}: image {name!r}: val:metrics: {error}") from error
            if shown:
                panel = draw_panel(images, self._captions(images))
                tb_logger.add_image(f"{dataset}/{name}", panel[..., ::-1].copy(), iteration, dataformats="HWC")
        if self.metrics:
            shares = zip_longest(*distributed.all_gather_objects(rows))
            means = self._means(dataset, [row for rows in shares for row in rows if row is not None])  # in the dataset's order
            self.scores[dataset] = {**self.scores.get(dataset, {}), **means}
            self._report(dataset, iteration, tb_logger)

    def try_metrics(self, datasets: Iterable[Mapping[str, Any]]) -> None:
        """Find out before a run whether each metric takes the smallest image of each dataset.

        Args:
            datasets: the blocks of the datasets.

        Raises:
            ValueError: one does not, though it takes larger ones.
        """
        for block in datasets:
            _, sides = shorter_sides(block, int(block.get("scale") or 1))
            side, name = min(((side, name) for name, side in sides.items()), default=(_TRIED, ""))
            for metric, options in self.metrics.items() if side < _TRIED else ():
                if (wrong := _refusal(options, side)) and not _refusal(options, _TRIED):
                    place = f"val:metrics:{metric}: {name!r} of dataset {block.get('name')!r}"
                    raise ValueError(f"{place} is {side} pixels wide or high, too small: {wrong}")

    def _captions(self, images: Mapping[str, Image]) -> dict[str, str]:
        """What stands above the images of a panel: their role, and their PSNR if it is among the metrics."""
        psnr = next((block for block in self.metrics.values() if block["type"] == "calculate_psnr"), None)
        scored = [role for role in images if role in ROLES] if psnr and "clean" in images else []
        values = {role: score({"img": images[role], "img2": images["clean"]}, psnr) for role in scored if psnr}
        words = {role: role_word(role, self.has_teacher) for role in images}
        return {role: f"{word} {values[role]:.2f} dB" if role in values else word for role, word in words.items()}

    def _score(self, images: Mapping[str, Image], roles: Iterable[str]) -> Scores:
        clean = {"img2": images["clean"]} if "clean" in images else {}
        scored = [role for role in roles if role in images]
        return {role: {m: score({"img": images[role], **clean}, o) for m, o in self.metrics.items()} for role in scored}

    def _means(self, dataset: str, rows: list[Scores]) -> Scores:
        if not rows:
            raise BadData(f"dataset {dataset!r}: none of its images can be used")
        return {role: {m: sum(row[role][m] for row in rows) / len(rows) for m in self.metrics} for role in rows[0]}

    def _report(self, dataset: str, iteration: Any, tb_logger: Any) -> None:
        scores, best, title = self.scores[dataset], {}, f"Test of {dataset}"
        if isinstance(iteration, int):
            best, title = self._note_best(dataset, scores["student"], iteration), f"Validation {dataset} at {iteration}"
        get_root_logger().info(score_table(title, scores, self.has_teacher, best))
        if tb_logger is None:
            return
        for metric, value in scores["student"].items():
            for role in [role for role in ROLES if role in scores]:
                tb_logger.add_scalar(score_tag(dataset, metric, role), scores[role][metric], iteration)
            if "teacher" in scores:
                tb_logger.add_scalar(score_tag(dataset, metric, GAP), value - scores["teacher"][metric], iteration)

    def _note_best(self, dataset: str, scores: Mapping[str, float], iteration: int) -> Mapping[str, Mapping[str, Any]]:
        best = self.best.setdefault(dataset, {})
        for metric, value in scores.items():
            better, value = self._better(metric), float(value)  # plain: a metric may return NumPy's, which a safe loader refuses
            worst = -math.inf if better == "higher" else math.inf
            found = best.setdefault(metric, {"better": better, "val": worst, "iter": -1})
            if value >= found["val"] if better == "higher" else value <= found["val"]:
                found.update(val=value, iter=iteration)
        return best

    def _better(self, metric: str) -> str:
        return self.metrics[metric].get("better", "higher")

    def state_dict(self) -> dict[str, Any]:
        """The `best` scores."""
        return {"best": {dataset: {metric: dict(found) for metric, found in own.items()} for dataset, own in self.best.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a state; metrics that the option file no longer names, or reads the other way round, are dropped."""
        for dataset, metrics in (state.get("best") or {}).items():
            known = {metric: dict(found) for metric, found in metrics.items() if metric in self.metrics}
            self.best[dataset] = {metric: found for metric, found in known.items() if found["better"] == self._better(metric)}


def _refusal(options: Mapping[str, Any], side: int) -> str:
    """What a metric says against noise of a size; empty where it takes it."""
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    try:
        with kept_randomness():
            score({"img": noise, "img2": noise[::-1].copy()}, options)
    except ValueError as error:
        return str(error)
    return ""


def _refuse_references(dataset: str, metrics: Mapping[str, Mapping[str, Any]]) -> None:
    for name, block in metrics.items():
        if needs_reference(block.get("type")):
            raise OptionError(
                f"val:metrics:{name}: {block['type']} compares with a clean image, which dataset {dataset!r} does not have, "
                f"expected one of {', '.join(without_reference())}"
            )


def _as_images(tensors: Mapping[str, Tensor]) -> dict[str, Image]:
    """Images by role, the input at the size of the student's."""
    images = {role: to_image(value) for role, value in tensors.items()}
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # whole images need other blocks than crops do
    height, width = images["student"].shape[:2]
    if "input" in images and images["input"].shape[:2] != (height, width):
        images["input"] = enlarge(images["input"], height, width)
    return images
