"""The channel paths of Restormer (archs/restormer_arch.py, and any with the published parameter names)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from kd_plugins.students.paths import Axis, Layout, Path


def restormer_layout(tensors: Mapping[str, Tensor]) -> Layout:
    """State the paths of a Restormer.

    Args:
        tensors: its state dict.

    Returns:
        The layout. A level's channels are the subpixels of the convolution that halved the size; the last level of the decoder
        runs on cat(up2_1, encoder_level1).
    """
    net = Layout(tensors)

    def path(layer: str, times: int = 1) -> Axis:
        return (Path(layer, net.rows(layer) // times),)

    embed = path("patch_embed.proj")
    net.mix("patch_embed.proj", None, embed)
    net.outputs["patch_embed"] = embed
    _stage(net, "encoder_level1", embed)

    skips = [embed]
    for level in (1, 2, 3):
        name = f"down{level}_{level + 1}"
        halved = path(f"{name}.body.0")
        net.mix(f"{name}.body.0", skips[-1], halved)
        skips.append(_subpixels(halved))
        net.outputs[name] = skips[-1]
        _stage(net, "latent" if level == 3 else f"encoder_level{level + 1}", skips[-1])

    stream = skips.pop()
    for level in (3, 2, 1):
        name = f"up{level + 1}_{level}"
        doubled = path(f"{name}.body.0", times=4)
        net.mix(f"{name}.body.0", stream, _subpixels(doubled))
        net.outputs[name] = doubled
        stream = doubled + skips.pop()
        reduce = f"reduce_chan_level{level}"
        if level > 1:
            net.mix(reduce, stream, path(reduce))
            stream = net.outputs[reduce] = path(reduce)
        _stage(net, f"decoder_level{level}", stream)
    _stage(net, "refinement", stream)
    net.mix("skip_conv", embed, stream)
    net.mix("output", stream, None)
    return net


def _subpixels(axis: Axis) -> Axis:
    return tuple(path.subpixels() for path in axis)


def _stage(net: Layout, name: str, stream: Axis) -> None:
    for block in net.stage(name, stream):
        heads = net.tensors[f"{block}.attn.temperature"].shape[0]
        width = net.rows(f"{block}.attn.project_out")
        # attention = softmax(q k^T), out = attention v: row = channel of q and of the output, column = channel of k and of v
        query = (Path(f"{block}.attn.query", width, heads),)
        key = (Path(f"{block}.attn.key", width, heads),)
        net.each(f"{block}.norm1.body", stream)
        net.mix(f"{block}.attn.qkv", stream, query + key + key)
        net.each(f"{block}.attn.qkv_dwconv", query + key + key)
        net.tensor(f"{block}.attn.temperature", {})
        net.mix(f"{block}.attn.project_out", query, stream, scaled=False)  # a mean over fewer values is larger by itself

        hidden = (Path(f"{block}.ffn.hidden", net.rows(f"{block}.ffn.dwconv") // 2),)
        net.each(f"{block}.norm2.body", stream)
        net.mix(f"{block}.ffn.project_in", stream, hidden + hidden)  # the gate and what it gates
        net.each(f"{block}.ffn.dwconv", hidden + hidden)
        net.mix(f"{block}.ffn.project_out", hidden, stream)
