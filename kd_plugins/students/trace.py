"""One forward pass of a network, operation by operation: which channels of which weights are the same ones."""

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
from kd_plugins.features.taps import unheard
from kd_plugins.students.operations import MOVED, apply
from kd_plugins.students.propagation import Layer, Marks, Rules
from kd_plugins.students.union_find import Atoms

Plan = Mapping[str, Sequence[tuple[int, ...]]]
"""For each tensor of a state dict, the dimensions that get a label: one, or two that share one (the columns of grouped rows)."""


@dataclass
class Graph:
    """What a pass says of a network's channels.

    Attributes:
        layers: for each tensor of the state dict, its labels, in the order of the plan.
        sums: which of these a sum runs over: (tensor, number of the layer).
        outputs: for each module that returned one map, the label of its channels, (C,), or None where they have none; C.
        classes: every channel: the lowest atom that it is.
        family: for each class, which tensors it is in and which parts of maps it was taken with.
        under: for each class that is part of a whole (a head), that one.
        fixed: for each class, whether it cannot be left out.
    """

    layers: dict[str, list[Tensor]] = field(default_factory=dict)
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
    with run.inside_modules(), unheard(), evaluating(net), sdpa_kernel(SDPBackend.MATH), run:
        net(image)
    return run.graph()


class _Trace(TorchDispatchMode):
    def __init__(self, net: nn.Module, plan: Plan) -> None:
        super().__init__()
        self.net = net
        self.rules = Rules(Atoms())
        self.marks: dict[int, Marks] = {}
        self.alive: list[Tensor] = []  # an id is a tensor's as long as it lives
        self.where: list[str] = [""]
        self.count: Counter[str] = Counter()
        self.seen: list[tuple[str, Tensor]] = []  # what was done, and the atoms that it was done to
        self.returned: dict[str, tuple[Tensor, Marks]] = {}
        self.labels: dict[str, list[Tensor]] = {}
        tensors = net.state_dict(keep_vars=True)
        groups = {f"{name}.weight": getattr(module, "groups", 1) for name, module in net.named_modules()}
        for name, layers in plan.items():
            labels = [self._first_label(tensors[name], dims, groups.get(name, 1)) for dims in layers]
            self.labels[name] = labels
            self.seen += [(f"{name} {number}", label) for number, label in enumerate(labels)]
            self._mark(tensors[name], Marks(tuple(Layer(label, (name, number)) for number, label in enumerate(labels))))

    def _first_label(self, tensor: Tensor, dims: tuple[int, ...], groups: int) -> Tensor:
        if len(dims) == 1:
            return self.rules.atoms.new(*[size if dim in dims else 1 for dim, size in enumerate(tensor.shape)])
        rows, columns = tensor.shape[:2]
        label = self.rules.atoms.new(groups, 1, columns).expand(-1, rows // groups, -1).reshape(rows, columns)
        return label.reshape(rows, columns, *[1] * (tensor.dim() - 2))

    def _mark(self, tensor: Tensor, marks: Marks) -> None:
        self.marks[id(tensor)] = marks
        self.alive.append(tensor)

    @contextmanager
    def inside_modules(self) -> Iterator[None]:
        """Hooks that say which module runs, and what it returned."""
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
            self.returned[name] = output, self.marks.get(id(output), Marks())

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if not any(isinstance(x, Tensor) and id(x) in self.marks for x in tree_leaves((args, kwargs))):
            return output
        outputs = list(output) if isinstance(output, (tuple, list)) else [output]
        name, module = func._schema.name.removeprefix("aten::"), self.where[-1]
        try:
            marks = apply(self.rules, func, args, kwargs or {}, outputs, lambda x: self.marks.get(id(x), Marks()))
        except ValueError as error:
            raise ValueError(
                f"inherit: {module or 'the network'}: {name} {error}: which channels its weights share cannot be said"
            ) from None
        for tensor, each in zip(outputs, marks, strict=False):
            if isinstance(tensor, Tensor) and each.layers:
                if name.endswith("_") and id(tensor) not in self.marks and tensor._is_view():
                    raise ValueError(f"inherit: {module or 'the network'}: {name} writes channels into a part of a tensor")
                self._mark(tensor, each)
        if name in MOVED:
            self._note_parts(f"{module} {name}", self.marks.get(id(args[0]), Marks()), marks)
        return output

    def _note_parts(self, key: str, whole: Marks, parts: list[Marks]) -> None:
        """Channels of a part that was taken of a map are not like those of the other parts."""
        counts = [_count(self.rules.atoms, layer) for layer in whole.layers]
        for number, part in enumerate(parts):
            for layer, count in zip(part.layers, counts, strict=True):
                if _count(self.rules.atoms, layer) < count:
                    self.count[key] += 1
                    self.seen.append((f"{key} {self.count[key]} {number}", layer.label))

    def graph(self) -> Graph:
        """What the pass came to."""
        root, under, fixed = self.rules.atoms.settle()
        family: Counter[int] = Counter()
        for key, label in self.seen:
            number = random.Random(key).getrandbits(64)
            family.update(dict.fromkeys(root[label].unique().tolist(), number))
        graph = Graph(sums=self.rules.sums, under=under)
        graph.classes = sorted({*family, *under.values()})
        graph.family = {each: family[each] for each in graph.classes}
        graph.layers = {name: [root[label] for label in labels] for name, labels in self.labels.items()}
        graph.fixed = {each for each in graph.classes if fixed[each]}
        for name, (tensor, marks) in self.returned.items():
            labels = [self.rules.atoms.compact(layer.label) for layer in marks.layers]
            if not labels:
                graph.outputs[name] = None, tensor.shape[1]
            elif len(labels) == 1 and labels[0].numel() == labels[0].shape[1]:
                graph.outputs[name] = labels[0].flatten(), tensor.shape[1]
        return graph


def _count(atoms: Atoms, layer: Layer) -> int:
    return atoms.find(layer.label).unique().numel()
