"""What a block of an option file may hold: the words that the tables are written in, and how a signature becomes one."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Union, get_args, get_origin

from kd_plugins.arguments.checked import hints_of, key_of
from kd_plugins.arguments.type_schemas import Schema, options_of, schema_of, schema_of_default

Path = tuple[str, ...]
"""The keys that lead to a value."""
Spec = Any
"""What may stand after a key: a `Block`, a `Named`, `Many` of one of these, or a type hint."""

ERROR, WARNING, NOTHING = "error", "warning", "nothing"


@dataclass(frozen=True)
class Fork:
    """A key of another project's option files.

    Attributes:
        owner: the project.
        reason: what its value does there and why not here, or what to write instead.
        changes_training: whether leaving it aside would train something else; then it is refused, unless it is off.
        switch: where its value is a mapping, the key in it that turns it on.
        off: a value by which it does nothing there either.
    """

    owner: str
    reason: str
    changes_training: bool = False
    switch: str = ""
    off: Any = None


@dataclass(frozen=True, eq=False)
class Block:
    """A mapping.

    Attributes:
        name: what reads it, for messages.
        keys: what may stand after each key.
        required: keys that must be there.
        every: what stands after keys that are named at will; None where they are not.
        forks: keys that other projects write.
        refused: keys that must not be there, and why.
        misspelt: what an unknown key is that looks like a known one.
        unknown: what any other unknown key is.
        words: what may stand in place of the mapping.
        text: whether any text may.
    """

    name: str
    keys: Mapping[str, Spec] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    every: Spec = None
    forks: Mapping[str, Fork] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    misspelt: str = ERROR
    unknown: str = ERROR
    words: tuple[str | bool, ...] = ()
    text: bool = False


@dataclass(frozen=True, eq=False)
class Many:
    """A list of mappings, of one at least.

    Attributes:
        of: what each of them is; a function, since a list may hold its own kind.
        named: whether they stand in a mapping, by names given at will, in place of a list.
    """

    of: Callable[[], Block | Named]
    named: bool = False


def house_of(target: Any) -> str:
    """The package that a class or a function comes from: kd_plugins, basicsr, torch, or a user's."""
    return (getattr(target, "__module__", None) or "").split(".")[0]


def signature_block(target: Callable[..., Any], given: Iterable[str] = (), nested: Mapping[str, Spec] | None = None) -> Block:
    """The arguments of a class or a function, as a block.

    Args:
        target: the callable.
        given: arguments that the code gives, not the option file.
        nested: what stands after arguments of these names, in place of their annotations. An annotation may say so by itself:
            `extractor: Annotated[Mapping[str, Any], EXTRACTOR]`.

    Returns:
        The block. Where any keyword is taken, an unknown one is a warning: for basicsr and this project, which do nothing with
        it, always, and an error if it looks like a known one; for others if it looks like a known one.
    """
    keys: dict[str, Spec] = {}
    required: list[str] = []
    takes_any = _collect(target, keys, required)
    named = {name: (nested or {}).get(name, hint) for name, hint in keys.items() if name not in given}
    needed = tuple(name for name in required if name not in given)
    mine = house_of(target) in ("kd_plugins", "basicsr")
    misspelt, unknown = (ERROR, ERROR) if not takes_any else (ERROR, WARNING) if mine else (WARNING, NOTHING)
    return Block(getattr(target, "__name__", "it"), named, needed, misspelt=misspelt, unknown=unknown)


def _collect(target: Callable[..., Any], keys: dict[str, Spec], required: list[str]) -> bool:
    """Gather the named arguments; where a class takes any keyword, those of the classes that it may hand them on to as well."""
    functions: list[Callable[..., Any]] = [target]
    if inspect.isclass(target):
        functions = [vars(cls)["__init__"] for cls in target.__mro__[:-1] if inspect.isfunction(vars(cls).get("__init__"))]
        functions = functions or [target]
    for function in functions:
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except ValueError:  # compiled code may have none
            return True
        hints = hints_of(function)
        for parameter in parameters[1:] if function is not target else parameters:  # without `self`
            key = key_of(parameter.name)
            if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY) or key in keys:
                continue
            hint = hints.get(parameter.name, Unannotated(parameter.default))
            keys[key] = next(_blocks_in(hint), hint)
            if parameter.default is parameter.empty and function is functions[0]:
                required.append(key)
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            return False
    return True


