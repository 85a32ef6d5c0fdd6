"""A student that starts from its teacher's weights [ours]: which blocks and channels it keeps, and at what scale.

Nothing here knows a network: which layers share channels is found in one forward pass (`trace.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from kd_plugins.archs.adapter import Adapter
from kd_plugins.arguments import checked
from kd_plugins.features.layer_outputs import evaluating, example_images
from kd_plugins.features.taps import refuse_untappable
from kd_plugins.students.depth import kept_blocks, without_others
from kd_plugins.students.refit import LAYERS, Source, refit
from kd_plugins.students.selection import Selection, Shuffle, kept_rows, lookup, take
from kd_plugins.students.trace import Graph, Plan, trace

Channels = Literal["magnitude", "first", "importance"]
_SIZES = ((32, 32), (64, 64), (48, 48), (56, 56), (128, 128))  # squares: some networks take nothing else


@torch.no_grad()
@checked
def inherit(
    student: nn.Module,
    teacher: nn.Module,
    channels: Channels = "magnitude",
    importance: Mapping[str, Tensor] | None = None,
    images: Tensor | None = None,
) -> dict[str, Tensor]:
    """Fill a narrower or shallower student with its teacher's weights, in place [ours].

    Blocks are kept at even spacing (`even_blocks`). Channels are chosen once for all layers that share them: a residual stream, the
    two halves of a gate, queries with keys, both ends of a skip or a pixel shuffle; each attention head keeps equally many. Which
    ones these are is read off one forward pass of each network, and proven on the teacher: its channels, shuffled accordingly, make
    the same image. A layer that now sums over fewer channels is scaled by the ratio of its weight's norms, before over after, so
    that its output keeps its size: the square root of the ratio of widths where all channels weigh alike, 1 where only dead ones
    are dropped; not where it sums over means (of values that attention weighs by channels), which grow by themselves. With `images`
    the layers are then fitted to the teacher's answers (`refit`). Where nothing is left out, the student is the teacher, bit for
    bit.

    Args:
        student: the network to fill; its parameters stay the same objects.
        teacher: a network of the same class, at least as wide and deep everywhere.
        channels: 'magnitude' keeps the channels with the largest sum of squared weights, over all kept layers that have them;
            'importance' those with the largest sum of `importance`; 'first' the first ones.
        importance: for each of the teacher's parameters by name, a tensor of its shape: see `first_order`.
        images: degraded ones, (N, C, H, W): the layers of a student that lost something are fitted on them.

    Returns:
        For each module of the student that puts out one map (N, C, H, W) of inherited channels, the (C,) LongTensor, on the CPU, of
        the teacher's channels that they are: channel i is the teacher's kept[i].

    Raises:
        ValueError: the class is not the teacher's, the student is wider or deeper somewhere, or it differs in what cannot be cut
            out of the teacher (image channels, number of levels, kind of norm, range of values), or the network does to channels
            what is not understood (module and operation are named). The student is then as it was.
    """
    if channels == "importance" and importance is None:
        raise ValueError("inherit: channels='importance' without `importance`, expected that of each of the teacher's parameters")
    if type(student) is not type(teacher):
        raise ValueError(
            f"inherit: the student is a {type(student).__name__}, the teacher a {type(teacher).__name__}: expected the same class"
        )
    for net in (student, teacher):
        refuse_untappable(net)
    for key in ("value_range", "mean"):
        mine, theirs = (getattr(Adapter.on(net, attach=False), key) for net in (student, teacher))
        if mine != theirs:
            raise ValueError(f"inherit: {key}: the student's is {mine}, the teacher's {theirs}: its weights are for such values")
    weights = {name: tensor for name, tensor in teacher.named_parameters()}
    worth = {id(p): (importance or {}).get(name) for name, p in weights.items()}
    blocks = kept_blocks(student, teacher)
    with without_others(teacher, blocks):
        theirs, mine = teacher.state_dict(keep_vars=True), student.state_dict()
        plan = plan_labels(student, teacher)
        image, graphs = _trace_both(student, teacher, plan)
        scores: dict[str, Tensor] = {}
        if channels != "first":
            for name in plan:
                found = worth.get(id(theirs[name])) if channels == "importance" else theirs[name].square()
                scores[name] = torch.zeros_like(theirs[name]) if found is None else found
        selection = Selection(*graphs, scores if channels != "first" else None)
        if plan:
            _prove(teacher, plan, graphs[1], Shuffle(graphs[1], selection.narrowed).chosen, image)
        filled = {name: take(theirs[name], name, plan.get(name, ()), graphs, selection.chosen) for name in mine if name in theirs}
        outputs = _outputs(graphs, selection.chosen)
        sources = {
            name: Source(layer, kept_rows(theirs[weight], weight, plan.get(weight, ()), graphs, selection.chosen))
            for name, layer in teacher.named_modules()
            if isinstance(layer, LAYERS) and (weight := f"{name}.weight") in filled
        }
    with _restored(mine):
        for name, tensor in filled.items():
            mine[name].copy_(tensor)
        if images is not None and (plan or blocks):
            refit(student, teacher, sources, images)
    return outputs


@contextmanager
def _restored(tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Restore the tensors after an error."""
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    try:
        yield
    except BaseException:
        for name, tensor in before.items():
            tensors[name].copy_(tensor)
        raise


