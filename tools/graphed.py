"""Many trainings side by side on one GPU: the step of each is one CUDA graph, replayed on a stream of its own.

The losses, networks and schedules are those of the models that option files name. Four things differ from `basicsr train`: crops
are drawn once by the option file's dataset and shared by all runs (each seed has an order of its own, the same for all rows);
what the teacher makes of them is computed once, its features kept in half precision; random windows of losses are drawn on the
GPU; a step with numbers that are not finite is not skipped. On a CPU the same steps run without graphs.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from kd_plugins.losses import contrastive_loss, cross_net_loss, extractor_loss
from kd_plugins.models import terms
from kd_plugins.models.dckd_model import DCKDModel
from kd_plugins.teachers import Observation

_ADAMS = {"Adam": torch.optim.Adam, "AdamW": torch.optim.AdamW}


class _Numbered(Dataset):
    """Training crops by number: crop i is a function of i."""

    def __init__(self, dataset: Any, count: int) -> None:
        self.dataset, self.count = dataset, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        item = self.dataset.seeded_item(index % len(self.dataset), index)
        return item["lq"], item["gt"]


class Pool:
    """Crops on a device.

    Args:
        dataset: a `DegradedPhotoDataset` of the phase train.
        count: how many crops.
        workers: processes that draw them.
        device: where they are kept.
    """

    def __init__(self, dataset: Any, count: int, workers: int, device: torch.device) -> None:
        loader = DataLoader(_Numbered(dataset, count), min(250, count), num_workers=workers)
        parts = [[part.to(device) for part in batch] for batch in loader]
        self.lq, self.gt = (torch.cat(each) for each in zip(*parts, strict=True))
        self.seen: dict[tuple[str, str], Tensor] = {}  # what the teacher made, by view and layer; '' is its image

    @torch.no_grad()
    def observe(self, teachers: Mapping[str, Any], views: Iterable[str]) -> None:
        """Keep what the teacher makes of each crop, where it is not known yet: images, and tapped features in half precision."""
        for view in views:
            teacher, source = teachers[view], self.gt if view == "clean" else self.lq
            layers = [layer for layer in ("", *teacher._taps.layers) if (view, layer) not in self.seen]
            for start in range(0, len(source), 250) if layers else ():
                image, features = teacher(source[start : start + 250])
                for layer in layers:
                    found = features[layer].half() if layer else image
                    if start == 0:
                        self.seen[view, layer] = found.new_empty(len(source), *found.shape[1:])
                    self.seen[view, layer][start : start + 250] = found

    def order(self, seed: int, steps: int, batch: int) -> Tensor:
        """Which crops a seed sees in each step, (steps, batch)."""
        generator, rounds = torch.Generator().manual_seed(seed), -(-steps * batch // len(self.lq))
        order = torch.cat([torch.randperm(len(self.lq), generator=generator) for _ in range(rounds)])
        return order[: steps * batch].view(steps, batch)


def show_from(model: Any, pool: Pool, picked: Callable[[], Tensor], as_recorded: bool) -> None:
    """Let a model look up what its teacher makes of crops; where a view is drawn anew in each step, it asks the teacher.

    Raises:
        ValueError: such a view in steps that are repeated as they were recorded.
    """
    drawn = [view for view in model.views if view not in ("degraded", "clean")]
    if drawn and as_recorded:
        raise ValueError(f"view: {drawn[0]} is drawn anew in each step, which a graph or a stack does not do")
    if not drawn:
        pool.observe(model.teachers, model.views)
        model.show = lambda: _look_up(model, pool, picked())


def _look_up(model: Any, pool: Pool, picked: Tensor) -> dict[str, Observation]:

    def look(view: str, layer: str) -> Tensor:
        return pool.seen[view, layer].index_select(0, picked).float()

    layers = model.teachers["degraded"]._taps.layers
    return {view: Observation(look(view, ""), {layer: look(view, layer) for layer in layers}) for view in model.views}


def learning_rates(opt: Mapping[str, Any], steps: int) -> list[float]:
    """Of a `train` block with CosineAnnealingLR, for each step."""
    rate, schedule, warm = opt["optim_g"]["lr"], opt["scheduler"], max(int(opt.get("warmup_iter", -1)), 1)
    low, length = schedule.get("eta_min", 0.0), schedule["T_max"]
    rates = [low + (rate - low) * (1 + math.cos(math.pi * step / length)) / 2 for step in range(steps)]
    return [value * min((step + 1) / warm, 1.0) for step, value in enumerate(rates)]


def device_window(size: int | None, *tensors: Tensor, agreed: bool = False) -> list[Tensor]:
    """`same_window`, its place drawn on the device: a graph would repeat the one that it was captured with."""
    if size is None:
        return list(tensors)
    for dim in (-2, -1):
        side = tensors[0].shape[dim]
        places = torch.randint(max(side - size, 0) + 1, (1,), device=tensors[0].device)
        places = places + torch.arange(min(size, side), device=tensors[0].device)
        tensors = tuple(tensor.index_select(dim, places) for tensor in tensors)
    return list(tensors)


@contextlib.contextmanager
def capturable_losses() -> Iterator[None]:
    """Losses that draw windows draw them on the device."""
    modules = [vars(module) for module in (contrastive_loss, cross_net_loss, extractor_loss, terms)]
    before = [names["same_window"] for names in modules]
    for names in modules:
        names["same_window"] = device_window
    try:
        yield
    finally:
        for names, function in zip(modules, before, strict=True):
            names["same_window"] = function


def build_adam(opt: Mapping[str, Any], parameters: Sequence[Tensor], device: torch.device) -> tuple[torch.optim.Optimizer, Tensor]:
    """The optimizer of a `train` block, and its rate as a tensor that a graph may change."""
    arguments = dict(opt["optim_g"])
    adam, rate = _ADAMS[arguments.pop("type")], torch.tensor(arguments.pop("lr"), device=device)
    if device.type == "cuda":
        arguments.update(fused=True, capturable=True)
    return adam(parameters, lr=rate, **arguments), rate


def forget(optimizer: torch.optim.Optimizer) -> None:
    """Set an optimizer's moments and steps to 0."""
    for moments in optimizer.state.values():
        for tensor in moments.values():
            tensor.zero_()


