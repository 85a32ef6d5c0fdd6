"""Restormer students of one layout as one network: their weights side by side, so that a GPU is asked once for all of them.

A step of a small student is a thousand small kernels, and starting them is what takes the time. Here each works on all students.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from graphed import Pool, build_adam, capture, forget, learning_rates, show_from
from torch import Tensor

Weights = Mapping[str, Tensor]


class StackedRestormer:
    """R bias-free Restormers (biases in the norms alone) as one function of their weights.

    Args:
        net: one of them, for its layout.
    """

    def __init__(self, net: Any) -> None:
        self.names = [name for name, _ in net.named_parameters()]
        self.shapes = [p.shape for p in net.parameters()]
        self.sizes = [p.numel() for p in net.parameters()]
        self.blocks = {name: len(stage) for name, stage in net.named_children() if isinstance(stage, torch.nn.Sequential)}
        self.heads = {name: getattr(net, name)[0].attn.num_heads for name in self.blocks}

    def __call__(self, flat: Tensor, image: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Restore a batch for each.

        Args:
            flat: (R, P), all weights.
            image: (N, R, 3, H, W), sides divisible by 8.

        Returns:
            The images, (N, R, 3, H, W), and by name what each stage returns, (N, R, C, h, w).
        """
        parts = flat.split(self.sizes, 1)
        w = {name: part.unflatten(1, shape) for name, part, shape in zip(self.names, parts, self.shapes, strict=True)}
        seen: dict[str, Tensor] = {}

        def stage(name: str, x: Tensor) -> Tensor:
            for number in range(self.blocks[name]):
                x = _block(w, f"{name}.{number}.", x, self.heads[name])
            seen[name] = x
            return x

        def up(name: str, x: Tensor) -> Tensor:
            return F.pixel_shuffle(_dense(w[f"{name}.body.0.weight"], x), 2)

        def down(name: str, x: Tensor) -> Tensor:
            return F.pixel_unshuffle(_dense(w[f"{name}.body.0.weight"], x), 2)

        level1 = stage("encoder_level1", _dense(w["patch_embed.proj.weight"], image))
        level2 = stage("encoder_level2", down("down1_2", level1))
        level3 = stage("encoder_level3", down("down2_3", level2))
        latent = stage("latent", down("down3_4", level3))
        up3 = _pointwise(w["reduce_chan_level3.weight"], torch.cat([up("up4_3", latent), level3], 2))
        up2 = torch.cat([up("up3_2", stage("decoder_level3", up3)), level2], 2)
        up1 = stage("decoder_level2", _pointwise(w["reduce_chan_level2.weight"], up2))
        refined = stage("refinement", stage("decoder_level1", torch.cat([up("up2_1", up1), level1], 2)))
        return _dense(w["output.weight"], refined) + image, seen


