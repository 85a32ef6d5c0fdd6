"""Terms: the registered losses of the `train: distill:` block, each with what it compares."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Annotated, Any, Literal, get_args

import torch
from basicsr.archs.vgg_arch import NAMES, insert_bn
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn

from kd_plugins.arguments import AtLeast, Block, Named, build, signature_block
from kd_plugins.arguments.block_specs import Spec, house_of
from kd_plugins.extractors.sharing import sharing_extractors
from kd_plugins.features import Pair
from kd_plugins.losses.shapes import same_window
from kd_plugins.losses.trust import Trust, where_trusted
from kd_plugins.models.step import Step
from kd_plugins.training.fade import FADE, Fade, read_fade

View = Literal["degraded", "clean", "transformed", "zoomed", "zoomed_out"]
VIEWS: tuple[str, ...] = get_args(View)
IMAGE_VIEWS = ("transformed", "zoomed", "zoomed_out")  # of these the restored image alone is compared
TRUTH_VIEWS = ("clean", "zoomed")  # made of the ground truth
OUTPUT = "output"
CONTEXT = {"output": ("lq", "gt", "negatives", "encodings"), "features": ("raw", "stride")}
"""What a loss may ask for beside (student, teacher): `lq`, the degraded input; `gt`, the clean image; `negatives`, images to be
unlike of, (J, N, C, H, W); `encodings`, all these images in the space of its `extractor`, computed once for all losses that name
the same one (`Encodings`); `raw`, the student's feature before the conversion to the teacher's scale; `stride`, image pixels per
feature pixel."""
_NO_IMAGE = ("weight", "target_is_real")  # what BasicSR's WeightedTVLoss and its GAN losses take in place of a second image


@dataclass
class Term:
    """One term of the sum.

    Attributes:
        name: its name in the option file; logged as l_NAME.
        loss: called with (student, teacher), for features once for each stage, and with what else its forward asks for by name
            (`CONTEXT`).
        between: ('output',) (the restored images), or groups of the `features` block: ('encoder',), ('encoder', 'decoder'), ...
        view: what the teacher sees: 'degraded' (as the student does), 'clean', or 'transformed', the degraded image in another
            guise, which is undone on what the teacher makes of it; or what both see as a further input: 'zoomed', a crop of the
            clean image, or 'zoomed_out', the degraded image made smaller. Of the last three the restored image alone can be
            compared.
        pairs: the layers of each group.
        trust: where the term counts; None for everywhere.
        fade: the factor on its weight through the run; None for 1.
        every: it counts at each step of that many, as many times as much (`weight`).
        asks: what of `CONTEXT` the loss's forward asks for.
        reads_conversion: whether the loss looks at the student's feature at the teacher's scale; one that does not says so by an
            attribute of that name.
        window: side of the random window through which the loss looks at features, by its attribute `looks_through`; None for
            whole features. What it does not look at is not converted.
        share: how much of the last step's pixels the teacher was trusted at, a scalar in [0, 1]: by `trust`, or by what a loss that
            chooses by itself says in an attribute of that name; else None.

    Raises:
        ValueError: the loss asks for what a term between these two does not have.
    """

    name: str
    loss: nn.Module
    between: tuple[str, ...]
    view: str
    pairs: Mapping[str, Sequence[Pair]] = field(default_factory=dict)
    trust: Trust | None = None
    fade: Fade | None = None
    every: int = 1
    share: Tensor | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.asks = asked(self.loss.forward, self.between, self.view)
        if self.trust is not None and (reason := no_trust(self.view)):
            raise ValueError(reason)
        self.reads_conversion = OUTPUT not in self.between and getattr(self.loss, "reads_conversion", True)
        self.window = None if self.trust else getattr(self.loss, "looks_through", None)  # a mask is of whole features

    @property
    def truth_instead(self) -> str:
        """What an option file may say in place of what makes the term read the ground truth; nothing where it reads none."""
        return truth_instead(self.name, self.view, self.trust is not None, self.loss.forward)

    @property
    def is_trained(self) -> bool:
        """Whether the loss has parameters of its own that are trained."""
        return any(p.requires_grad for p in self.loss.parameters())

    def use_teacher(self, net: nn.Module) -> None:
        """Give the teacher's network to an extractor that looks through it (`TeacherExtractor`)."""
        for module in self.loss.modules():
            if use := getattr(module, "use_teacher", None):
                use(net)

    def weight(self, iteration: int) -> float:
        """The factor on the term at an iteration; one of factor 0 is not computed."""
        if iteration % self.every:
            return 0.0
        return self.every * (1.0 if self.fade is None else self.fade(iteration))

    def __call__(self, step: Step) -> Tensor:
        """The term's value in a step, a scalar.

        Raises:
            ValueError: the loss does not take what it is given, or makes no number of it; the message begins with the term's keys.
        """
        try:
            mask = self._mask(step)
            if OUTPUT in self.between:
                value = self._of_images(step)
            else:
                stages = [(group, stage, pair) for group in self.between for stage, pair in enumerate(self.pairs[group])]
                value = torch.stack([self._of_stage(step, mask, *stage) for stage in stages]).sum()
        except ValueError as error:
            raise ValueError(f"train:distill:{self.name}: {error}") from error
        self.share = getattr(self.loss, "share", None) if mask is None else mask.mean()
        return value * self.weight(step.iteration)

    def _mask(self, step: Step) -> Tensor | None:
        student, teacher = step.seen(self.view)[1], step.targets[self.view].image
        if (OUTPUT in self.between or self.trust) and student.shape != teacher.shape:  # L1 would stretch one to the other
            raise ValueError(
                f"the student's image is {tuple(student.shape)}, the teacher's {tuple(teacher.shape)}, expected the same: their "
                "scales, or their outputs' channels, differ"
            )
        return step.mask(self.view, self.trust)

    def _of_images(self, step: Step) -> Tensor:
        context = {"lq": step.seen(self.view)[0], "gt": step.truth(self.view), "negatives": step.negatives}
        encodings = step.encodings(self.view, self.trust)
        return self._compare(*step.images(self.view, self.trust), **context, encodings=encodings)

    def _of_stage(self, step: Step, mask: Tensor | None, group: str, stage: int, pair: Pair) -> Tensor:
        teacher, raw = step.targets[self.view].features[pair.teacher], step.raw[pair.student]
        size, stride = teacher.shape[-2:], max(round(step.output.shape[-2] / teacher.shape[-2]), 1)
        if not self.reads_conversion:
            feature = raw
        elif self.window and raw.shape[-2:] == size and step.convert is not None:
            raw, teacher = same_window(self.window, raw, teacher)
            feature = step.convert(group, stage, raw, teacher.shape[-2:])
        else:
            feature = step.converted(group, stage, pair.student, size)
        if mask is not None:
            feature = where_trusted(mask, feature, teacher if self.reads_conversion else feature.detach())
            raw = where_trusted(mask, raw, raw.detach())  # of its own width: nothing of the teacher's can stand in
        return self._compare(feature, teacher, raw=raw, stride=stride)

    def _compare(self, student: Tensor, teacher: Tensor, **context: Any) -> Tensor:
        found = self.loss(student, teacher, **{name: value for name, value in context.items() if name in self.asks})
        parts = [part for part in (found if isinstance(found, tuple) else (found,)) if part is not None]  # BasicSR's PerceptualLoss
        if not parts or not all(isinstance(part, Tensor) and part.dim() == 0 for part in parts):
            shown = tuple(found.shape) if isinstance(found, Tensor) else found
            raise ValueError(f"{type(self.loss).__name__} returns {shown!r}, expected one number")
        return sum(parts[1:], parts[0])


