"""Validation: the student's scores beside the teacher's and the input's, and panels to look at."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest
from os import path as osp
from typing import Any

import numpy as np
import torch
from basicsr.metrics import calculate_metric
from basicsr.utils import get_root_logger, imwrite, tensor2img
from torch import Tensor
from tqdm import tqdm

from kd_plugins import distributed
from kd_plugins.data.downsample import enlarge
from kd_plugins.data.loading import shared_loader
from kd_plugins.errors import BadData
from kd_plugins.metrics.reference import needs_reference, without_reference
from kd_plugins.options import OptionError
from kd_plugins.tables import ROLES, score_table
from kd_plugins.teachers import Teacher
from kd_plugins.training.saver import SavedModel

Image = np.ndarray  # (H, W, 3) uint8, BGR as BasicSR's


class ValidatedModel(SavedModel):
    """SRModel with a validation that also scores the teacher and the input, and shows panels; with clean images or without.

    Teacher and input do not change: they are restored and scored once for each dataset.

    Option keys under `val`, beside SRModel's (metrics, save_img, suffix, pbar):
        panels: how many images to show in TensorBoard (default 2), as input, student, teacher, clean side by side.
        baselines: whether teacher and input are scored too (default true).
    """

    scores: dict[str, dict[str, dict[str, float]]]  # dataset, role, metric: of the last validation
    teachers: dict[str, Teacher]  # by view
    tasks: list[str] | None = None  # of each sample of the batch

    def dist_validation(self, dataloader: Any, current_iter: Any, tb_logger: Any, save_img: bool) -> None:
        """Restore and score a dataset together with the other processes, each its share; SRModel's leaves it all to process 0."""
        self.nondist_validation(shared_loader(dataloader), current_iter, tb_logger, save_img)

    def test(self) -> None:
        """As SRModel's, without DistributedDataParallel, which would wait for processes that have fewer images."""
        wrapped, self.net_g = self.net_g, self.get_bare_model(self.net_g)
        try:
            super().test()
        finally:
            self.net_g = wrapped

    def nondist_validation(self, dataloader: Any, current_iter: Any, tb_logger: Any, save_img: bool) -> None:
        """Restore and score a dataset; signature and saved files are SRModel's."""
        dataset = dataloader.dataset.opt["name"]
        val_opt = self.opt["val"]
        metrics = val_opt.get("metrics") or {}
        self.scores = getattr(self, "scores", {})
        if metrics:
            self._initialize_best_metric_results(dataset)
        first = dataset not in self.scores and val_opt.get("baselines", True)
        rows: list[dict[str, dict[str, float]]] = []  # for each image by role and metric
        batches = tqdm(dataloader, unit="image", leave=False) if val_opt.get("pbar") else dataloader
        for index, data in enumerate(batches):
            if data is None:  # the other processes have one image more
                continue
            self.feed_data(data)
            wanted = bool(tb_logger) and index < int(val_opt.get("panels", 2))
            images = self._restore(with_teacher=first or wanted)
            if "clean" not in images:
                _refuse_references(dataset, metrics)
            name = osp.splitext(osp.basename(data["lq_path"][0]))[0]
            if save_img:
                imwrite(images["student"], self._image_path(dataset, name, current_iter))
            clean = {"img2": images["clean"]} if "clean" in images else {}
            scored = [role for role in ROLES if role in images and (first or role == "student")]
            rows.append(
                {role: {m: calculate_metric({"img": images[role], **clean}, o) for m, o in metrics.items()} for role in scored}
            )
            if wanted:
                panel = np.concatenate([_in_colour(images[role]) for role in (*ROLES, "clean") if role in images], axis=1)
                tb_logger.add_image(f"{dataset}/{name}", panel[..., ::-1].copy(), current_iter, dataformats="HWC")
        if metrics:
            shares = zip_longest(*distributed.all_gather_objects(rows))
            rows = [row for rows in shares for row in rows if row is not None]  # in the order of the dataset
            if not rows:
                raise BadData(f"dataset {dataset!r}: none of its images can be used")
            means = {role: {m: sum(row[role][m] for row in rows) / len(rows) for m in metrics} for role in rows[0]}
            self.scores[dataset] = {**self.scores.get(dataset, {}), **means}
            self._report(dataset, current_iter, tb_logger)

    def _restore(self, with_teacher: bool) -> dict[str, Image]:
        """Images of this batch by role, that of the input beside the teacher's; `clean` where there is a ground truth."""
        self.test()
        tensors: dict[str, Tensor] = {"student": self.output}
        if with_teacher and self.teachers:
            tensors["teacher"] = self.teachers["degraded"](self.lq, self.tasks).image
        if hasattr(self, "gt"):
            tensors["clean"] = self.gt
        images = {role: _to_image(value) for role, value in tensors.items()}
        height, width = images["student"].shape[:2]
        if with_teacher and self.lq.shape[1] == self.output.shape[1]:  # else it is no such image
            lq = _to_image(self.lq)
            images["input"] = lq if lq.shape[:2] == (height, width) else enlarge(lq, height, width)
        for name in ("gt", "lq", "output"):
            if hasattr(self, name):
                delattr(self, name)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # whole images after crops
        return images

    def _image_path(self, dataset: str, image: str, current_iter: Any) -> str:
        folder = self.opt["path"]["visualization"]
        if self.opt["is_train"]:
            return osp.join(folder, image, f"{image}_{current_iter}.png")
        return osp.join(folder, dataset, f"{image}_{self.opt['val'].get('suffix') or self.opt['name']}.png")

    def _report(self, dataset: str, current_iter: Any, tb_logger: Any) -> None:
        scores = self.scores[dataset]
        for metric, value in scores["student"].items():
            self._update_best_metric_result(dataset, metric, value, current_iter)
        best = self.best_metric_results[dataset] if self.is_train else None
        get_root_logger().info(score_table(f"Validation {dataset} at {current_iter}", scores, best))
        if tb_logger is None:
            return
        for metric, value in scores["student"].items():
            tag = f"metrics/{dataset}/{metric}"
            tb_logger.add_scalar(tag, value, current_iter)
            for role in [role for role in ROLES if role in scores and role != "student"]:
                tb_logger.add_scalar(f"{tag}_{role}", scores[role][metric], current_iter)
            if "teacher" in scores:
                tb_logger.add_scalar(f"{tag}_gap", value - scores["teacher"][metric], current_iter)


def _refuse_references(dataset: str, metrics: Mapping[str, Mapping[str, Any]]) -> None:
    for name, block in metrics.items():
        if needs_reference(block.get("type")):
            raise OptionError(
                f"val:metrics:{name}: {block['type']} compares with a clean image, which dataset {dataset!r} does not have, "
                f"expected one of {', '.join(without_reference())}"
            )


def _to_image(batch: Tensor) -> Image:
    image = batch.detach().cpu()
    if image.shape[1] in (1, 3):
        return np.asarray(tensor2img([image]))
    return (image[0].float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()


def _in_colour(image: Image) -> Image:
    """With three channels, to be shown: a gray one repeated, of more the first three."""
    return np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image[..., :3]
