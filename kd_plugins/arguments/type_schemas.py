"""Type hints as JSON schemas, values against them, and both in words."""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import numbers
import operator
import os
import re
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

from annotated_types import GroupedMetadata, MaxLen, MinLen, MultipleOf

from kd_plugins.arguments.words import Above, AtLeast, AtMost, Below, OneName, Ordered, Why
from kd_plugins.messages import nearest, show

Schema = dict[str, Any]
_SIMPLE = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}
_WORDS = {"boolean": "true or false", "integer": "a whole number", "number": "a number", "string": "text", "null": "nothing"}
_OF_YAML = (*_SIMPLE, list, tuple, Mapping, numbers.Number, datetime.date, bytes, set)
_BOUNDS = {
    "minimum": (AtLeast, "of at least", operator.ge),
    "exclusiveMinimum": (Above, "above", operator.gt),
    "maximum": (AtMost, "of at most", operator.le),
    "exclusiveMaximum": (Below, "below", operator.lt),
    "multipleOf": (MultipleOf, "divisible by", lambda value, step: value % step == 0),
}
"""A schema's words for the bounds of a number: the annotation, how it is said here, and what holds for a value."""


def schema_of(hint: Any) -> Schema:
    """The values that a type hint allows, as a JSON schema of a small dialect.

    Args:
        hint: an annotation, evaluated.

    Returns:
        A schema of type, enum, anyOf, items, minItems, maxItems, ordered, format and the words of bounds; {} where the hint does
        not say (a class that YAML has no word for is left to the callee).
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        # YAML cannot write a tensor: `float | Tensor` is a number
        options = [schema_of(member) for member in arguments if getattr(member, "__module__", "") != "torch"]
        if {} in options or not options:
            return {}
        if any(option.get("format") == "path" for option in options):  # `str | os.PathLike` is a file
            options = [option for option in options if option != {"type": "string"}]
        flat = [each for option in options for each in option.get("anyOf", [option])]
        options = [each for index, each in enumerate(flat) if each not in flat[:index]]
        return options[0] if len(options) == 1 else {"anyOf": options}
    if origin is Annotated:
        base, *notes = arguments
        return _bounded(schema_of(base), dict(word for note in notes for word in _words_of(note)))
    if origin is Literal:
        return {"enum": list(arguments)}
    kind = origin or hint
    if not isinstance(kind, type):
        return {}
    if kind in _SIMPLE:
        return {"type": _SIMPLE[kind]}
    if issubclass(kind, os.PathLike):  # pyright: ignore[reportGeneralTypeIssues]  (it has no data)
        return {"type": "string", "format": "path"}
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


def _words_of(note: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(note, GroupedMetadata):  # Interval, Len
        for part in note:
            yield from _words_of(part)
    elif isinstance(note, (OneName, Ordered, Why)):
        yield from vars(note).items()
    elif isinstance(note, (MinLen, MaxLen)):
        yield ("minItems" if isinstance(note, MinLen) else "maxItems"), dataclasses.astuple(note)[0]
    else:
        yield from ((word, dataclasses.astuple(note)[0]) for word, (bound, _, _) in _BOUNDS.items() if isinstance(note, bound))


def _bounded(schema: Schema, words: Schema) -> Schema:
    """A schema with further words, each where it has a meaning; bounds reach the items of a list."""
    if "description" in words:
        return {**_bounded(schema, {word: value for word, value in words.items() if word != "description"}), **words}
    if "anyOf" in schema:
        return {"anyOf": [_bounded(option, words) for option in schema["anyOf"]]}
    if schema.get("type") == "array":
        own = {word: words[word] for word in ("minItems", "maxItems", "ordered") if word in words}
        return {**schema, "items": _bounded(schema["items"], words), **own}
    meant = {"number": _BOUNDS, "integer": _BOUNDS, "string": ("pattern", "maxLength")}.get(schema.get("type", ""), ())
    return {**schema, **{word: value for word, value in words.items() if word in meant}}


def schema_of_default(default: Any) -> Schema:
    """What an argument without annotation may be, told from its default: only what is surely wrong is left out."""
    if isinstance(default, bool):
        return {"type": ["boolean", "integer", "null"]}
    if isinstance(default, (int, float)):
        return {"type": ["number", "boolean", "array", "null"]}
    return {}


def fits(value: Any, schema: Schema) -> bool:
    """Whether a schema allows a value.

    Args:
        value: read from YAML, or Python's: a tuple is a list there, a path a text, and what YAML has no word for (tensors,
            arrays, modules) fits everything.
        schema: see `schema_of`.
    """
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, _OF_YAML):
        return True
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
    if not all(holds(value, schema[word]) for word, (_, _, holds) in _BOUNDS.items() if word in schema):
        return False
    if isinstance(value, (list, tuple)) and "items" in schema:
        enough = schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value))
        fine = enough and all(fits(item, schema["items"]) for item in value)
        return fine and (not schema.get("ordered") or all(a <= b for a, b in zip(value, value[1:], strict=False)))
    return True


def names_file(value: Any, schema: Schema) -> bool:
    """Whether a value that fits is a file's name, and no word that may stand in place of one."""
    a_word = any("enum" in option and fits(value, option) for option in options_of(schema))
    return isinstance(value, str) and not a_word and any(option.get("format") == "path" for option in options_of(schema))


