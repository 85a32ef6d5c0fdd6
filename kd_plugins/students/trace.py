"""Trace one forward pass, operation by operation, to find which channels of which weights are tied together."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kd_plugins.features.layer_outputs import evaluating
from kd_plugins.students.operations import MOVED, apply
from kd_plugins.students.propagation import ChannelInfo, ChannelRules, Label
from kd_plugins.students.union_find import ChannelUnionFind

Plan = Mapping[str, Sequence[tuple[int, ...]]]
"""For each tensor of a state dict, the dimensions that get a label: one, or two that share one (the columns of grouped rows)."""


@dataclass
class Graph:
    """How the channels of a network are tied together.

    Attributes:
        ids: for each tensor of the state dict, the channels of its labels, in the order of the plan.
        sums: which of these a sum runs over: (tensor, number of the label).
        outputs: for each module that returned one map, the ids of its channels, (C,), or None where they have none; C.
        classes: every channel, by its lowest id.
        family: for each class, which tensors it is in and which parts of maps it was taken with.
        under: for each class that is part of a whole (a head), that one.
        fixed: for each class, whether it cannot be left out.
    """

    ids: dict[str, list[Tensor]] = field(default_factory=dict)
    sums: set[tuple[str, int]] = field(default_factory=set)
    outputs: dict[str, tuple[Tensor | None, int]] = field(default_factory=dict)
    classes: list[int] = field(default_factory=list)
    family: dict[int, int] = field(default_factory=dict)
    under: dict[int, int] = field(default_factory=dict)
    fixed: set[int] = field(default_factory=set)


def trace(net: nn.Module, plan: Plan, image: Tensor) -> Graph:
    """Follow the planned dimensions of a network's tensors through one pass.

    Args:
        net: the network; run in eval mode, without gradient, heard by no taps.
        plan: what is labelled.
        image: what it is shown, on its device.

    Returns:
        The graph.

    Raises:
        ValueError: an operation that is not understood does something to labelled channels; it and the module are named.
    """
    run = _Trace(net, plan)
    with run.inside_modules(), evaluating(net), sdpa_kernel(SDPBackend.MATH), run:
        net(image)
    return run.graph()


class _Trace(TorchDispatchMode):
    def __init__(self, net: nn.Module, plan: Plan) -> None:
        super().__init__()
        self.net = net
        self.rules = ChannelRules(ChannelUnionFind())
        self.info: dict[int, ChannelInfo] = {}
        self.alive: list[Tensor] = []  # an id is a tensor's as long as it lives
        self.where: list[str] = [""]
        self.count: Counter[str] = Counter()
        self.seen: list[tuple[str, Tensor]] = []  # what was done, and the channels that it was done to
        self.returned: dict[str, tuple[Tensor, ChannelInfo]] = {}
        self.ids: dict[str, list[Tensor]] = {}
        tensors = net.state_dict(keep_vars=True)
        groups = {f"{name}.weight": getattr(module, "groups", 1) for name, module in net.named_modules()}
        for name, labels in plan.items():
            all_ids = [self._first_ids(tensors[name], dims, groups.get(name, 1)) for dims in labels]
            self.ids[name] = all_ids
            self.seen += [(f"{name} {number}", ids) for number, ids in enumerate(all_ids)]
            self._note(tensors[name], ChannelInfo(tuple(Label(ids, (name, number)) for number, ids in enumerate(all_ids))))

    def _first_ids(self, tensor: Tensor, dims: tuple[int, ...], groups: int) -> Tensor:
        if len(dims) == 1:
            return self.rules.channels.new(*[size if dim in dims else 1 for dim, size in enumerate(tensor.shape)])
        rows, columns = tensor.shape[:2]
        ids = self.rules.channels.new(groups, 1, columns).expand(-1, rows // groups, -1).reshape(rows, columns)
        return ids.reshape(rows, columns, *[1] * (tensor.dim() - 2))

    def _note(self, tensor: Tensor, info: ChannelInfo) -> None:
        self.info[id(tensor)] = info
        self.alive.append(tensor)

    @contextmanager
    def inside_modules(self) -> Iterator[None]:
        """Hooks that record which module runs, and what it returns."""
        handles = []
        try:
            for name, module in self.net.named_modules():
                handles.append(module.register_forward_pre_hook(lambda *_, name=name: self.where.append(name)))
                handles.append(module.register_forward_hook(self._leave, always_call=True))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        name = self.where.pop()
        if name and isinstance(output, Tensor) and output.dim() == 4:
            self.returned[name] = output, self.info.get(id(output), ChannelInfo())

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if not any(isinstance(x, Tensor) and id(x) in self.info for x in tree_leaves((args, kwargs))):
            return output
        outputs = list(output) if isinstance(output, (tuple, list)) else [output]
        name, module = func._schema.name.removeprefix("aten::"), self.where[-1]
        try:
            info = apply(self.rules, func, args, kwargs or {}, outputs, lambda x: self.info.get(id(x), ChannelInfo()))
        except ValueError as error:
            raise ValueError(
                f"inherit: {module or 'the network'}: {name} {error}, so that the channels which its weights share cannot be told"
            ) from None
        for tensor, each in zip(outputs, info, strict=False):
            if isinstance(tensor, Tensor) and each.labels:
                if name.endswith("_") and id(tensor) not in self.info and tensor._is_view():
                    raise ValueError(f"inherit: {module or 'the network'}: {name} writes channels into a part of a tensor")
                self._note(tensor, each)
        if name in MOVED:
            self._note_parts(f"{module} {name}", self.info.get(id(args[0]), ChannelInfo()), info)
        return output

    def _note_parts(self, key: str, whole: ChannelInfo, parts: list[ChannelInfo]) -> None:
        """Note that channels in one part of a map differ in kind from those in the other parts."""
        counts = [_count(self.rules.channels, label) for label in whole.labels]
        for number, part in enumerate(parts):
            for label, count in zip(part.labels, counts, strict=True):
                if _count(self.rules.channels, label) < count:
                    self.count[key] += 1
                    self.seen.append((f"{key} {self.count[key]} {number}", label.ids))

    def graph(self) -> Graph:
        """Sum up the pass."""
        root, under, fixed = self.rules.channels.settle()
        family: Counter[int] = Counter()
        for key, ids in self.seen:
            number = random.Random(key).getrandbits(64)
            family.update(dict.fromkeys(root[ids].unique().tolist(), number))
        graph = Graph(sums=self.rules.sums, under=under)
        graph.classes = sorted({*family, *under.values()})
        graph.family = {each: family[each] for each in graph.classes}
        graph.ids = {name: [root[ids] for ids in all_ids] for name, all_ids in self.ids.items()}
        graph.fixed = {each for each in graph.classes if fixed[each]}
        for name, (tensor, info) in self.returned.items():
            all_ids = [self.rules.channels.compact(label.ids) for label in info.labels]
            if not all_ids:
                graph.outputs[name] = None, tensor.shape[1]
            elif len(all_ids) == 1 and all_ids[0].numel() == all_ids[0].shape[1]:
                graph.outputs[name] = all_ids[0].flatten(), tensor.shape[1]
        return graph


def _count(channels: ChannelUnionFind, label: Label) -> int:
    return channels.find(label.ids).unique().numel()
