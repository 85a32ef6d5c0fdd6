"""An option file against the tables of what it may hold."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any, Protocol

from kd_plugins.arguments.block_specs import ERROR, NOTHING, Block, Fork, Many, Named, Path, Spec, schema_of_leaf
from kd_plugins.arguments.type_schemas import fits, names_file, refusal
from kd_plugins.messages import choose, is_misspelt, show


class Findings(Protocol):
    """Where faults go: all of them are reported by a check, the first is raised where something is built."""

    def error(self, path: Path, text: str) -> None:
        """Take what keeps a run from starting."""

    def warning(self, path: Path, text: str) -> None:
        """Take what does not."""

    def file(self, path: Path, name: str) -> None:
        """Take the name of a file that has to be there."""


NOTES = ("x-", "_")
"""How the keys at the top begin that are a user's own, for instance to hold what anchors stand for."""


def check_value(findings: Findings, path: Path, value: Any, spec: Spec) -> None:
    """Check what stands after a key, and below it."""
    if isinstance(spec, Named):
        if value is not None:
            for below, block in _each(path, value, spec):
                _check_named(findings, below, block, spec)
    elif isinstance(spec, Block):
        if isinstance(value, Mapping):
            check_block(findings, path, value, spec)
        elif value is not None and not _is_word(value, spec.words) and not (spec.text and isinstance(value, str)):
            words = ["a mapping", *(str(word).lower() for word in spec.words), *["a text"] * spec.text]
            findings.error(path, f"{show(value)}, expected {' or '.join(words)}")
    elif isinstance(spec, Many):
        _check_many(findings, path, value, spec)
    elif not fits(value, schema := schema_of_leaf(spec)):
        findings.error(path, refusal(value, schema))
    elif names_file(value, schema):
        findings.file(path, value)


def _is_word(value: Any, words: Sequence[Any]) -> bool:
    return any(type(value) is type(word) and value == word for word in words)  # 1 is not true


def check_block(findings: Findings, path: Path, block: Mapping[Any, Any], spec: Block) -> None:
    """Check the keys of a mapping."""
    for key, value in block.items():
        below = (*path, str(key))
        if key in spec.refused:
            findings.error(below, f"{show(value)}, {spec.refused[key]}")
        elif key in spec.keys:
            check_value(findings, below, value, spec.keys[key])
        elif key in spec.forks:
            _note_fork(findings, below, value, spec.forks[key])
        elif spec.every is not None:
            check_value(findings, below, value, spec.every)
        else:
            _note_unknown(findings, below, key, value, spec)
    for key in spec.required:
        if key not in block or (block[key] is None and isinstance(spec.keys.get(key), (Block, Named))):
            findings.error((*path, key), f"missing, {_need(spec, key)}")


def _need(spec: Block, key: str) -> str:
    """Why a key has to be there."""
    known = spec.keys.get(key)
    leaf = {} if isinstance(known, (Block, Named, Many)) else schema_of_leaf(known)
    return leaf.get("description") or f"{spec.name} needs it"


def _note_fork(findings: Findings, path: Path, value: Any, fork: Fork) -> None:
    text = f"{show(value)}, a key of {fork.owner}: {fork.reason}"
    is_on = value.get(fork.switch) if fork.switch and isinstance(value, Mapping) else value
    if fork.changes_training and is_on and value != fork.off:
        findings.error(path, f"{text}; expected no such key")
    else:
        findings.warning(path, f"{text}; it has no effect")


def _note_unknown(findings: Findings, path: Path, key: Any, value: Any, spec: Block) -> None:
    if len(path) == 1 and path[0].startswith(NOTES):
        return
    severity = spec.misspelt if is_misspelt(key, spec.keys) else spec.unknown
    if severity != NOTHING:
        note = findings.error if severity == ERROR else findings.warning
        note(path, f"{show(value)}, {spec.name} has no such key; {choose(key, spec.keys)}")


def _check_many(findings: Findings, path: Path, value: Any, spec: Many) -> None:
    if not isinstance(value, Mapping if spec.named else list) or not value:
        findings.error(path, f"{show(value)}, expected a {'mapping' if spec.named else 'list'} of mappings")
        return
    for key, block in value.items() if isinstance(value, Mapping) else enumerate(value):
        below = (*path, str(key))
        if block is None:
            findings.error(below, "nothing, expected a mapping")
        check_value(findings, below, block, spec.of())


def _each(path: Path, value: Any, spec: Named) -> list[tuple[Path, Any]]:
    if spec.many and isinstance(value, list) and value:
        return [((*path, str(index)), block) for index, block in enumerate(value)]
    return [(path, value)]


def _check_named(findings: Findings, path: Path, block: Any, spec: Named) -> None:
    if not isinstance(block, Mapping):
        value = block if isinstance(block, str) else "..."
        instead = f", or {{{spec.instead}: {value}}}" if spec.instead else ""
        findings.error(path, f"{show(block)}, expected {{type: a registered {spec.kind}, ...}}{instead}")
        return
    for key, case in spec.cases().items():
        if key in block:
            check_block(findings, path, block, case)
            return
    name = block.get("type", spec.default)
    if isinstance(name, str) and spec.has(name):
        if (known := spec.block_of(name)) is not None:
            check_block(findings, path, block, known)
        return
    is_complete = bool(spec.instead and (spec.instead in spec.required or block.get(spec.instead)))
    if spec.importable and isinstance(name, str) and "." in name:
        _find_package(findings, (*path, "type"), name)
    elif name is not None:
        findings.error((*path, "type"), no_entry(name, spec))
    elif not is_complete:
        instead = f", or {', '.join(f'`{key}`' for key in (spec.instead, *spec.cases()))}" if spec.instead else ""
        findings.error((*path, "type"), f"missing, expected a registered {spec.kind}{instead}: {', '.join(spec.entries)}")
    # the arguments cannot be told; what stands beside them can
    beside = {"type": Any, **spec.beside, **dict.fromkeys(spec.cases(), Any)}
    level = ERROR if name is None and is_complete else NOTHING
    title = "a block without `type`" if name is None else str(name)
    check_block(findings, path, block, Block(title, beside, spec.required, forks=spec.forks, misspelt=level, unknown=level))


def _find_package(findings: Findings, path: Path, name: str) -> None:
    """Report a class whose package is not installed; the import itself runs code."""
    package = name.partition(".")[0]
    try:
        is_there = package in sys.modules or find_spec(package) is not None
    except ValueError:  # no name at all
        is_there = False
    if not is_there:
        findings.error(
            path, f"{show(name)}, no package {package!r} is installed (for a file of yours: `file: FILE.py, class: NAME`)"
        )


def no_entry(name: object, spec: Named) -> str:
    """The message about a name that no registry has."""
    if isinstance(name, str) and name in spec.renamed:
        return f"{name!r}, no registered {spec.kind}: {spec.renamed[name]}"
    return f"{show(name)}, no registered {spec.kind}; {choose(name, spec.all_entries)}"