def capture(step: Callable[[], None], stream: Any) -> Any:
    """A step as a graph on a stream, after three that warm it up: what they changed is the caller's to undo."""
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream), capturable_losses():
        for _ in range(3):
            step()
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            step()
    return graph


class Run:
    """One training, from a built model to scores at milestones.

    Args:
        model: a `DistillationModel` on the device, as an option file builds it.
        pool: the crops.
        steps: the last iteration.
        batch: crops of a step.
    """

    def __init__(self, model: Any, pool: Pool, steps: int, batch: int) -> None:
        self.model, self.pool, self.steps, self.batch, self.done = model, pool, steps, batch, 0
        self.device = device = model.device
        self.index = torch.zeros(1, dtype=torch.long, device=device)
        self.order = torch.zeros(steps, batch, dtype=torch.long, device=device)
        self.picked: Any = None  # the crops of a step
        self.names: list[str] = []
        self.log = torch.zeros(0)
        self.rate_at = self._table(learning_rates(model.opt["train"], steps))
        parameters = [p for own in model.updater.trained.values() for p in own]
        self.optimizer, self.rate = build_adam(model.opt["train"], parameters, device)
        for term in model.terms.values():
            term.weight = self._table([term.weight(step) for step in range(1, steps + 1)])
        model.terms_at = lambda iteration: list(model.terms.values())  # a weight of 0 is a number of the graph like another
        if model.terms:
            model.active = list(model.terms.values())
            show_from(model, pool, lambda: self.picked, device.type == "cuda")
        self.stream = torch.cuda.Stream() if device.type == "cuda" else None
        self.graph: Any = None
        self._start = [tensor.detach().clone() for tensor in self._state()]
        if self.stream:
            self.graph = capture(self._step, self.stream)

    def _table(self, values: Sequence[float]) -> Callable[..., Tensor]:
        table = torch.tensor(values, device=self.device)
        return lambda *_: table.index_select(0, self.index)[0]

    def _state(self) -> list[Tensor]:
        """All that a step changes but the optimizer's moments."""
        nets = [*self.model.networks().values(), self.model.net_g_ema]
        return [tensor for net in nets for tensor in net.state_dict(keep_vars=True).values()]

    def _step(self) -> None:
        model, pool = self.model, self.pool
        self.picked = picked = self.order.index_select(0, self.index)[0]
        model.feed_data({"lq": pool.lq.index_select(0, picked).float(), "gt": pool.gt.index_select(0, picked).float()})
        self.optimizer.zero_grad(set_to_none=True)
        model.shares.clear()  # which a training does: ten thousand small tensors between large ones cost gigabytes
        with model.precision.autocast(self.device):
            losses = model.compute_losses()
        total = torch.stack([value.float() for value in losses.values()]).sum()
        total.backward()
        if model.updater.grad_bound:
            torch.nn.utils.clip_grad_norm_(model.net_g.parameters(), model.updater.grad_bound)
        self.rate.copy_(self.rate_at())
        self.optimizer.step()
        with torch.no_grad():
            mean, own = (list(net.parameters()) for net in (model.net_g_ema, model.net_g))
            torch._foreach_lerp_(mean, own, 1 - model.updater.ema_decay)  # pyright: ignore[reportPrivateImportUsage]
            shares = {f"trust/{term.name}": term.share for term in model.terms.values() if term.share is not None}
            values = {**losses, **shares}
            if not self.names:
                self.names, self.log = list(values), torch.zeros(self.steps, len(values), device=self.device)
            self.log.index_copy_(0, self.index, torch.stack([v.detach().float() for v in values.values()])[None])
            self.index.add_(1).clamp_(max=self.steps - 1)

    @torch.no_grad()
    def reset(self, seed: int) -> None:
        """Begin anew with the crops in another order."""
        with torch.cuda.stream(self.stream) if self.stream else contextlib.nullcontext():
            for tensor, start in zip(self._state(), self._start, strict=True):
                tensor.copy_(start)
            forget(self.optimizer)
            self.order.copy_(self.pool.order(seed, self.steps, self.batch))
            self.index.zero_()
            self.log.zero_()
        self.done = 0

    def advance(self, steps: int) -> None:
        """Take steps; on a GPU they are queued."""
        with torch.cuda.stream(self.stream) if self.stream else contextlib.nullcontext():
            for _ in range(steps):
                self.graph.replay() if self.graph else self._step()
                self.done += 1
                if isinstance(self.model, DCKDModel) and self.model.history is not None:
                    self.model.history.follow(self.model._followed(), self.done)
        if self.stream:
            self.reached = self.stream.record_event()

    def idle(self) -> bool:
        """Whether all that was queued is done."""
        return self.stream is None or self.reached.query()