def asked(forward: Callable[..., Any], between: tuple[str, ...], view: str) -> set[str]:
    """What a loss is given beside (student, teacher), told from its bound `forward`.

    Raises:
        ValueError: it asks for what a term between these two does not have.
    """
    parameters = list(inspect.signature(forward).parameters)[2:]
    if reason := no_sides(forward):
        raise ValueError(reason)
    offered = CONTEXT["output" if OUTPUT in between else "features"]
    lacking = {"zoomed": ("negatives", "gt"), "zoomed_out": ("negatives",)}.get(view, ())  # they are of the degraded images
    offered = tuple(name for name in offered if name not in lacking)
    if missing := [name for name in needed(forward) if name not in offered]:
        raise ValueError(f"between: {', '.join(between)}: the loss needs {missing[0]!r}; here it can have {', '.join(offered)}")
    if view in IMAGE_VIEWS and OUTPUT not in between:
        raise ValueError(f"view: {view}: between: {', '.join(between)}, expected output: of this view images alone are compared")
    return set(parameters) & set(offered)


def no_sides(forward: Callable[..., Any]) -> str:
    """Why a loss, by its `forward`, cannot compare two images; nothing where it can."""
    second = next(islice(inspect.signature(forward).parameters, 1, None), "")
    return f"the loss takes {second!r} in place of a second image, expected one that compares two" if second in _NO_IMAGE else ""