def plan_labels(student: nn.Module, teacher: nn.Module) -> Plan:
    """Find the dimensions in which the tensors of two networks of one structure differ.

    Raises:
        ValueError: other tensors, or a wider student.
    """
    mine, theirs = student.state_dict(), teacher.state_dict()
    trained = [{name for name, _ in net.named_parameters(remove_duplicate=False)} for net in (student, teacher)]
    if extra := sorted(trained[0] - theirs.keys()):
        raise ValueError(f"inherit: the student's {extra[0]} is not in the teacher, expected networks of one structure")
    if left := sorted(trained[1] - mine.keys()):
        raise ValueError(f"inherit: the student has nothing for the teacher's {left[0]}, expected networks of one structure")
    grouped = {f"{name}.weight" for name, module in teacher.named_modules() if getattr(module, "groups", 1) != 1}
    plan: dict[str, list[tuple[int, ...]]] = {}
    for name in (name for name in theirs if name in mine):  # a buffer of one alone is of its settings: the mask of shifted windows
        tensor = theirs[name]
        shapes = f"{name} is {tuple(mine[name].shape)}, the teacher's {tuple(tensor.shape)}"
        differ = [dim for dim, (n, m) in enumerate(zip(mine[name].shape, tensor.shape, strict=False)) if n != m]
        if mine[name].dim() != tensor.dim() or (differ and not tensor.is_floating_point()):
            raise ValueError(f"inherit: {shapes}, expected the same")
        if wider := [dim for dim in differ if mine[name].shape[dim] > tensor.shape[dim]]:
            raise ValueError(f"inherit: the student is wider: {shapes}, expected at most that along dimension {wider[0]}")
        if differ and name in grouped and tensor.dim() > 2 and tensor.shape[1] > 1:
            plan[name] = [(0,), (0, 1)] if 0 in differ else [(0, 1)]
        elif differ:
            plan[name] = [(dim,) for dim in differ]
    return plan


def _trace_both(student: nn.Module, teacher: nn.Module, plan: Plan) -> tuple[Tensor, tuple[Graph, Graph]]:
    """Find an image that both networks accept, and trace both on it."""
    parameters = [next(net.parameters()) for net in (student, teacher)]
    failed: Exception | None = None
    for size in _SIZES:
        for image in example_images(teacher, *size, torch.device("cpu")):
            try:
                with evaluating(student), evaluating(teacher):
                    student(image.to(parameters[0]))
                    teacher(image.to(parameters[1]))
            except Exception as error:  # what a network says of an image that it does not take is its own affair
                failed = failed or error
                continue
            images = [image.to(parameter) for parameter in parameters]
            return images[1], (trace(student, plan, images[0]), trace(teacher, plan, images[1]))
    for (name, mine), theirs in zip(student.named_modules(), teacher.modules(), strict=False):
        if isinstance(mine, nn.Conv2d):
            if mine.in_channels != theirs.in_channels:
                raise ValueError(
                    f"inherit: {name}.weight reads {mine.in_channels} channels of an image, the teacher's {theirs.in_channels}"
                )
            break
    reason = (str(failed).splitlines() or [type(failed).__name__])[0]
    raise ValueError(
        f"inherit: student and teacher ({type(teacher).__name__}, without the blocks that the student does not have) take none "
        f"of the images of {', '.join(f'{height}x{width}' for height, width in _SIZES)} ({reason}); `pad_to: 8` in their blocks "
        "pads them"
    ) from failed


def _prove(teacher: nn.Module, plan: Plan, graph: Graph, order: Tensor, image: Tensor) -> None:
    """Shuffle the teacher's channels and check that its image stays the same."""
    with evaluating(teacher):
        tensors = teacher.state_dict()  # in eval mode: some networks fuse weights when they are set to it
        shuffled = {name: take(tensors[name], name, layers, (graph, graph), order, scaled=False) for name, layers in plan.items()}
        before, after = teacher(image), torch.func.functional_call(teacher, shuffled, (image,))
    for old, new in zip(_tensors(before), _tensors(after), strict=True):
        if not torch.allclose(old, new, rtol=0, atol=1e-3 * float(old.abs().amax())):
            raise ValueError(
                f"inherit: the channels that weights of {type(teacher).__name__} share were not found: shuffling them changes "
                f"the image (by {float((old - new).abs().amax()):.2g}), so that no student can start from it"
            )


def _tensors(output: object) -> list[Tensor]:
    return [x for x in tree_leaves(output) if isinstance(x, Tensor)]


def _outputs(graphs: tuple[Graph, Graph], chosen: Tensor) -> dict[str, Tensor]:
    mine, theirs = (graph.outputs for graph in graphs)
    found = {}
    for name in mine.keys() & theirs.keys():
        (label, count), (whole, total) = mine[name], theirs[name]
        if label is None and whole is None and count == total:
            found[name] = torch.arange(count)
        elif label is not None and whole is not None:
            found[name] = lookup(whole, chosen[label], name)
    return {name: found[name] for name in mine if name in found}
