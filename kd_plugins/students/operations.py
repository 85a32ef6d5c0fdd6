"""Which rule (`propagation.py`) applies to which of PyTorch's operations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from kd_plugins.students.propagation import ChannelInfo, ChannelRules, Label

_SAME = {"clone", "contiguous", "detach", "alias", "_to_copy", "lift_fresh", "native_dropout"}
_RESHAPED = {"view", "_unsafe_view", "reshape", "_reshape_alias"}
MOVED = {"permute", "transpose", "t", "squeeze", "unsqueeze", "flip", "roll", "repeat", "diagonal", "unfold"}
MOVED |= {"slice", "select", "split", "split_with_sizes", "unbind", "index", "index_select", "gather"}
MOVED |= {"pixel_shuffle", "pixel_unshuffle", "channel_shuffle"}
_POSITIONS = {  # how many of the last dimensions are positions that are mixed
    **{f"{name}{dims}d": dims for name in ("avg_pool", "reflection_pad", "replication_pad") for dims in (1, 2, 3)},
    **dict.fromkeys(("adaptive_avg_pool2d", "_adaptive_avg_pool2d", "max_pool2d_with_indices", "adaptive_max_pool2d"), 2),
    **dict.fromkeys(("upsample_nearest1d", "_upsample_nearest_exact1d", "upsample_linear1d"), 1),
    **dict.fromkeys(("upsample_nearest2d", "_upsample_nearest_exact2d", "upsample_bilinear2d", "upsample_bicubic2d"), 2),
    **dict.fromkeys(("_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa", "grid_sampler_2d"), 2),
}
_FOURIER = {"_fft_r2c", "_fft_c2r", "_fft_c2c"}
_REDUCED = {"mean", "sum", "prod", "var", "std", "var_mean", "norm", "linalg_vector_norm", "logsumexp"}
_REDUCED |= {"amax", "amin", "max", "min", "argmax", "argmin", "all", "any"}
_SOFTMAX = {"_softmax", "_log_softmax", "_safe_softmax"}
_FRESH = {"zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like", "new_zeros", "new_ones", "new_full"}
_FRESH |= {"new_empty", "new_empty_strided"}
_POINTWISE = {"_prelu_kernel", "hardswish", "rsub", "relu", "lerp", "_weight_norm_interface", "complex", "polar", "masked_fill"}
_BATCH_NORMS = {"native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm", "miopen_batch_norm"}
_BATCH_NORMS |= {"_native_batch_norm_legit", "_batch_norm_no_update"}

Find = Callable[[Any], ChannelInfo]


def apply(
    rules: ChannelRules, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: list[Any], of: Find
) -> list[ChannelInfo]:
    """Tell the channels of an operation's outputs.

    Args:
        rules: the rules, with what is known so far; updated.
        func: the operation.
        args: its arguments.
        kwargs: those by name.
        outputs: what it returned.
        of: tells what is known of a tensor.

    Raises:
        ValueError: there is no rule for it; the message continues a sentence that starts with the operation's name.
    """
    name = func._schema.name.removeprefix("aten::").rstrip("_") or func._schema.name
    given = {argument.name: argument.default_value for argument in func._schema.arguments if argument.has_default_value()}
    given.update(zip((argument.name for argument in func._schema.arguments), args, strict=False))
    given.update(kwargs)
    x = args[0]
    if name in _FRESH:
        return []
    if name in _SAME or (name == "as_strided" and outputs[0].shape == x.shape):  # pooling: only the order in memory
        return [of(x)]
    if name == "copy":
        if of(args[1]).labels and not of(x).labels:
            raise ValueError("writes channels over what has none")
        return [rules.pointwise(x.dim(), [of(x), of(args[1])])]
    if name in _RESHAPED:
        labels = [replace(label, ids=label.ids.expand(x.shape).reshape(outputs[0].shape)) for label in of(x).labels]
        return [replace(of(x), labels=tuple(replace(label, ids=rules.channels.compact(label.ids)) for label in labels))]
    if name == "expand":
        lead = (None,) * (outputs[0].dim() - x.dim())
        return [replace(of(x), labels=tuple(replace(label, ids=label.ids[lead]) for label in of(x).labels))]
    if name in MOVED:
        if any(of(other).labels for other in tree_leaves((args[1:], kwargs)) if isinstance(other, Tensor)):
            raise ValueError("picks by what depends on channels")
        rest, options = tree_map(lambda y: y.cpu() if isinstance(y, Tensor) else y, (args[1:], kwargs))
        moved = rules.move(func, x.shape, of(x), rest, options)
        if name == "pixel_shuffle":  # the subpixels of one channel
            moved = [replace(each, labels=rules.spread(each.labels, (x.dim() - 2, x.dim() - 1))) for each in moved]
        return moved
    if name == "glu":
        halves = rules.move(lambda ids: ids.chunk(2, given["dim"]), x.shape, of(x), (), {})
        return [rules.pointwise(x.dim(), halves)]
    if name in ("cat", "stack"):
        return [_cat(rules, name, list(x), given["dim"], of)]
    if name in ("constant_pad_nd", "im2col", *_FOURIER) or name in _POSITIONS:
        return _positions(rules, name, x, given, outputs, of(x))
    if name in _REDUCED:
        return [_reduced(rules, x, of(x), given, output) for output in outputs]
    if name in _SOFTMAX:
        return [replace(of(x), soft=bool(rules.along(of(x).labels, given["dim"] % x.dim(), x.shape[given["dim"]])))]
    if name in _BATCH_NORMS or name in ("native_layer_norm", "native_group_norm", "_fused_rms_norm"):
        return [_norm(rules, name, x, given, of)]
    if name in ("mm", "bmm"):
        return [rules.matmul(x, args[1], of(x), of(args[1]))]
    if name in ("addmm", "baddbmm"):
        product = rules.matmul(args[1], args[2], of(args[1]), of(args[2]))
        return [rules.pointwise(outputs[0].dim(), [product, of(x)])]
    if name == "convolution":
        product = rules.convolution(x, args[1], of(x), of(args[1]), given["transposed"], given["groups"])
        bias = [replace(label, ids=_channelwise(label.ids, x.dim())) for label in of(args[2]).labels]
        return [replace(rules.pointwise(x.dim(), [product, ChannelInfo(tuple(bias))]), averaged=product.averaged)]
    if name in _POINTWISE or torch.Tag.pointwise in func.tags:
        return [
            rules.pointwise(output.dim(), [of(y) for y in tree_leaves((args, kwargs)) if isinstance(y, Tensor)])
            for output in outputs
        ]
    raise ValueError("is not understood")


def _channelwise(ids: Tensor, rank: int) -> Tensor:
    """The ids of one value for each channel, beside maps (N, C, ...)."""
    return ids.reshape(1, -1, *[1] * (rank - 2))


def _cat(rules: ChannelRules, name: str, tensors: list[Tensor], dim: int, of: Find) -> ChannelInfo:
    info = [of(tensor) for tensor in tensors]
    if name == "stack":
        dim %= tensors[0].dim() + 1
        info = [replace(each, labels=tuple(replace(label, ids=label.ids.unsqueeze(dim)) for label in each.labels)) for each in info]
        tensors = [tensor.unsqueeze(dim) for tensor in tensors]
    else:
        kept = [index for index, tensor in enumerate(tensors) if tensor.numel()]
        tensors, info = [tensors[index] for index in kept], [info[index] for index in kept]
    return rules.cat(tensors, info, dim)


def _positions(
    rules: ChannelRules, name: str, x: Tensor, given: dict[str, Any], outputs: list[Any], info: ChannelInfo
) -> list[ChannelInfo]:
    """An operation that mixes positions but not channels."""
    if name == "constant_pad_nd":
        pad = given["pad"]
        dims = tuple(x.dim() - 1 - index // 2 for index in range(0, len(pad), 2) if pad[index] or pad[index + 1])
        channels = {dim for dim in dims for label in info.labels if label.ids.shape[dim] > 1}
        if any(label.ids.numel() == label.ids.shape[dim] for dim in channels for label in info.labels):
            raise ValueError("pads channels")
    elif name in _FOURIER:
        dims = tuple(given["dim"])
    else:
        dims = tuple(range(x.dim() - _POSITIONS.get(name, 2), x.dim()))
    labels = rules.spread(info.labels, dims)
    if name == "im2col":
        window = given["kernel_size"][0] * given["kernel_size"][1]
        labels = tuple(
            replace(label, ids=ids.flatten(2).repeat_interleave(window if ids.shape[1] > 1 else 1, 1))
            for label in labels
            for ids in [label.ids]
        )
    return [replace(info, labels=labels) for _ in outputs]


def _reduced(rules: ChannelRules, x: Tensor, info: ChannelInfo, given: dict[str, Any], output: Tensor) -> ChannelInfo:
    dims = given.get("dim")
    dims = range(x.dim()) if dims is None or dims == [] else [dims] if isinstance(dims, int) else dims
    dims = [dim % x.dim() for dim in dims]
    labels = info.labels
    for dim in dims:
        labels = rules.sum_over(labels, dim, x.shape[dim])
    if output.dim() < x.dim():
        labels = tuple(
            Label(label.ids.reshape([size for dim, size in enumerate(label.ids.shape) if dim not in dims])) for label in labels
        )
    return ChannelInfo(labels)


def _norm(rules: ChannelRules, name: str, x: Tensor, given: dict[str, Any], of: Find) -> ChannelInfo:
    """A normalisation with one weight for each channel."""
    info = of(x)
    weights = [given.get(key) for key in ("weight", "bias", "running_mean", "running_var")]
    if name in ("native_layer_norm", "_fused_rms_norm"):
        beside = [of(weight) for weight in weights if weight is not None]
    else:
        all_ids = [_channelwise(label.ids, x.dim()) for weight in weights if weight is not None for label in of(weight).labels]
        beside = [ChannelInfo((Label(ids),)) for ids in all_ids]
    if name == "native_group_norm" and given["group"] > 1:
        for label in rules.along(info.labels, 1, x.shape[1]):
            ids = rules.channels.collapse(label.ids, tuple(range(2, x.dim())))
            rules.channels.groups(ids.reshape(len(ids), given["group"], -1), 2)
    return rules.pointwise(x.dim(), [info, *beside])
