"""The generic distillation model: a student, a frozen teacher, and a sum of terms."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from basicsr.utils.registry import MODEL_REGISTRY
from torch import Tensor, nn

from kd_plugins import distributed
from kd_plugins.arguments import build, require, spec_of
from kd_plugins.compiling import uncompiled
from kd_plugins.features.layer_outputs import evaluating
from kd_plugins.models import building
from kd_plugins.models.adversarial import build_adversary, real_images, train_both
from kd_plugins.models.dry_run import example_input, try_student, try_zoomed_out
from kd_plugins.models.memory_layout import choose_layout
from kd_plugins.models.sanity_check import sanity_check
from kd_plugins.models.step import Step
from kd_plugins.models.student_init import Copied, start_student, starts_from_weights
from kd_plugins.models.supervised import SupervisedLosses, nothing_to_train_by, set_default_pixel_loss
from kd_plugins.models.terms import Term, build_terms, merge_terms
from kd_plugins.teachers import Observation, Teacher, ViewTransform, observe, zoom_in, zoom_out
from kd_plugins.teachers.cache import hit_rate
from kd_plugins.teachers.program_files import Program
from kd_plugins.training.adversary import Adversary
from kd_plugins.training.restoration_model import RestorationModel


@MODEL_REGISTRY.register()
class DistillationModel(RestorationModel):
    """Trains a student under a frozen teacher; the terms come from the option file.

    Option keys beside those of BasicSR's SRModel:
        network_g: also from the sources of a teacher (docs/teachers.md), or made of the teacher (docs/students.md).
        teacher: the teacher, or one for each task (see `build_teacher`); without it this is plain training.
        teacher_clean: a second teacher, of the same layout, for the clean view.
        init: `teacher` starts the student from the teacher's weights, `random` (default) does not; see `read_init`.
        features: the pairs of layers by group (see `find_pairs`).
        train: distill: the terms (see `build_terms`), added to the class's own; `name: ~` takes one out.
        train: transforms: probabilities of the `transformed` view (see `ViewTransform`).
        train: pixel_opt, perceptual_opt: against the clean image; training data may have none (see `SupervisedLosses`).
        network_d, train: gan_opt, optim_d, net_d_iters, net_d_init_iters: a discriminator beside all terms (see `Adversary`).
        train: grad_clip, max_bad_steps: see `Updater`; accumulate: see `part_size`. val: panels, baselines: see `Validator`.
        amp: `bf16` or `fp16` runs training steps under autocast.
        channels_last: memory layout of the networks: true, false or auto (see `choose_layout`). compile: see `Compilation`.

    A method is a subclass that says which terms it has. One with state of its own, as DCKDModel, overrides:

    - build_state: makes it, once student, teacher and terms are there.
    - networks: adds its networks: they are saved and resumed with the student, and trained where they ask for a gradient.
      What else is to be resumed is a buffer of one of them.
    - before_step, after_step: what happens to it in a step.

    Attributes:
        net_g: the student, perhaps wrapped in DistributedDataParallel.
        net_g_ema: with its averaged weights, if `train: ema_decay` asks for it.
        teachers: by view.
        terms: by name.
        scm: the conversion of the student's features to the teacher's scale, where a term reads it.
        adversary: the discriminator, if `train: gan_opt` asks for one.
        updater, validator, saver: the parts that take steps, score, and save.
    """

    default_terms: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    default_pixel: ClassVar[Mapping[str, Any] | None] = None  # the pixel loss of an option file that names none
    makes_negatives: ClassVar[bool] = False  # whether its terms may ask for them: see `make_negatives`
    option_blocks: ClassVar[Mapping[str, Any]] = {}
    """The further blocks of the option file that the class reads, each as the class or function whose arguments are its keys, or
    as a mapping of keys to type hints and such: `{"my_method": {"rate": Annotated[float, Above(0)], "history": History}}`."""

    def __init__(self, opt: dict[str, Any]) -> None:
        self.check_option_blocks(opt)
        opt = dict(opt)
        student = building.build_student(opt)
        if opt.get("channels_last") == "auto" and opt["is_train"]:
            opt["channels_last"] = choose_layout(student, opt)
        super().__init__(opt, student)
        student = self.get_bare_model(self.net_g)
        building.pad_student(student, opt)
        x = example_input(student, opt, self.device)
        if self.is_train:
            try_student(student, x)
        self.channels = x.shape[1]
        self.teachers = building.build_teachers(opt, student, x, self.precision)
        self.terms: dict[str, Term] = {}
        self.adversary: Adversary | None = None
        if self.is_train:
            self.init_training_settings()
            if "zoomed_out" in self.views:
                try_zoomed_out(student, self.teachers["degraded"], x)

    @classmethod
    def check_option_blocks(cls, opt: Mapping[str, Any]) -> None:
        """Hold the further blocks to what they may hold.

        Raises:
            ValueError: an unknown key, or a wrong value.
        """
        for key, what in cls.option_blocks.items():
            require(spec_of(what, key), opt.get(key), (key,))

    def init_training_settings(self) -> None:
        """Build what a training has beside the networks: the student's start, terms, the class's own state, parts.

        Raises:
            ValueError: something in the option file does not go together; the message says what.
        """
        student, teacher = self.get_bare_model(self.net_g), self.teachers.get("degraded")
        if self.default_terms and not teacher:
            raise ValueError(f"{self.opt['model_type']}: no `teacher` block in the option file, expected {{checkpoint: FILE}}")
        copied = start_student(student, teacher and teacher.net, self.opt)
        if teacher:
            sanity_check(self.opt, teacher, student if starts_from_weights(self.opt) else None, self.device)
        self._build_terms(student, copied)
        self.net_g.train()
        self.build_ema()
        set_default_pixel_loss(self.opt, self.default_pixel)
        instead = {term.name: term.truth_instead for term in self.terms.values()}
        self.supervised = SupervisedLosses(self.opt, instead, self.device)
        constant = [term for term in self.terms.values() if term.every == 1 and getattr(term.loss, "loss_weight", 1) != 0]
        if reason := nothing_to_train_by(self.opt["train"], [term.fade for term in constant]):
            raise ValueError(f"train: {reason}")
        self.adversary = build_adversary(self, student)
        self.build_state()
        self.build_updater([term.loss for term in self.terms.values()])
        if self.adversary is not None:
            self.adversary.join(self.updater)

    def term_blocks(self) -> dict[str, Any]:
        """The blocks of the terms by name: the class's own, changed and added to by the option file."""
        return merge_terms(self.default_terms, self.opt["train"].get("distill") or {})

    def _build_terms(self, student: nn.Module, copied: Copied) -> None:
        blocks = self.term_blocks()
        self.pairs = building.build_pairs(blocks, self.opt.get("features"), student, self.teachers)
        self.terms = build_terms(blocks, self.pairs, self.device, self.opt["train"].get("total_iter"))
        self.active = list(self.terms.values())  # the terms of the step
        self.zoomed: dict[str, tuple[Tensor, Tensor]] = {}  # by view: what the student sees beside the batch, and its image of it
        self.shares: list[dict[str, Tensor]] = []  # of each part of the step's batch
        if self.wants_negatives and not self.makes_negatives:
            asking = next(name for name, term in self.terms.items() if "negatives" in term.asks)
            raise ValueError(f"train:distill:{asking}: {no_negatives(type(self))}")
        self.transform = build(ViewTransform, self.opt["train"].get("transforms"), ("train", "transforms"))
        for term in self.terms.values():
            term.use_teacher(self.teachers["degraded"].net)
            distributed.broadcast_parameters(p for p in term.loss.parameters() if p.requires_grad)
        self.taps = building.tap_networks(self.pairs, student, self.teachers.values())
        self.scm: nn.Module | None = None
        if self.pairs:
            x = example_input(student, self.opt, self.device)
            with evaluating(student), self.taps:
                student(x)
            theirs = next(iter(self.teachers.values())).try_out(x).features
            self.scm = building.build_conversion(self.pairs, self.terms.values(), copied, self.taps.collect(), theirs)
            if self.scm is not None:  # without DistributedDataParallel, which would see one pass for each stage
                distributed.broadcast_parameters(self.scm.to(self.device).parameters())

    def build_state(self) -> None:
        """Make what the method keeps between steps; student, teachers, terms and averaged student are there."""

    # ------------------------------------------------------------------------------------------------ a step

    def optimize_parameters(self, current_iter: int) -> None:
        """As RestorationModel; then the discriminator takes its step, if there is one."""
        self.shares.clear()
        if self.adversary is None:
            super().optimize_parameters(current_iter)
            return
        train_both(self, self.adversary, current_iter, super().optimize_parameters)

    def compute_losses(self) -> dict[str, Tensor]:
        """Every term of the sum that has a weight by now, by the name it is logged under."""
        if self.gt is None:
            self.supervised.refuse("the batch (no `gt`)")
        if self.lq.shape[1] != self.channels:
            with uncompiled():
                try_student(self.get_bare_model(self.net_g), self.lq[:1])
        self.active = self.terms_at(self.iteration)
        if self.active and self.opt["dist"] and not self.supervised.reads_output:
            self.active = list(self.terms.values())  # what processes average has a gradient in all of a step, or in nothing of it
        with self.taps:
            self.output = self.net_g(self.lq)
        student = self.get_bare_model(self.net_g)  # a second pass is nothing that DistributedDataParallel may see
        self.zoomed = {view: (x, student(x)) for view, x in self._zoom().items()}
        losses = self.supervised(self.output, self.gt, self.gt_usm)
        if self.adversary is not None:
            losses.update(self.adversary.student_loss(real_images(self), self.output))
        if self.active:
            step = self._observe()
            losses.update({f"l_{term.name}": term(step) for term in step.terms})
            self.shares.append({term.name: term.share for term in step.terms if term.share is not None})
        return losses

    def _observe(self) -> Step:
        """What student and teacher make of the batch, for the terms to compare."""
        targets, raw = self.show(), self.taps.collect()
        negatives = self.make_negatives() if any("negatives" in term.asks for term in self.active) else None
        return Step(self.output, self.lq, raw, self.scm, targets, negatives, self.zoomed, self.active, self.gt, self.iteration)

    @property
    def views(self) -> list[str]:
        """The views that the terms of the step ask for."""
        return list(dict.fromkeys(term.view for term in self.active))

    def _zoom(self) -> dict[str, Tensor]:
        zoomed = {"zoomed_out": zoom_out(self.lq, self.output)} if "zoomed_out" in self.views else {}
        if "zoomed" in self.views:
            assert self.gt is not None  # else the batch has been refused
            zoomed["zoomed"] = zoom_in(self.gt, self.lq)
        return zoomed

    def show(self) -> dict[str, Observation]:
        """Show the teacher every view that a term asks for, those of one size in one batch: what it made of each."""
        make = {"degraded": lambda: self.lq, "clean": lambda: self.gt, "transformed": lambda: self.transform.apply(self.lq)}
        shown = {view: self.zoomed[view][0] if view in self.zoomed else make[view]() for view in self.views}
        targets = observe(self.teachers, shown, self.tasks)
        if "transformed" in targets:
            seen = targets["transformed"]
            targets["transformed"] = Observation(self.transform.undo(seen.image), seen.features)
        return targets

    def make_negatives(self) -> Tensor:
        """Images to be unlike of, (J, N, C, H, W), without gradient; for classes with `makes_negatives`."""
        raise NotImplementedError

    @property
    def wants_negatives(self) -> bool:
        """Whether a term asks for negatives."""
        return any("negatives" in term.asks for term in self.terms.values())

    def terms_at(self, iteration: int) -> list[Term]:
        """The terms that have a weight at an iteration; at 0, before the first, all of them."""
        return [term for term in self.terms.values() if not iteration or term.weight(iteration)]

    @property
    def period(self) -> int:
        """After how many steps terms that are left out of some (`every`) come round."""
        return math.lcm(*(term.every for term in self.terms.values()))

    def get_current_log(self) -> Mapping[str, float]:
        """The losses of the last step, and the share of pixels at which each term with `trust` was trusted.

        Where teachers have caches, also the share of images found in them since the last call, `teacher_cache`.
        """
        counting = {term.name for term in self.terms_at(self.iteration)}
        faded = {f"l_{term.name}" for term in self.active if term.name not in counting}  # 0, in several processes
        losses = {name: value for name, value in self.updater.losses.items() if name not in faded}
        names = [name for name in next(iter(self.shares), {}) if name in counting]
        shares = {f"trust/{name}": torch.stack([part[name] for part in self.shares]).mean() for name in names}
        caches = [cache for teacher in dict.fromkeys(self.teachers.values()) for cache in teacher.caches()]
        if caches:
            shares["teacher_cache"] = torch.tensor(hit_rate(caches), device=self.device)
        return self.reduce_loss_dict({**losses, **shares, **(self.adversary.log if self.adversary is not None else {})})

    # ------------------------------------------------------------------------------------------------ parts

    def networks(self) -> dict[str, nn.Module]:
        """The student (net_g_*.pth), the conversion (net_scm_*.pth), the terms that learn (net_terms_*.pth), the discriminator."""
        networks = super().networks()
        if self.adversary is not None:
            networks["net_d"] = self.adversary.net
        if self.scm is not None:
            networks["net_scm"] = self.scm
        if trained := {name: term.loss for name, term in self.terms.items() if term.is_trained}:
            networks["net_terms"] = nn.ModuleDict(trained)
        return networks

    def parts(self) -> list[Any]:
        """As RestorationModel, and the discriminator's."""
        return [*super().parts(), *([] if self.adversary is None else [self.adversary])]

    def compiled_networks(self) -> dict[str, nn.Module]:
        """As RestorationModel, and the teachers, but for programs, and those of several tasks: their batches differ in size."""
        nets = {teacher.key: teacher.net for teacher in self.teachers.values() if type(teacher) is Teacher}
        return {**super().compiled_networks(), **{key: net for key, net in nets.items() if not isinstance(net, Program)}}

    def baselines(self) -> dict[str, Tensor]:
        """The input, and the teacher's image."""
        images = super().baselines()
        if self.teachers:
            teacher = self.teachers["degraded"]
            images["teacher"] = self.tiling("teacher", lambda x: teacher(x, self.tasks).image, self.lq)
        return images

    def validation(self, dataloader: Any, current_iter: Any, tb_logger: Any, save_img: bool = False) -> None:
        """As RestorationModel; then the pictures of the terms that have some, for TensorBoard."""
        super().validation(dataloader, current_iter, tb_logger, save_img)
        for term in self.terms.values() if tb_logger else ():
            for name, picture in getattr(term.loss, "pictures", dict)().items():
                tb_logger.add_image(f"terms/{term.name}/{name}", picture, current_iter)


def no_negatives(model: type) -> str:
    """What is wrong with a term that needs negatives, of a model that makes none."""
    makers = [name for name, other in MODEL_REGISTRY if getattr(other, "makes_negatives", False)]
    return f"it needs negatives, which {model.__name__} does not make, expected model_type: {' or '.join(makers)}"