def options_of(schema: Schema) -> list[Schema]:
    """The schemas of which one has to hold."""
    return schema.get("anyOf", [schema])


def _bytes(text: str) -> float:
    try:
        return len(text.encode())
    except UnicodeEncodeError:  # half of a character, which no name of a file has
        return math.inf


def _is(value: Any, kind: str) -> bool:
    # YAML has .nan, .inf and whole numbers of any length, of which nothing can be trained
    largest = 2**63 if isinstance(value, int) else math.inf
    number = isinstance(value, numbers.Real) and not isinstance(value, bool) and -largest < cast(float, value) < largest
    if kind == "integer":
        return number and isinstance(value, numbers.Integral)  # not 2.0: what it is for, a layer's width say, does not take it
    return number if kind == "number" else isinstance(value, _CLASSES[kind])


_CLASSES = {"boolean": bool, "string": str, "null": type(None), "array": (list, tuple), "object": Mapping}


def refusal(value: Any, schema: Schema) -> str:
    """What is wrong with a value that does not fit: itself, what was expected, and what is near it."""
    choices = [choice for option in options_of(schema) for choice in option.get("enum", ())]
    near = nearest(value, choices, count=1) if isinstance(value, str) and choices else "none is near"
    return f"{show(value)}, expected {describe(schema)}" + f"; nearest: {near}" * (near != "none is near")


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
        return _list(schema)
    if "pattern" in schema:
        return "one name, as a folder has it: no path, and not long"
    if schema.get("format") == "path":
        return "the path of a file"
    return " ".join([_WORDS.get(kinds, "a mapping"), _bounds(schema)]).rstrip()


def _list(schema: Schema) -> str:
    least, most = schema.get("minItems", 0), schema.get("maxItems")
    count = f" of {most} values" if most == least > 0 else f" of at least {least}" if least else ""
    count = f" of {least} to {most} values" if most and most != least else count
    what = "[lo, hi] with lo <= hi" if schema.get("ordered") else f"a list{count}"
    return what + (f" (each {describe(schema['items'])})" if schema.get("items") else "")


def _bounds(schema: Schema) -> str:
    if {"minimum", "maximum"} <= set(schema):
        return f"from {_number(schema['minimum'])} to {_number(schema['maximum'])}"
    return " and ".join(f"{words} {_number(schema[word])}" for word, (_, words, _) in _BOUNDS.items() if word in schema)


def _number(value: float) -> str:
    short = f"{value:g}"
    return short if float(short) == value else str(value)


def _word(choice: Any) -> str:
    return choice if isinstance(choice, str) else "nothing" if choice is None else json.dumps(choice)
