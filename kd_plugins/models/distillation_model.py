"""The generic distillation model: a student, a frozen teacher, and a sum of terms."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from basicsr.utils import get_root_logger
from basicsr.utils.registry import MODEL_REGISTRY
from torch import Tensor, nn

from kd_plugins import distributed
from kd_plugins.arguments import require, spec_of
from kd_plugins.features import FeatureTaps, Pair, ScaleConversion, find_pairs, fit_sizes
from kd_plugins.features.layer_outputs import example_channels
from kd_plugins.models.dry_run import compare_networks, example_input, try_student
from kd_plugins.models.sanity_check import sanity_check
from kd_plugins.models.student_init import explicit_student, start_student, starts_from_weights
from kd_plugins.models.supervised import SupervisedModel
from kd_plugins.models.terms import OUTPUT, VIEWS, Step, Term, build_terms, compared, merge_terms
from kd_plugins.teachers import (
    WRONG_ARGUMENTS,
    Observation,
    Teacher,
    ViewTransform,
    build_teacher,
    observe,
    padded_block,
    student_block,
    zoom_in,
)
from kd_plugins.teachers.network_description import described
from kd_plugins.training.precision import Precision


@MODEL_REGISTRY.register()
class DistillationModel(SupervisedModel):
    """Trains a student under a frozen teacher; the terms come from the option file.

    Option keys beside SRModel's:
        network_g: also from the sources of a teacher (docs/teachers.md), or made of the teacher (docs/students.md).
        teacher: the teacher, or one for each task (see `build_teacher`); without it this is plain training.
        teacher_clean: a second teacher, of the same layout, for the clean view.
        init: `teacher` starts the student from the teacher's weights, `random` (default) does not; see `read_init`.
        features: the pairs of layers by group (see `find_pairs`).
        train: distill: the terms (see `build_terms`), added to the class's own; `name: ~` takes one out.
        train: transforms: probabilities of the `transformed` view (see `ViewTransform`).
        train: pixel_opt, perceptual_opt: against the clean image; training data may have none (see `SupervisedModel`).
        train: grad_clip, max_bad_steps: see `UpdatedModel`.
        amp: `bf16` runs training steps under autocast. channels_last: memory layout of the networks.

    A method is a subclass that says which terms it has.
    """

    default_terms: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    makes_negatives: ClassVar[bool] = False  # whether its terms may ask for them: see `make_negatives`
    option_blocks: ClassVar[Mapping[str, Any]] = {}
    """The further blocks of the option file that the class reads, each as the class or function whose arguments are its keys, or
    as a mapping of keys to type hints and such: `{"my_method": {"rate": Annotated[float, Above(0)], "history": History}}`."""

    def __init__(self, opt: dict[str, Any]) -> None:
        self.check_option_blocks(opt)
        self.precision = Precision(opt)
        self.teachers = {}
        self.terms: dict[str, Term] = {}
        self.active: list[Term] = []  # those that are computed in the step
        self.scm: nn.Module | None = None
        self.zoomed: list[Tensor] = []  # what the student sees beside `lq`, and its image of it
        student = student_block(explicit_student(opt))
        try:
            super().__init__({**opt, "network_g": student})
        except WRONG_ARGUMENTS as error:
            if hasattr(self, "net_g"):  # it is built: the error is not about its arguments
                raise
            raise ValueError(f"network_g: {student['type']}: {str(error) or type(error).__name__}") from error
        if not self.is_train:
            self._fit_student()
            if opt.get("teacher"):
                self._build_teachers()

    @classmethod
    def check_option_blocks(cls, opt: Mapping[str, Any]) -> None:
        """Hold the further blocks to what they may hold.

        Raises:
            ValueError: an unknown key, or a wrong value.
        """
        for key, what in cls.option_blocks.items():
            require(spec_of(what, key), opt.get(key), (key,))

    # ------------------------------------------------------------------------------------------------ building

    def model_to_device(self, net: nn.Module) -> nn.Module:
        """As BasicSR's, in the memory layout of the option file, and with batch norms that see the batches of all processes.

        Raises:
            ValueError: see `convert_sync_batchnorm`.
        """
        net = self.precision.to_memory_format(net)
        return super().model_to_device(distributed.convert_sync_batchnorm(net, self.device) if self.is_train else net)

    def print_network(self, net: nn.Module) -> None:
        """One line; the table of networks says the rest."""
        parameters = sum(p.numel() for p in net.parameters())
        get_root_logger().info(f"Network: {type(self.get_bare_model(net)).__name__}, with parameters: {parameters:,d}")

    def init_training_settings(self) -> None:
        """Build teacher, start, conversion and terms, then what SRModel builds (`SupervisedModel`)."""
        self._fit_student()
        self._build_teachers()
        teacher = self.teachers["degraded"].net if self.teachers else None
        student = self.get_bare_model(self.net_g)
        kept = start_student(student, teacher, self.opt)
        if self.teachers:
            sanity_check(self.opt, self.teachers["degraded"], student if starts_from_weights(self.opt) else None, self.device)
        self._build_terms(kept)
        super().init_training_settings()
        if hasattr(self, "net_g_ema"):
            self.precision.to_memory_format(self.net_g_ema)

    def _fit_student(self) -> None:
        """Pad the student's images to the sizes that it takes; its copies (EMA, history) are built from a block that says so."""
        student = self.get_bare_model(self.net_g)
        if sizes := fit_sizes(student, example_channels(student), "network_g"):
            self.opt["network_g"] = padded_block(self.opt["network_g"], sizes)
            self._network = self._network and described(self.opt["network_g"])
        if self.is_train:
            x = example_input(student, self.opt, self.device)
            self.channels = x.shape[1]
            try_student(student, x)

    def _build_teachers(self) -> None:
        if not self.opt.get("teacher"):
            if self.default_terms:
                raise ValueError(f"{self.opt['model_type']}: no `teacher` block in the option file, expected {{checkpoint: FILE}}")
            return
        teacher = self._build_teacher("teacher")
        self.teachers = dict.fromkeys(VIEWS, teacher)
        if self.opt.get("teacher_clean"):
            self.teachers["clean"] = self._build_teacher("teacher_clean")
        student = self.get_bare_model(self.net_g)
        x = example_input(student, self.opt, self.device)
        for each in dict.fromkeys(self.teachers.values()):
            each.fit_sizes(x.shape[1])
            each.try_out(x)
        compare_networks(teacher.net, student, x, int(self.opt.get("scale") or 1))

    def _build_teacher(self, key: str) -> Teacher:
        return self.precision.to_memory_format(build_teacher(self.opt[key], key)).to(self.device)

    def term_blocks(self) -> dict[str, Any]:
        """The blocks of the terms by name: the class's own, changed and added to by the option file."""
        return merge_terms(self.default_terms, self.opt["train"].get("distill") or {})

    def _build_terms(self, kept: Mapping[str, Tensor]) -> None:
        blocks = self.term_blocks()
        used = {group for block in blocks.values() if isinstance(block, Mapping) for group in compared(block)} - {OUTPUT}
        self.pairs: dict[str, list[Pair]] = {}
        if blocks and not self.teachers:
            raise ValueError("train:distill has terms, but the option file has no `teacher` block")
        student = self.get_bare_model(self.net_g)
        if used:
            pairs = find_pairs(self.opt.get("features"), student, self.teachers["degraded"].net)
            self.pairs = {group: value for group, value in pairs.items() if group in used}
        self.terms = build_terms(blocks, self.pairs, self.device, self.opt["train"].get("total_iter"))
        self.active = list(self.terms.values())
        if self.wants_negatives and not self.makes_negatives:
            asking = next(name for name, term in self.terms.items() if "negatives" in term.asks)
            raise ValueError(f"train:distill:{asking}: {no_negatives(type(self))}")
        self.transform = self._build_transform()
        for term in self.terms.values():
            for module in term.loss.modules():
                if use_teacher := getattr(module, "use_teacher", None):  # an extractor that looks through the teacher's own network
                    use_teacher(self.teachers["degraded"].net)
        self.taps = FeatureTaps(student, [pair.student for pairs in self.pairs.values() for pair in pairs])
        for teacher in set(self.teachers.values()):
            teacher.tap(pair.teacher for pairs in self.pairs.values() for pair in pairs)
        for term in self.terms.values():
            distributed.broadcast_parameters(p for p in term.loss.parameters() if p.requires_grad)
        if self.pairs:
            self._build_scm(student, kept)

    @property
    def wants_negatives(self) -> bool:
        """Whether a term asks for negatives."""
        return any("negatives" in term.asks for term in self.terms.values())

    def _build_transform(self) -> ViewTransform:
        options = self.opt["train"].get("transforms") or {}
        try:
            return ViewTransform(**options)
        except TypeError as error:
            raise ValueError(f"train:transforms: {options!r}: {error}") from None

    @torch.no_grad()
    def _build_scm(self, student: nn.Module, kept: Mapping[str, Tensor]) -> None:
        x = example_input(student, self.opt, self.device)
        student(x)
        mine = self.taps.collect()
        theirs, *_ = [teacher.try_out(x).features for teacher in dict.fromkeys(self.teachers.values())]
        for layer, feature in (*mine.items(), *theirs.items()):
            if feature.dim() != 4:
                raise ValueError(
                    f"features: layer {layer!r} returns {tuple(feature.shape)}, expected one map (N, C, H, W); "
                    "`basicsr layers -opt FILE` shows what each layer returns"
                )
        read = {group for term in self.terms.values() if term.reads_conversion for group in term.between}
        self.converted = {group: pairs for group, pairs in self.pairs.items() if group in read}
        if not self.converted:
            return
        scm = ScaleConversion(
            {group: [mine[pair.student].shape[1] for pair in pairs] for group, pairs in self.converted.items()},
            {group: [theirs[pair.teacher].shape[1] for pair in pairs] for group, pairs in self.converted.items()},
        )
        for group, pairs in self.converted.items():
            for stage, pair in enumerate(pairs):
                if pair.student == pair.teacher and pair.student in kept:
                    scm.start_as_selection(group, stage, kept[pair.student])
        self.scm = self.model_to_device(scm)

    # ------------------------------------------------------------------------------------------------ a step

    def compute_losses(self) -> OrderedDict[str, Tensor]:
        """Every term of the sum that has a weight by now, by the name it is logged under."""
        self.require_truth()
        if self.lq.shape[1] != self.channels:
            try_student(self.get_bare_model(self.net_g), self.lq[:1])
        self.active = self.terms_at(self.iteration)
        if self.active and self.opt["dist"]:  # what processes average has a gradient in all of a step, or in nothing of it
            self.active = list(self.terms.values())
        if "zoomed" in self.views:
            crop = zoom_in(self.gt, self.lq)
            self.output, image = self.net_g(torch.cat([self.lq, crop])).chunk(2)
            self.zoomed = [crop, image]
        else:
            self.output, self.zoomed = self.net_g(self.lq), []
        losses = self.truth_losses()
        if self.active:
            step = self._observe()
            losses.update({f"l_{term.name}": term(step) for term in step.terms})
        return losses

    def get_current_log(self) -> Mapping[str, float]:
        """The losses of the last step, and the share of pixels at which each term with `trust` was trusted."""
        shares = {term.name: term.share for term in self.terms_at(self.iteration)}
        faded = {f"l_{term.name}" for term in self.active if term.name not in shares}  # 0, in several processes
        losses = {name: value for name, value in self.losses.items() if name not in faded}
        shares = {f"trust/{name}": share for name, share in shares.items() if share is not None}
        return self.reduce_loss_dict({**losses, **shares})

    @property
    def views(self) -> list[str]:
        """The views that the terms of the step ask for."""
        return list(dict.fromkeys(term.view for term in self.active))

    def show(self) -> dict[str, Observation]:
        """Show the teacher, in one batch, every view that a term asks for: what it made of each."""
        make = {
            "degraded": lambda: self.lq,
            "clean": lambda: self.gt,
            "transformed": lambda: self.transform.apply(self.lq),
            "zoomed": lambda: self.zoomed[0],
        }
        targets = observe(self.teachers, {view: make[view]() for view in self.views}, self.tasks)
        if "transformed" in targets:
            seen = targets["transformed"]
            targets["transformed"] = Observation(self.transform.undo(seen.image), seen.features)
        return targets

    def make_negatives(self) -> Tensor:
        """Images to be unlike of, (J, N, C, H, W), without gradient; for classes with `makes_negatives`."""
        raise NotImplementedError

    def _observe(self) -> Step:
        targets = self.show()
        raw = {name: feature[: len(self.lq)] for name, feature in self.taps.collect().items()}  # not of the zoomed view
        features = {group: [raw[pair.student] for pair in pairs] for group, pairs in self.pairs.items()}
        if any(term.reads_conversion for term in self.active):
            features.update(self._convert(features, next(iter(targets.values())).features))
        negatives = self.make_negatives() if any("negatives" in term.asks for term in self.active) else None
        truth = getattr(self, "gt", None)
        return Step(self.output, self.lq, raw, features, targets, negatives, self.zoomed, self.active, truth, self.iteration)

    def _convert(self, own: Mapping[str, list[Tensor]], theirs: Mapping[str, Tensor]) -> dict[str, list[Tensor]]:
        assert self.scm is not None
        return self.scm(
            {group: own[group] for group in self.converted},
            {group: [theirs[pair.teacher] for pair in pairs] for group, pairs in self.converted.items()},
        )

    def nondist_validation(self, dataloader: Any, current_iter: Any, tb_logger: Any, save_img: bool) -> None:
        """As SupervisedModel; then the pictures of the terms that have some, for TensorBoard."""
        super().nondist_validation(dataloader, current_iter, tb_logger, save_img)
        for term in self.terms.values() if tb_logger else ():
            for name, picture in getattr(term.loss, "pictures", dict)().items():
                tb_logger.add_image(f"terms/{term.name}/{name}", picture, current_iter)

    # ------------------------------------------------------------------------------------------------ saving

    def kept_beside(self) -> dict[str, nn.Module]:
        """The conversion module (net_scm_*.pth) and the terms that learn (net_terms_*.pth); what asks for a gradient is trained."""
        trained = {name: term.loss for name, term in self.terms.items() if any(p.requires_grad for p in term.loss.parameters())}
        beside = {"net_scm": self.scm, "net_terms": nn.ModuleDict(trained) if trained else None}
        return {label: module for label, module in beside.items() if module is not None}

    def get_bare_model(self, net: nn.Module) -> nn.Module:
        """The network inside DataParallel, DistributedDataParallel or torch.compile."""
        net = super().get_bare_model(net)
        return getattr(net, "_orig_mod", net)


def no_negatives(model: type) -> str:
    """What is wrong with a term that needs negatives, of a model that makes none."""
    makers = [name for name, other in MODEL_REGISTRY if getattr(other, "makes_negatives", False)]
    return f"it needs negatives, which {model.__name__} does not make, expected model_type: {' or '.join(makers)}"
