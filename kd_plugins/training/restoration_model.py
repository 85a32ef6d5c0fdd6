"""A model of BasicSR's kind that is made of parts."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from os import path as osp
from pathlib import Path
from typing import Any

from basicsr.archs import build_network
from basicsr.models.base_model import BaseModel
from basicsr.utils import get_root_logger
from torch import Tensor, nn

from kd_plugins import distributed
from kd_plugins.compiling import compile_inner_parts, compile_part, logged_compilation, read_compilation, uncompiled
from kd_plugins.data.loading import shared_loader
from kd_plugins.data.realesrgan import RealESRGANBatches
from kd_plugins.features.layer_outputs import evaluating
from kd_plugins.teachers.checkpoint import load_strictly, read_checkpoint
from kd_plugins.teachers.network_description import described
from kd_plugins.teachers.weight_names import named_as
from kd_plugins.training.accumulation import part_size
from kd_plugins.training.bad_steps import name_images
from kd_plugins.training.ema import ema_update
from kd_plugins.training.precision import Precision
from kd_plugins.training.saver import Saver
from kd_plugins.training.tiling import Tiling
from kd_plugins.training.updater import Losses, Updater
from kd_plugins.training.validator import Validator


class RestorationModel(BaseModel):
    """A network that restores images, and what BasicSR's pipeline asks of it: each call goes to the part that answers it.

    A subclass says what is minimised (`compute_losses`), and calls `build_ema` and `build_updater` once it has its losses.

    Args:
        opt: the options of the run; `amp: bf16` or `fp16` runs training steps under autocast, `channels_last` is the networks'
            memory layout.
        net: the network.

    Attributes:
        net_g: the network, perhaps wrapped in DistributedDataParallel.
        net_g_ema: the same with averaged weights, where `train: ema_decay` asks for it; else None.
        updater: takes the steps. saver: writes checkpoints. Both in a training only. validator: restores and scores.
        lq, gt, paths, tasks: the batch: (N, C, h, w), (N, C, H, W) or None, names as far as there are some, the task of each
            sample or None.
        gt_usm: `gt` sharpened, where the options of Real-ESRGAN ask for it (`RealESRGANBatches`); else None.
        output: the restored batch, (N, C, H, W).
        iteration: of the step, from 1.
    """

    saver: Saver
    updater: Updater
    lq: Tensor
    gt: Tensor | None
    gt_usm: Tensor | None
    tasks: list[str] | None
    output: Tensor

    def __init__(self, opt: dict[str, Any], net: nn.Module) -> None:
        super().__init__(opt)
        self.precision, self.iteration = Precision(opt), 0
        self.compilation = read_compilation(opt.get("compile") if self.is_train else None, self.device)
        self.batches = RealESRGANBatches(opt, self.device)
        self.net_g, self.net_g_ema = self.model_to_device(net), None
        parameters = sum(p.numel() for p in net.parameters())
        get_root_logger().info(f"Network: {type(net).__name__}, with parameters: {parameters:,d}")
        self.load_pretrained(self.net_g, opt["path"].get("param_key_g", "params"))
        self.tiling = Tiling(opt)
        self.validator = Validator(opt.get("val") or {}, self.restore, self._image_path, bool(opt.get("teacher")))

    def build_ema(self) -> None:
        """Build the network with averaged weights, if there is to be one."""
        if self.opt["train"].get("ema_decay", 0) > 0:
            self.net_g_ema = self.build_copy()
            if not self.load_pretrained(self.net_g_ema, "params_ema"):
                ema_update(self.net_g_ema, self.get_bare_model(self.net_g), 0)

    def build_updater(self, losses: Iterable[nn.Module] = ()) -> None:
        """Build the parts of a training; from here on no network is added.

        Args:
            losses: see `Updater`.
        """
        opt, losses = self.opt, list(losses)
        self.saver = Saver(opt["path"], described(opt["network_g"]), opt.get("manual_seed"), opt.get("chosen_student"))
        self.updater = Updater(
            opt["train"], self.networks(), ema=self.net_g_ema, losses=losses, precision=self.precision, device=self.device
        )
        self.optimizers, self.schedulers = self.updater.optimizers, self.updater.schedulers
        if self.compilation:
            for label, net in self.compiled_networks().items():
                compile_part(net, label, self.compilation)
            for loss in losses:
                compile_inner_parts(loss, type(loss).__name__, self.compilation)

    def compiled_networks(self) -> dict[str, nn.Module]:
        """The networks of a step that `compile` compiles, by their name in the log."""
        return {"student": self.get_bare_model(self.net_g)}

    # ------------------------------------------------------------------------------------------------ training

    def compute_losses(self) -> Losses:
        """Restore the batch, as `output`; every term of the sum that is minimised."""
        raise NotImplementedError

    def feed_data(self, data: Mapping[str, Any]) -> None:
        """Take a batch {lq, gt}, or {lq} alone, with `lq_path` where there are names, and `task` where there are several tasks.

        A training batch may come with kernels in place of `lq` (see `RealESRGANBatches`).
        """
        self._take(self.batches(data) if self.is_train else data)

    def _take(self, data: Mapping[str, Any]) -> None:
        found = {key: data[key].to(self.device) for key in ("lq", "gt", "gt_usm") if key in data}
        images = {key: self.precision.to_memory_format(value) for key, value in found.items()}
        self.lq, self.gt, self.gt_usm = images["lq"], images.get("gt"), images.get("gt_usm")
        self.paths, self.tasks = list(data.get("lq_path") or []), list(data["task"]) if "task" in data else None

    def optimize_parameters(self, current_iter: int) -> None:
        """One step: losses, backward pass, update (see `Updater.step`), and what the class does after it."""
        self.iteration = current_iter
        self.before_step(current_iter)
        whole = self.lq, self.gt, self.gt_usm, self.tasks
        try:
            with logged_compilation(current_iter):
                self.updater.step(current_iter, self._parts(), partial(self.name_images, self.lq, self.gt), self.after_step)
        finally:
            self.lq, self.gt, self.gt_usm, self.tasks = whole

    def _parts(self) -> list[Callable[[], Losses]]:
        """What computes the losses of each part of the batch."""
        size = part_size(self.opt["train"], len(self.lq))
        if size == len(self.lq):
            return [self.compute_losses]
        whole = self.lq, self.gt, self.gt_usm, self.tasks

        def compute(start: int) -> Losses:
            part: list[Any] = [each if each is None else each[start : start + size] for each in whole]
            self.lq, self.gt, self.gt_usm, self.tasks = part
            return self.compute_losses()

        return [partial(compute, start) for start in range(0, len(self.lq), size)]

    def before_step(self, iteration: int) -> None:
        """Before the losses are computed; the batch is there."""

    def after_step(self, iteration: int) -> None:
        """At the end of a step, whether it changed weights or was skipped."""

    def name_images(self, lq: Tensor, gt: Tensor | None) -> str:
        """The images of the batch by name, and those among them that are not finite (see `name_images`)."""
        return name_images(self.paths, [lq] if gt is None else [lq, gt])

    def get_current_log(self) -> Mapping[str, float]:
        """The losses of the last step, the mean over processes."""
        return self.reduce_loss_dict(self.updater.losses)

    # ------------------------------------------------------------------------------------------------ validating

    def validation(self, dataloader: Any, current_iter: Any, tb_logger: Any, save_img: bool = False) -> None:
        """Restore and score a dataset, each process its share (see `Validator.run`)."""
        loader = shared_loader(dataloader) if self.opt["dist"] else dataloader
        self.validator.run(loader, current_iter, tb_logger, save_img)

    @property
    def scores(self) -> Mapping[str, Mapping[str, Mapping[str, float]]]:
        """Those of the last validation, by dataset, role and metric."""
        return self.validator.scores

    def restore(self, data: Mapping[str, Any], with_baselines: bool) -> dict[str, Tensor]:
        """Images of a batch by role, see `Validator`."""
        self._take(data)
        with uncompiled():  # each image may have a size of its own
            self.test()
            images = {"student": self.output}
            if with_baselines:
                images.update(self.baselines())
        if self.gt is not None:
            images["clean"] = self.gt
        del self.lq, self.gt, self.output  # whole images
        return images

    def baselines(self) -> dict[str, Tensor]:
        """What the output is compared with, by role: the input, where it is an image like it."""
        return {"input": self.lq} if self.lq.shape[1] == self.output.shape[1] else {}

    def test(self) -> None:
        """Restore the batch, as `output`: with the averaged student, or the student where there is none."""
        net = self.get_bare_model(self.net_g) if self.net_g_ema is None else self.net_g_ema
        with evaluating(net):
            self.output = self.tiling("student", net, self.lq)

    def _image_path(self, dataset: str, image: str, iteration: Any) -> str:
        folder = self.opt["path"]["visualization"]
        if self.is_train:
            return osp.join(folder, image, f"{image}_{iteration}.png")
        return osp.join(folder, dataset, f"{image}_{self.opt['val'].get('suffix') or self.opt['name']}.png")

    # ------------------------------------------------------------------------------------------------ saving

    def networks(self) -> dict[str, nn.Module]:
        """What is saved and resumed, and trained where it asks for a gradient, by the label of its checkpoint."""
        return {"net_g": self.net_g}

    def parts(self) -> list[Any]:
        """What has a state beside the networks: `state_dict` and `load_state_dict`, of keys of its own."""
        return [self.updater, self.validator, self.batches, self.precision]

    def save(self, epoch: int, current_iter: int) -> None:
        """Save networks and state (see `Saver.save`); `current_iter` is -1 for the latest."""
        checkpoints = {label: {"params": net} for label, net in self.networks().items()}
        if self.net_g_ema is not None:
            checkpoints["net_g"]["params_ema"] = self.net_g_ema
        self.saver.save(epoch, current_iter, checkpoints, dict(ChainMap(*(part.state_dict() for part in self.parts()))))

    def resume_training(self, resume_state: Mapping[str, Any]) -> None:
        """Resume a run; the student has been loaded as `path: pretrain_network_g`.

        Raises:
            ValueError: the state is that of another network.
        """
        for part in self.parts():
            part.load_state_dict(resume_state)
        self.saver.resume(resume_state, {label: net for label, net in self.networks().items() if label != "net_g"})

    def save_network(self, net: Any, net_label: str, current_iter: int, param_key: str | Sequence[str] = "params") -> None:
        """As BaseModel's, whole or not at all.

        Raises:
            SaveError: the file cannot be written.
        """
        nets = [net] if isinstance(net, nn.Module) else net
        keys = [param_key] if isinstance(param_key, str) else param_key
        self.saver.write_network(net_label, current_iter, dict(zip(keys, nets, strict=True)))

    def load_network(self, net: nn.Module, load_path: str, strict: bool = True, param_key: Any = "params") -> None:
        """As BaseModel's, from files that hold nothing but weights: BasicSR's, those of other frameworks, and safetensors.

        Raises:
            ValueError: the file cannot be read safely, has no such `param_key`, or does not fit the network.
        """
        net = self.get_bare_model(net)
        own = param_key in ("params", "params_ema", None)  # BasicSR's: what another framework saved has others
        weights, _ = read_checkpoint(Path(load_path), None if own else param_key, first=param_key if own else None)
        get_root_logger().info(f"Loading {type(net).__name__} from {load_path}.")
        if strict:
            load_strictly(net, weights, load_path)
            return
        weights = named_as(net.state_dict(), weights)
        self._print_different_keys_loading(net, weights, strict)
        net.load_state_dict(weights, strict=False)

    def load_pretrained(self, net: nn.Module, param_key: Any, which: str = "g") -> bool:
        """Load `path: pretrain_network_g`, or `_d`; returns whether there is one."""
        path = self.opt["path"]
        if file := path.get(f"pretrain_network_{which}"):
            self.load_network(net, file, path.get(f"strict_load_{which}", True), param_key)
        return bool(file)

    # ------------------------------------------------------------------------------------------------ networks

    def build_copy(self) -> nn.Module:
        """A network of the student's layout, with weights of its own, in eval mode."""
        return self.precision.to_memory_format(build_network(self.opt["network_g"])).to(self.device).eval()

    def model_to_device(self, net: nn.Module) -> nn.Module:
        """As BasicSR's, in the memory layout of the option file, and with batch norms that see the batches of all processes.

        Raises:
            ValueError: see `convert_sync_batchnorm`.
        """
        net = self.precision.to_memory_format(net)
        return super().model_to_device(distributed.convert_sync_batchnorm(net, self.device) if self.is_train else net)

    def get_bare_model(self, net: nn.Module) -> nn.Module:
        """The network inside its wrappers."""
        return distributed.unwrap_model(net)