class Scorer:
    """PSNR as `calculate_psnr` has it, for whole validation sets on a device.

    Args:
        dataset: a validation set.
        metric: its block: `crop_border`, `test_y_channel`.
        device: where it is kept.
    """

    def __init__(self, dataset: Any, metric: Mapping[str, Any], device: torch.device) -> None:
        self.border, self.luma = int(metric["crop_border"]), bool(metric.get("test_y_channel"))
        shapes: dict[Any, list[tuple[Tensor, Tensor]]] = {}
        for item in (dataset[number] for number in range(len(dataset))):
            shapes.setdefault(item["lq"].shape, []).append((item["lq"], item["gt"]))
        self.batches = [[torch.stack(part).to(device) for part in zip(*pairs, strict=True)] for pairs in shapes.values()]

    @torch.no_grad()
    def __call__(self, net: Callable[[Tensor], Tensor]) -> float:
        """The mean PSNR of a network's images, in dB."""
        scores = []
        for lq, gt in self.batches:
            for some, truth in zip(lq.split(6), gt.split(6), strict=True):
                scores.append(self._psnr(net(some), truth))
        return float(torch.cat(scores).mean())

    def _psnr(self, image: Tensor, truth: Tensor) -> Tensor:
        pair = [x.double().clamp(0, 1).mul(255).round() for x in (image, truth)]
        if self.luma:
            weights = torch.tensor([65.481, 128.553, 24.966], dtype=torch.float64, device=image.device).view(3, 1, 1) / 255
            pair = [(x * weights).sum(1, keepdim=True) + 16 for x in pair]
        if cut := self.border:
            pair = [x[..., cut:-cut, cut:-cut] for x in pair]
        return 10 * torch.log10(255**2 / (pair[0] - pair[1]).square().flatten(1).mean(1))
