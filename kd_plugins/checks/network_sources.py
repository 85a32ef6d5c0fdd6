"""The blocks of networks, which come from many sources (docs/teachers.md): what may stand in them, and where they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from basicsr.utils.registry import ARCH_REGISTRY

from kd_plugins.archs.adapter import Adapter
from kd_plugins.archs.spandrel_arch import spandrel_networks
from kd_plugins.arguments import AtLeast, Path, Text, Why
from kd_plugins.arguments.block_specs import Block, Many, Named, Spec, signature_block
from kd_plugins.students.from_teacher import Request
from kd_plugins.teachers.network import TASKS_AT_THE_TOP, TEACHER_ONLY, SourcedNetwork
from kd_plugins.teachers.network_keys import CLASS_KEYS, SOURCE_KEYS, TEACHER_KEYS, TRUST
from kd_plugins.teachers.program_files import UNTRUSTED

NETWORK_KEYS = ("network_g", "network_d", "teacher", "teacher_clean")
_ADAPTER = signature_block(Adapter, given=("sizes",)).keys
_PROGRAM, _ENSEMBLE, _TASKS = TEACHER_KEYS
_TRUSTED = Annotated[Literal[True], Why(UNTRUSTED)]


def _arguments(target: Callable[..., Any]) -> Block:
    return signature_block(target, nested={"network": STUDENT} if target is SourcedNetwork else {})


NETWORK = Named("architecture", ARCH_REGISTRY, _arguments)
"""As BasicSR builds it."""


def _source(cases: Mapping[str, Block], beside: Mapping[str, Spec], required: tuple[str, ...] = ()) -> Named:
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
        cases={**cases, **dict.fromkeys(CLASS_KEYS, out_of_file)},
        further=spandrel_networks,
        importable=True,
    )


def _alone(key: str, spec: Spec, beside: Mapping[str, Spec], required: tuple[str, ...] = ()) -> Block:
    """A block in which no other source may stand."""
    others = [other for other in ("type", *SOURCE_KEYS) if other != key and other not in beside]
    reason = f"beside `{key}`, expected {', '.join(beside)} at most" if beside else f"beside `{key}`, expected nothing else"
    return Block(f"a block with `{key}`", {key: spec, **beside}, required, refused=dict.fromkeys(others, reason))


def _teacher(beside: Mapping[str, Spec], tasks: Block) -> Named:
    cases = {
        _TASKS: tasks,
        _ENSEMBLE: _alone(_ENSEMBLE, Many(lambda: _MEMBER), beside),
        _PROGRAM: _alone(_PROGRAM, str, {**_ADAPTER, **beside, TRUST: _TRUSTED}, (TRUST,)),
    }
    return _source(cases, beside, required=("checkpoint",))


STUDENT = _source({key: Block("a student", every=Any, refused={key: TEACHER_ONLY}) for key in TEACHER_KEYS}, {})
_FROM_TEACHER = replace(signature_block(Request), name="from_teacher")
ANY_STUDENT = replace(STUDENT, cases={**STUDENT.cases, "from_teacher": _alone("from_teacher", _FROM_TEACHER, {})})
"""Of an option file with a teacher, that it may be made of."""
_OF_ONE_TASK = Block("a member", every=Any, refused={_TASKS: TASKS_AT_THE_TOP})
TEACHER = _teacher({}, _alone(_TASKS, Many(lambda: _TEACHER_OF_ONE_TASK, named=True), {}))
_TEACHER_OF_ONE_TASK = _teacher({}, _OF_ONE_TASK)
_MEMBER = _teacher({"weight": Annotated[float, AtLeast(0)]}, _OF_ONE_TASK)


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
    ensemble, tasks = block.get(_ENSEMBLE), block.get(_TASKS)
    members = [(_ENSEMBLE, str(index), member) for index, member in enumerate(ensemble if isinstance(ensemble, list) else ())]
    members += [(_TASKS, str(task), member) for task, member in (tasks.items() if isinstance(tasks, Mapping) else ())]
    for key, name, member in members:
        if isinstance(member, Mapping):
            yield from _inside((*path, key, name), member)


def without_layers(teacher: Mapping[str, Any]) -> list[str]:
    """The keys by which a teacher, or that of a task, has an output and no layers."""
    tasks = teacher.get(_TASKS)
    blocks = tasks.values() if isinstance(tasks, Mapping) else [teacher]
    return [key for block in blocks if isinstance(block, Mapping) for key in (_PROGRAM, _ENSEMBLE) if key in block]


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
