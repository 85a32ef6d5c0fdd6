"""The channel paths of NAFNet (Chen et al., "Simple Baselines for Image Restoration", ECCV 2022; published parameter names)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from kd_plugins.students.paths import Axis, Layout, Path


def nafnet_layout(tensors: Mapping[str, Tensor]) -> Layout:
    """State the paths of a NAFNet.

    Args:
        tensors: its state dict.

    Returns:
        The layout. Encoder and decoder of a level share one path: their maps are added.
    """
    net = Layout(tensors)
    stream: Axis = (Path("intro", net.rows("intro")),)
    net.mix("intro", None, stream)
    net.outputs["intro"] = stream

    depth = len({name.split(".")[1] for name in tensors if name.startswith("downs.")})
    skips = []
    for level in range(depth):
        _stage(net, f"encoders.{level}", stream)
        skips.append(stream)
        down = f"downs.{level}"
        stream = (Path(down, net.rows(down)),)
        net.mix(down, skips[-1], stream)
        net.outputs[down] = stream
    _stage(net, "middle_blks", stream)
    for level in range(depth):
        skip = skips.pop()
        net.mix(f"ups.{level}.0", stream, tuple(path.subpixels() for path in skip))
        net.outputs[f"ups.{level}"] = stream = skip
        _stage(net, f"decoders.{level}", stream)
    net.mix("ending", stream, None)
    return net


def _stage(net: Layout, name: str, stream: Axis) -> None:
    for block in net.stage(name, stream):
        gated = (Path(f"{block}.gated", net.rows(f"{block}.conv2") // 2),)
        net.each(f"{block}.norm1", stream)
        net.mix(f"{block}.conv1", stream, gated + gated)  # SimpleGate multiplies the two halves
        net.each(f"{block}.conv2", gated + gated)
        net.mix(f"{block}.sca.1", gated, gated)
        net.mix(f"{block}.conv3", gated, stream)
        net.tensor(f"{block}.beta", {1: stream})

        hidden = (Path(f"{block}.hidden", net.rows(f"{block}.conv4") // 2),)
        net.each(f"{block}.norm2", stream)
        net.mix(f"{block}.conv4", stream, hidden + hidden)
        net.mix(f"{block}.conv5", hidden, stream)
        net.tensor(f"{block}.gamma", {1: stream})