def _block(w: Weights, at: str, x: Tensor, heads: int) -> Tensor:
    n, r, c, height, width = x.shape
    y = _norm(w[f"{at}norm1.body.weight"], w[f"{at}norm1.body.bias"], x)
    y = _depthwise(w[f"{at}attn.qkv_dwconv.weight"], _pointwise(w[f"{at}attn.qkv.weight"], y))
    q, k, v = y.view(n, r, 3, heads, c // heads, height * width).unbind(2)
    lengths = [torch.linalg.vector_norm(side, dim=-1, keepdim=True).clamp_min(1e-12) for side in (q, k)]
    attention = (q @ k.mT) / (lengths[0] * lengths[1].mT) * w[f"{at}attn.temperature"]
    x = x + _pointwise(w[f"{at}attn.project_out.weight"], (attention.softmax(-1) @ v).reshape(x.shape))
    y = _norm(w[f"{at}norm2.body.weight"], w[f"{at}norm2.body.bias"], x)
    y = _depthwise(w[f"{at}ffn.dwconv.weight"], _pointwise(w[f"{at}ffn.project_in.weight"], y))
    gate, value = y.chunk(2, 2)
    return x + _pointwise(w[f"{at}ffn.project_out.weight"], F.gelu(gate) * value)


def _norm(weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    centred = x - x.mean(2, keepdim=True)
    scale = torch.rsqrt(centred.square().mean(2, keepdim=True) + 1e-5)
    return torch.addcmul(bias[..., None, None], centred * scale, weight[..., None, None])


def _pointwise(weight: Tensor, x: Tensor) -> Tensor:
    return (weight.flatten(2) @ x.flatten(3)).unflatten(3, x.shape[3:])


def _depthwise(weight: Tensor, x: Tensor) -> Tensor:
    count = x.shape[1] * x.shape[2]
    return F.conv2d(x.flatten(1, 2), weight.flatten(0, 1), padding=1, groups=count).unflatten(1, x.shape[1:3])


def _dense(weight: Tensor, x: Tensor) -> Tensor:
    """One convolution with zeros between the networks: a grouped one is slower where a GPU multiplies matrices."""
    r, c_out = weight.shape[:2]
    whole = weight.unsqueeze(2) * torch.eye(r, device=x.device).view(r, 1, r, 1, 1, 1)
    return F.conv2d(x.flatten(1, 2), whole.flatten(2, 3).flatten(0, 1), padding=1).unflatten(1, (r, c_out))


class _Taps(contextlib.nullcontext):
    """In place of a model's taps: its part of the stack's features."""

    def __init__(self, layers: Sequence[str], feature: Callable[[str], Tensor]) -> None:
        super().__init__()
        self.layers, self.feature = layers, feature

    def collect(self) -> dict[str, Tensor]:
        """The features by layer."""
        return {layer: self.feature(layer) for layer in self.layers}


class Stack:
    """Runs of one student layout and one length, a step of all of them at once.

    Args:
        runs: (model, pool, seed) of each.
        steps: the last iteration, at most; see `set_length`.
        batch: crops of a step.
    """

    def __init__(self, runs: Sequence[tuple[Any, Pool, int]], steps: int, batch: int) -> None:
        self.models, self.pools, self.seeds = (list(each) for each in zip(*runs, strict=True))
        self.longest, self.batch, self.done = steps, batch, 0
        first = self.models[0]
        self.device = device = first.device
        self.net = StackedRestormer(first.net_g)
        self.flat = torch.stack([torch.nn.utils.parameters_to_vector(m.net_g.parameters()) for m in self.models]).detach()
        self.mean, self.flat = self.flat.clone(), self.flat.requires_grad_()
        self.index = torch.zeros(1, dtype=torch.long, device=device)
        self.rates = torch.zeros(steps, device=device)
        self.factors: list[tuple[int, Any, Tensor]] = []
        self.order = torch.zeros(steps, len(self.models), batch, dtype=torch.long, device=device)
        self.logs: list[list[str]] = []
        self.images: Sequence[Tensor] = ()
        self.features: dict[str, Sequence[Tensor]] = {}
        self.log = torch.zeros(0)
        beside = [p for model in self.models for label, own in model.updater.trained.items() if label != "net_g" for p in own]
        self.optimizer, self.rate = build_adam(first.opt["train"], [self.flat, *beside], device)
        self.bound, self.decay = first.updater.grad_bound, first.updater.ema_decay
        for number, model in enumerate(self.models):
            self._bind(number, model)
        self.set_length(steps)
        self.stream = torch.cuda.Stream() if device.type == "cuda" else None
        self.graph: Any = None
        self.changed = [self.flat, self.mean, self.index, *beside]
        self.start = [tensor.detach().clone() for tensor in self.changed]
        if self.stream:
            self.graph = capture(self._step, self.stream)
            self.stream.synchronize()
            self.reset()

    def set_length(self, steps: int) -> None:
        """Set the last iteration: rates, fades and order are those of a run of this length."""
        self.steps, opt = steps, self.models[0].opt["train"]
        schedule = {**opt, "scheduler": {**opt["scheduler"], "T_max": steps}}
        self.rates[:steps] = torch.tensor(learning_rates(schedule, steps))
        share = self.longest / steps
        for every, weight, table in self.factors:
            places = ((step, round(step * share)) for step in range(1, steps + 1))
            table[:steps] = torch.tensor([0.0 if step % every else weight(place - place % every) for step, place in places])
        known: dict[tuple[int, int], Tensor] = {}
        for number, (pool, seed) in enumerate(zip(self.pools, self.seeds, strict=True)):
            if (id(pool), seed) not in known:
                known[id(pool), seed] = pool.order(seed, steps, self.batch)
            self.order[:steps, number] = known[id(pool), seed].to(self.device)

    @torch.no_grad()
    def reset(self) -> None:
        """Begin anew."""
        for tensor, value in zip(self.changed, self.start, strict=True):
            tensor.copy_(value)
        forget(self.optimizer)
        self.done = 0

    def _bind(self, number: int, model: Any) -> None:
        """Let a model's losses read its part of the stack."""
        model.net_own, layers = model.net_g, list(model.taps.layers)
        model.net_g = lambda lq: self.images[number]
        model.taps = _Taps(layers, lambda layer: self.features[layer][number])
        model.terms_at = lambda iteration: list(model.terms.values())
        for term in model.terms.values():
            table = torch.zeros(self.longest, device=self.device)
            self.factors.append((term.every, term.weight, table))
            term.weight = lambda *_, table=table: table.index_select(0, self.index)[0]
        if model.terms:
            model.active = list(model.terms.values())
            show_from(model, self.pools[number], lambda: self.picked[number], as_recorded=True)

    def _step(self) -> None:
        self.picked = self.order.index_select(0, self.index)[0]
        pairs = [(pool.lq.index_select(0, p), pool.gt.index_select(0, p)) for pool, p in zip(self.pools, self.picked, strict=True)]
        lq, gt = (torch.stack(each, 1).float() for each in zip(*pairs, strict=True))
        self.optimizer.zero_grad(set_to_none=True)
        images, features = self.net(self.flat, lq)
        self.images, self.features = images.unbind(1), {name: feature.unbind(1) for name, feature in features.items()}
        found: list[dict[str, Tensor]] = []
        for number, model in enumerate(self.models):
            model.feed_data({"lq": lq[:, number], "gt": gt[:, number]})
            model.shares.clear()
            losses = model.compute_losses()
            shares = {f"trust/{term.name}": term.share for term in model.terms.values() if term.share is not None}
            found.append({**losses, **shares})
        torch.stack([v.float() for each in found for name, v in each.items() if name.startswith("l_")]).sum().backward()
        grad: Any = self.flat.grad
        with torch.no_grad():
            if self.bound:
                grad.mul_((self.bound / (grad.norm(dim=1, keepdim=True) + 1e-6)).clamp_(max=1.0))
            self.rate.copy_(self.rates.index_select(0, self.index)[0])
        self.optimizer.step()
        with torch.no_grad():
            self.mean.lerp_(self.flat, 1 - self.decay)
            values = torch.stack([v.detach().float() for each in found for v in each.values()])
            if not self.logs:
                self.logs, self.log = [list(each) for each in found], torch.zeros(self.longest, len(values), device=self.device)
            self.log.index_copy_(0, self.index, values[None])
            self.index.add_(1).clamp_(max=self.longest - 1)

    def advance(self, steps: int) -> None:
        """Take steps, and wait for the last of them."""
        if self.stream is None:
            for _ in range(steps):
                self._step()
        else:
            with torch.cuda.stream(self.stream):
                for _ in range(steps):
                    self.graph.replay()
            self.stream.synchronize()
        self.done += steps

    @torch.no_grad()
    def averaged(self, number: int) -> Any:
        """The network of one run, with its averaged weights."""
        net = self.models[number].net_g_ema
        torch.nn.utils.vector_to_parameters(self.mean[number], net.parameters())
        return net