def _blocks_in(hint: Any) -> Iterator[Block | Many | Named]:
    """The blocks that an annotation says may stand there: `Annotated[Mapping[str, Any], BLOCK] | None`."""
    if get_origin(hint) is Annotated:
        yield from (note for note in get_args(hint)[1:] if isinstance(note, (Block, Many, Named)))
    elif get_origin(hint) in (Union, types.UnionType):
        for member in get_args(hint):
            yield from _blocks_in(member)


@dataclass(frozen=True, eq=False)
class Named:
    """A mapping whose `type` names an entry of a registry, and whose other keys are that entry's arguments.

    Attributes:
        kind: what the registry holds, for messages.
        registry: the entries by name, BasicSR's `Registry` or a mapping.
        arguments: the block of an entry's arguments; None where they cannot be known.
        beside: the block's keys that are not arguments.
        required: those of them that must be there.
        default: the entry that a block without `type` means.
        instead: a key of `beside` that may stand in place of `type`: there are no arguments then.
        cases: blocks that are told by a key of theirs, whatever the `type`.
        further: more entries, got only for a name that the registry does not have: that may take long.
        importable: whether `type` may be a `package.module.Class`, too. It is not imported, its arguments are not known.
        many: whether a list of such mappings may stand there, too.
        renamed: names of other projects, and what to write instead.
        forks: keys that other projects write, whatever the `type`.
    """

    kind: str
    registry: Any
    arguments: Callable[[Callable[..., Any]], Block | None] = signature_block
    beside: Mapping[str, Spec] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    default: str | None = None
    instead: str = ""
    cases: Callable[[], Mapping[str, Block]] = dict
    further: Callable[[], Mapping[str, Any]] = dict
    importable: bool = False
    many: bool = False
    renamed: Mapping[str, str] = field(default_factory=dict)
    forks: Mapping[str, Fork] = field(default_factory=dict)

    @property
    def entries(self) -> dict[str, Any]:
        """By the name that an option file calls them: basicsr registers some with a suffix, which may be left out."""
        held = dict(self.registry.items() if isinstance(self.registry, Mapping) else iter(self.registry))
        return {**{name.removesuffix("_basicsr"): entry for name, entry in held.items()}, **held}

    @property
    def all_entries(self) -> dict[str, Any]:
        """Those that are not registered, too."""
        return {**self.further(), **self.entries}

    def has(self, name: object) -> bool:
        """Whether there is an entry of this name."""
        return isinstance(name, str) and (name in self.entries or ("." not in name and name in self.all_entries))

    def entry(self, name: str) -> Any:
        """The entry of a name that there is one of (`has`)."""
        entries = self.entries
        return (entries if name in entries else self.all_entries)[name]

    def block_of(self, name: str) -> Block | None:
        """All keys of an entry's block; None where they cannot be known."""
        arguments = self.arguments(self.entry(name))
        if arguments is None:
            return None
        keys = {"type": str, **arguments.keys, **self.beside}
        return replace(arguments, keys=keys, required=(*self.required, *arguments.required), forks=self.forks)


def reads_file(target: Callable[..., Any]) -> bool:
    """Whether an argument of a class or a function may name a file."""
    leaves = [spec for spec in signature_block(target).keys.values() if not isinstance(spec, (Block, Many, Named))]
    return any(option.get("format") == "path" for spec in leaves for option in options_of(schema_of_leaf(spec)))


def spec_of(what: Any, name: str) -> Spec:
    """What a model says of a block that it reads (`option_blocks`), as a specification.

    Args:
        what: a mapping of keys and what stands after each; a class or a function, whose arguments are the keys; a type hint; or a
            specification.
        name: of the block, for messages.
    """
    if isinstance(what, Mapping):
        return Block(name, {key: spec_of(value, key) for key, value in what.items()})
    return signature_block(what) if inspect.isroutine(what) or (inspect.isclass(what) and not schema_of(what)) else what


@dataclass(frozen=True)
class Unannotated:
    """In place of the hint of an argument that has none: its default."""

    default: Any


def schema_of_leaf(spec: Spec) -> Schema:
    """The JSON schema of a key that is no block."""
    return schema_of_default(spec.default) if isinstance(spec, Unannotated) else schema_of(spec)
