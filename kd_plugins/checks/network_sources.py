"""The blocks of networks, which come from many sources (docs/teachers.md): what may stand in them, and where they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any

from basicsr.utils.registry import ARCH_REGISTRY

from kd_plugins.archs.adapter import Adapter
from kd_plugins.archs.spandrel_arch import spandrel_networks
from kd_plugins.arguments import AtLeast, Path, Text
from kd_plugins.arguments.block_specs import Block, Many, Named, Spec, signature_block
from kd_plugins.students.from_teacher import Request
from kd_plugins.teachers.cache import TeacherCache
from kd_plugins.teachers.network import TASKS_AT_THE_TOP, TEACHER_ONLY, SourcedNetwork
from kd_plugins.teachers.network_keys import CACHE, CLASS_KEYS, ENSEMBLE, SOURCE_REGISTRY, TASKS, source_keys, teacher_keys

NETWORK_KEYS = ("network_g", "network_d", "teacher", "teacher_clean")
_ADAPTER = signature_block(Adapter, given=("sizes",)).keys


def _arguments(target: Callable[..., Any]) -> Block:
    return signature_block(target, nested={"network": STUDENT} if target is SourcedNetwork else {})


NETWORK = Named("architecture", ARCH_REGISTRY, _arguments)
"""As BasicSR builds it."""


def _source(cases: Callable[[], Mapping[str, Block]], beside: Mapping[str, Spec], required: tuple[str, ...] = ()) -> Named:
    beside = {"checkpoint": str if "checkpoint" in required else Text, "param_key": Text, "prefix": Text, **_ADAPTER, **beside}
    out_of_file = Block(
        "a class in a file",
        {**dict.fromkeys(CLASS_KEYS, str), **beside},
        (*CLASS_KEYS, *required),
        every=Any,  # the file is not imported: that runs its code
        refused={"type": "beside `file`, expected `class: NAME` alone"},
    )
    return replace(
        NETWORK,
        beside=beside,
        required=required,
        instead="checkpoint",
        cases=lambda: {**cases(), **dict.fromkeys(CLASS_KEYS, out_of_file)},
        further=spandrel_networks,
        importable=True,
    )


def _alone(key: str, spec: Spec, beside: Mapping[str, Spec], required: tuple[str, ...] = ()) -> Block:
    """A block in which no other source may stand."""
    others = [other for other in ("type", *source_keys()) if other != key and other not in beside]
    reason = f"beside `{key}`, expected {', '.join(beside)} at most" if beside else f"beside `{key}`, expected nothing else"
    return Block(f"a block with `{key}`", {key: spec, **beside}, required, refused=dict.fromkeys(others, reason))


def _teacher(beside: Mapping[str, Spec], tasks: Callable[[], Block]) -> Named:
    def cases() -> dict[str, Block]:
        registered: dict[str, Block] = {}
        for key, make in SOURCE_REGISTRY:
            arguments = signature_block(make)
            own = {name: spec for name, spec in arguments.keys.items() if name != key}
            registered[key] = _alone(key, arguments.keys.get(key, Any), {**_ADAPTER, **beside, **own}, arguments.required)
        return {TASKS: tasks(), ENSEMBLE: _alone(ENSEMBLE, Many(lambda: _MEMBER), beside), **registered}

    return _source(cases, beside, required=("checkpoint",))


def _refused() -> dict[str, Block]:
    return {key: Block("a student", every=Any, refused={key: TEACHER_ONLY}) for key in teacher_keys()}


def _of_one_task() -> Block:
    return Block("a member", every=Any, refused={TASKS: TASKS_AT_THE_TOP})


STUDENT = _source(_refused, {})
_FROM_TEACHER = replace(signature_block(Request), name="from_teacher")
ANY_STUDENT = replace(STUDENT, cases=lambda: {**STUDENT.cases(), "from_teacher": _alone("from_teacher", _FROM_TEACHER, {})})
"""Of an option file with a teacher, that it may be made of."""
_CACHE: dict[str, Spec] = {CACHE: replace(signature_block(TeacherCache), text=True)}
TEACHER = _teacher(_CACHE, lambda: _alone(TASKS, Many(lambda: _TEACHER_OF_ONE_TASK, named=True), {}))
_TEACHER_OF_ONE_TASK = _teacher(_CACHE, _of_one_task)
_MEMBER = _teacher({"weight": Annotated[float, AtLeast(0)]}, _of_one_task)


def sources_of(opt: Mapping[str, Any], is_ours: bool) -> Iterator[tuple[Path, Mapping[Any, Any]]]:
    """The blocks of networks from any source in an option file, those inside of others, too.

    Args:
        opt: the options.
        is_ours: whether the model builds its networks from any source; others do so for a SourcedNetwork only.
    """
    for key in NETWORK_KEYS:
        block = opt.get(key)
        if isinstance(block, Mapping):
            yield from _inside((key,), block) if is_ours and key != "network_d" else _wrapped((key,), block)


def _inside(path: Path, block: Mapping[Any, Any]) -> Iterator[tuple[Path, Mapping[Any, Any]]]:
    yield path, block
    yield from _wrapped(path, block)
    ensemble, tasks = block.get(ENSEMBLE), block.get(TASKS)
    members = [(ENSEMBLE, str(index), member) for index, member in enumerate(ensemble if isinstance(ensemble, list) else ())]
    members += [(TASKS, str(task), member) for task, member in (tasks.items() if isinstance(tasks, Mapping) else ())]
    for key, name, member in members:
        if isinstance(member, Mapping):
            yield from _inside((*path, key, name), member)


def without_layers(teacher: Mapping[str, Any]) -> list[str]:
    """The keys by which a teacher, or that of a task, has an output and no layers."""
    tasks = teacher.get(TASKS)
    blocks = tasks.values() if isinstance(tasks, Mapping) else [teacher]
    return [key for block in blocks if isinstance(block, Mapping) for key in ("program", ENSEMBLE) if key in block]


def _wrapped(path: Path, block: Mapping[Any, Any]) -> Iterator[tuple[Path, Mapping[Any, Any]]]:
    if block.get("type") == SourcedNetwork.__name__ and isinstance(block.get("network"), Mapping):
        yield from _inside((*path, "network"), block["network"])


def holds_itself(value: Any, *above: Any) -> bool:
    """Whether an anchor stands inside what it names.

    Args:
        value: read from YAML.
        above: what it stands in.
    """
    good: set[int] = set()  # an alias may stand in many places

    def look(node: Any, above: tuple[int, ...]) -> bool:
        if not isinstance(node, (Mapping, list)) or id(node) in good:
            return False
        if id(node) in above:
            return True
        parts = node.values() if isinstance(node, Mapping) else node
        found = any(look(part, (*above, id(node))) for part in parts)
        good.add(id(node))
        return found

    return look(value, tuple(map(id, above)))
