"""How much each weight of a teacher matters to its image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from kd_plugins.features.layer_outputs import evaluating


def first_order(net: nn.Module, batches: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The first-order change of a loss when a weight is taken out: |weight * gradient|, summed over batches.

    Molchanov et al., "Importance Estimation for Neural Network Pruning", CVPR 2019, per weight and without the square. The loss is
    the L1 distance from the clean image; where there is none, the image's product with random signs [ours], whose gradient says how
    far the image moves, whatever would be right.

    Args:
        net: the network; its parameters are left as they are, with no gradient.
        batches: each with `lq` (N, C, H, W) in [0, 1], and `gt` or not.

    Returns:
        For each parameter by name, a tensor of its shape, not negative.

    Raises:
        ValueError: no batches, or clean images of another shape than the network's.
    """
    parameters = {name: p.detach().clone().requires_grad_() for name, p in net.named_parameters()}
    device = next(iter(parameters.values())).device
    total = {name: torch.zeros_like(p) for name, p in parameters.items()}
    generator, count = torch.Generator().manual_seed(0), 0
    for batch in batches:
        with evaluating(net), torch.enable_grad():
            image = torch.func.functional_call(net, parameters, (batch["lq"].to(device),))
            if "gt" in batch:
                if image.shape != batch["gt"].shape:  # a difference would stretch one to the other
                    raise ValueError(
                        f"importance: the teacher's images are {tuple(image.shape)}, the clean images {tuple(batch['gt'].shape)}, "
                        "expected the same: its scale, or its output's channels, are not the data's"
                    )
                loss = (image - batch["gt"].to(device)).abs().mean()
            else:
                signs = torch.randint(0, 2, image.shape, generator=generator) * 2.0 - 1
                loss = (image * signs.to(image)).mean()
        gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        for (name, p), gradient in zip(parameters.items(), gradients, strict=True):
            if gradient is not None:
                total[name] += (p.detach() * gradient).abs()
        count += 1
    if not count:
        raise ValueError("importance: no batches to measure it on")
    return total