def no_trust(view: str) -> str:
    """Why a term of a view cannot say `trust`; nothing where it can."""
    return f"trust: view: {view} has no clean image to measure by, expected another view" if view == "zoomed" else ""


def truth_instead(name: str, view: str, trusts: bool, forward: Callable[..., Any] | None) -> str:
    """See `Term.truth_instead`; `forward` is bound, or None for a loss that is not known."""
    if view in TRUTH_VIEWS:
        return f"view: degraded, or `{name}: ~`"
    if view == "zoomed_out":  # whose truth is the input
        return ""
    if forward is not None and "gt" in needed(forward):
        return f"`{name}: ~`"
    return "no `trust`: where a teacher is right is measured by the clean image" if trusts else ""


def needed(forward: Callable[..., Any]) -> list[str]:
    """What a loss cannot do without beside its two sides, told from its bound `forward`."""
    beside = list(inspect.signature(forward).parameters.values())[2:]
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [parameter.name for parameter in beside if parameter.default is parameter.empty and parameter.kind not in variadic]


def compared(block: Mapping[str, Any]) -> tuple[str, ...]:
    """What a term's block says it is `between`: one name, or a list of them."""
    between = block.get("between", OUTPUT)
    return tuple(between) if isinstance(between, (list, tuple)) else (between,)


def merge_terms(defaults: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The blocks of the terms by name: those of a model class, changed and added to by an option file.

    Args:
        defaults: the class's.
        own: the option file's. A block without `type` changes single keys of the class's; one with it stands in its place.
    """
    merged = dict(defaults)
    for name, block in own.items():
        changes = isinstance(block, Mapping) and "type" not in block
        merged[name] = {**defaults.get(name, {}), **block} if changes else block
    return merged


_OF_BASICSR: dict[str, Spec] = {  # whose losses have no annotations
    **dict.fromkeys(("loss_weight", "eps", "real_label_val", "fake_label_val"), float),
    "reduction": Literal["mean", "sum"],  # by "none" nothing can be trained
    "gan_type": Literal["vanilla", "lsgan", "wgan", "wgan_softplus", "hinge"],
    "criterion": Literal["l1", "fro"],  # its "l2" is a class that PyTorch does not have
    "vgg_type": Literal["vgg11", "vgg13", "vgg16", "vgg19", "vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn"],
    "layer_weights": Block("VGG", dict.fromkeys(insert_bn(NAMES["vgg19"]), float)),
}


def _arguments(loss: Callable[..., Any]) -> Block:
    return signature_block(loss, nested=_OF_BASICSR if house_of(loss) == "basicsr" else {})


LOSS = Named("loss", LOSS_REGISTRY, _arguments)
TERM = replace(
    LOSS,
    beside={
        "between": str | list[str],
        "view": View,
        "trust": signature_block(Trust),
        "fade": FADE,
        "every": Annotated[int, AtLeast(1)],
    },
)


def build_terms(
    opt: Mapping[str, Any], groups: Mapping[str, Sequence[Pair]], device: torch.device, total_iter: float | None = None
) -> dict[str, Term]:
    """Build the terms of a `distill` block.

    Args:
        opt: {name: {type, between, view, trust, fade, every, ...arguments of the loss}}; `name: ~` takes a default term out.
        groups: the pairs of layers, by group of the `features` block.
        device: where losses with parameters or buffers go.
        total_iter: the last iteration; None where it is not known, and nothing can fade by shares of the run.

    Returns:
        The terms by name.

    Raises:
        ValueError: an unknown `between`, or see `build`.
    """
    with sharing_extractors():
        return {name: _build_term(name, value, groups, device, total_iter) for name, value in opt.items() if value is not None}


def _build_term(
    name: str, value: Mapping[str, Any], groups: Mapping[str, Sequence[Pair]], device: torch.device, total_iter: float | None
) -> Term:
    path = ("train", "distill", name)
    loss = build(TERM, value, path).to(device)
    between, view = compared(value), value.get("view", "degraded")
    if between != (OUTPUT,) and (not between or not set(between) <= set(groups)):
        raise ValueError(f"{':'.join(path)}:between: {value['between']!r}, expected {OUTPUT}, or some of {', '.join(groups)}")
    pairs = {group: groups[group] for group in between if group in groups}
    try:
        trust = None if value.get("trust") is None else Trust(**value["trust"])
        fade = None if value.get("fade") is None else read_fade(value["fade"], total_iter)
        return Term(name, loss, between, view, pairs, trust, fade, value.get("every", 1))
    except ValueError as error:
        raise ValueError(f"{':'.join(path)}: {error}") from None
