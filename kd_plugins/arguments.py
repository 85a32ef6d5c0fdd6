"""Type hints as JSON schemas, and values against them: what an argument may be is said once, by its own annotation."""

from __future__ import annotations

import json
import math
import operator
import os
import re
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from torch import Tensor

Schema = dict[str, Any]
Text = str | None
Flag = bool | None
_SIMPLE = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}
_WORDS = {"boolean": "true or false", "integer": "a whole number", "number": "a number", "string": "text", "null": "nothing"}


@dataclass(frozen=True)
class AtLeast:
    """Of an annotated number: its smallest value."""

    minimum: float


@dataclass(frozen=True)
class Above:
    """Of an annotated number: what it has to be larger than."""

    exclusiveMinimum: float  # noqa: N815 (the schema's word)


@dataclass(frozen=True)
class AtMost:
    """Of an annotated number: its largest value."""

    maximum: float


@dataclass(frozen=True)
class Why:
    """Of an annotated value: why it has to be there, and be so."""

    description: str


@dataclass(frozen=True)
class OneName:
    """Of an annotated text: it names a folder or a file in a folder of the run's, and leads nowhere else."""

    pattern: str = r"^(?!\.\.?$)(?![\s\S]*[/\\\u0000-\u001f])[\s\S]"
    maxLength: int = 200  # noqa: N815 (the schema's word): names have 255 bytes, and the run's files add to this one


OwnName = Annotated[str, OneName()]
Count = Annotated[int, AtLeast(1)] | None
Workers = Annotated[int, AtLeast(0), AtMost(256)] | None  # each is a process of some hundred MB
Threads = Annotated[int, AtLeast(0), AtMost(1024)] | None
Held = Annotated[int, AtLeast(1), AtMost(2**16)] | None
"""Of something that is held in memory: images of a batch, batches of a queue."""
_BOUNDS = {
    "minimum": ("of at least", operator.ge),
    "exclusiveMinimum": ("above", operator.gt),
    "maximum": ("of at most", operator.le),
}
"""The words of a schema for the bounds of a number: how they are called here, and what holds for a value."""


def schema_of(hint: Any) -> Schema:
    """The values that a type hint allows, as a JSON schema of a small dialect.

    Args:
        hint: an annotation, evaluated.

    Returns:
        A schema of type, enum, anyOf, items, minItems, maxItems and the words of bounds; {} where the hint does not say (a class
        that YAML has no word for is left to the callee).
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        # YAML cannot write a tensor: `float | Tensor` is a number
        options = [schema_of(member) for member in arguments if member is not Tensor]
        return {} if {} in options or not options else options[0] if len(options) == 1 else {"anyOf": options}
    if origin is Annotated:
        base, *notes = arguments
        bounds = [vars(note) for note in notes if isinstance(note, (AtLeast, Above, AtMost, Why, OneName))]
        return {**schema_of(base), **{word: value for bound in bounds for word, value in bound.items()}}
    if origin is Literal:
        return {"enum": list(arguments)}
    kind = origin or hint
    if not isinstance(kind, type):
        return {}
    if kind in _SIMPLE:
        return {"type": _SIMPLE[kind]}
    if kind in (os.PathLike, Path):
        return {"type": "string"}
    if kind in (dict, Mapping):
        return {"type": "object"}
    if kind is tuple and arguments and arguments[-1] is not Ellipsis:
        same = schema_of(arguments[0]) if len(set(arguments)) == 1 else {}
        return {"type": "array", "items": same, "minItems": len(arguments), "maxItems": len(arguments)}
    if kind in (list, tuple, Sequence, Iterable):
        items = {"type": "array", "items": schema_of(arguments[0]) if arguments else {}}
        # a text is a sequence of texts, too
        return {"anyOf": [{"type": "string"}, items]} if kind in (Sequence, Iterable) and arguments == (str,) else items
    return {}


def schema_of_default(default: Any) -> Schema:
    """What an argument without annotation may be, told from its default: only what is surely wrong is left out."""
    if isinstance(default, bool):
        return {"type": ["boolean", "integer", "null"]}
    if isinstance(default, (int, float)):
        return {"type": ["number", "boolean", "array", "null"]}
    return {}


def fits(value: Any, schema: Schema) -> bool:
    """Whether a value read from YAML is one that a schema allows."""
    if "anyOf" in schema:
        return any(fits(value, option) for option in schema["anyOf"])
    if "enum" in schema:
        return any(value == choice and type(value) is type(choice) for choice in schema["enum"])
    kinds = schema.get("type", [])
    if kinds and not any(_is(value, kind) for kind in ([kinds] if isinstance(kinds, str) else kinds)):
        return False
    if isinstance(value, str) and not (
        re.search(schema.get("pattern", ""), value) and _bytes(value) <= schema.get("maxLength", math.inf)
    ):
        return False
    if not all(holds(value, schema[word]) for word, (_, holds) in _BOUNDS.items() if word in schema):
        return False
    if isinstance(value, list) and "items" in schema:
        enough = schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value))
        return enough and all(fits(item, schema["items"]) for item in value)
    return True


def _bytes(text: str) -> float:
    try:
        return len(text.encode())
    except UnicodeEncodeError:  # half of a character, which no name of a file has
        return math.inf


def _is(value: Any, kind: str) -> bool:
    # YAML has .nan, .inf and whole numbers of any length, of which nothing can be trained
    largest = math.inf if isinstance(value, float) else 2**63
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < largest
    if kind == "integer":
        return number and isinstance(value, int)  # not 2.0: what it is for, a layer's width say, does not take it
    return number if kind == "number" else isinstance(value, _CLASSES[kind])


_CLASSES = {"boolean": bool, "string": str, "null": type(None), "array": list, "object": Mapping}


def describe(schema: Schema) -> str:
    """A schema in words, for an error message."""
    if "description" in schema:
        bare = {word: value for word, value in schema.items() if word != "description"}
        return f"{describe(bare)}: {schema['description']}"
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(describe(option) for option in schema["anyOf"]))
    if "enum" in schema:
        return "one of " * (len(schema["enum"]) > 1) + ", ".join(_word(choice) for choice in schema["enum"])
    kinds = schema["type"]
    if not isinstance(kinds, str):
        return describe({"type": kinds[0]})
    if kinds == "array":
        count = f" of {schema['maxItems']} values" if "maxItems" in schema else ""
        return f"a list{count}" + (f" (each {describe(schema['items'])})" if schema.get("items") else "")
    if "pattern" in schema:
        return "one name, as a folder has it: no path, and not long"
    bounds = [f"{words} {schema[word]:g}" for word, (words, _) in _BOUNDS.items() if word in schema]
    return " ".join([_WORDS.get(kinds, "a mapping"), " and ".join(bounds)]).rstrip()


def _word(choice: Any) -> str:
    return choice if isinstance(choice, str) else "nothing" if choice is None else json.dumps(choice)
