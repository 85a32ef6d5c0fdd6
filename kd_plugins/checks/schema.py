"""The JSON schema of option files, made of the tables and registries that the check itself uses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from kd_plugins.arguments import Schema
from kd_plugins.arguments.block_specs import ERROR, Block, Many, Named, Spec, house_of, schema_of_leaf
from kd_plugins.arguments.traversal import NOTES
from kd_plugins.checks.option_keys import MODELS, OURS, file_block
from kd_plugins.options import BASE

_ALWAYS = ("name", "model_type", "datasets", "network_g")


def json_schema() -> Schema:
    """The schema (JSON Schema, draft 2020-12) of an option file, for what is registered now.

    Keys of forks that have no effect are in it as deprecated; in files for models that are not this project's, unknown keys are
    allowed.
    """
    definitions: dict[str, Schema] = {}
    models = MODELS.entries
    ours = [name for name, model in models.items() if house_of(model) == OURS]
    brought = {name: block for model in ours for name, block in models[model].default_terms.items()}
    read = {key: what for model in ours for key, what in models[model].option_blocks.items()}
    found = file_block(models[ours[0]], is_train=False, brought=brought, read=read), file_block(models["SRModel"], is_train=False)
    block, other = (replace(each, required=_ALWAYS) for each in found)
    whole = {
        "properties": {"model_type": {"enum": sorted(models)}},
        "if": {"properties": {"model_type": {"enum": ours}}},
        "then": {**_block(block, definitions), "patternProperties": {f"^({'|'.join(NOTES)})": True}},
        "else": _block(other, definitions),
    }
    keys = {**_block(other, {})["properties"], **_block(block, {})["properties"]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "An option file of BasicSR with kd_plugins",
        "type": "object",
        "if": {"required": [BASE]},  # its bases have what it leaves out
        "then": {
            "properties": {**dict.fromkeys(keys, True), BASE: {"type": ["string", "array"], "items": {"type": "string"}}},
            "patternProperties": {f"^({'|'.join(NOTES)})": True},
            "additionalProperties": False,
        },
        "else": whole,
        "$defs": definitions,
    }


def _schema(spec: Spec, definitions: dict[str, Schema]) -> Schema:
    if isinstance(spec, Block):
        schema = _or_nothing(_block(spec, definitions))
        beside = [*([{"enum": list(spec.words)}] if spec.words else []), *([{"type": "string"}] if spec.text else [])]
        return {"anyOf": [*schema["anyOf"], *beside]}
    if isinstance(spec, Named):
        return _or_nothing(_named(spec, definitions))
    if isinstance(spec, Many) and spec.named:
        return {"type": "object", "additionalProperties": _schema(spec.of(), definitions), "minProperties": 1}
    if isinstance(spec, Many):
        return {"type": "array", "items": _schema(spec.of(), definitions), "minItems": 1}
    return schema_of_leaf(spec)


def _or_nothing(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _block(block: Block, definitions: dict[str, Schema]) -> Schema:
    properties: Schema = {key: _schema(spec, definitions) for key, spec in block.keys.items()}
    for key, fork in block.forks.items():
        if not fork.changes_training:
            properties.setdefault(key, {"deprecated": True, "description": f"{fork.owner}: {fork.reason}"})
    properties.update(dict.fromkeys(block.refused, False))
    schema: Schema = {"type": "object", "properties": properties, "required": list(block.required)}
    if block.every is not None:
        schema["additionalProperties"] = _schema(block.every, definitions)
    elif block.unknown == ERROR:
        schema["additionalProperties"] = False
    return schema


def _named(spec: Named, definitions: dict[str, Schema]) -> Schema:
    """A choice by `type`; the arguments of each entry are written down once."""
    entries = spec.all_entries
    beside = "".join(f" {key}{'!' * (key in spec.required)}" for key in spec.beside)
    choices = []
    for name in entries:
        pointer = _define(f"{spec.kind} {name}{beside}", definitions, partial(spec.block_of, name))
        choices.append({"if": {"properties": {"type": {"const": name}}, "required": ["type"]}, "then": pointer})
    names: Schema = {"enum": sorted(entries)}
    schema: Schema = {
        "type": "object",
        "properties": {
            "type": {"anyOf": [names, {"type": "string", "pattern": r"\."}]} if spec.importable else names,
            **{key: _schema(value, definitions) for key, value in spec.beside.items()},
        },
        "required": [*(["type"] if not spec.instead and spec.default is None else []), *spec.required],
        "allOf": choices,
    }
    if spec.instead:
        schema["anyOf"] = [{"required": ["type"]}, {"required": [spec.instead]}]
    for key, case in reversed(list(spec.cases().items())):
        label = f"{spec.kind} with {key}, {case.name.replace('`', '')}{beside}"
        pointer = _define(label, definitions, lambda case=case: case)
        schema = {"if": {"type": "object", "required": [key]}, "then": pointer, "else": schema}
    return {"anyOf": [schema, {"type": "array", "items": schema, "minItems": 1}]} if spec.many else schema


def _define(label: str, definitions: dict[str, Schema], find: Callable[[], Block | None]) -> Schema:
    """A pointer to a block's schema, which is made where it is asked for first."""
    if label not in definitions:
        definitions[label] = {}  # a block may hold one of its own kind
        block = find()
        definitions[label] = {} if block is None else _block(block, definitions)
    return {"$ref": _pointer(label)}


def _pointer(label: str) -> str:
    return "#/$defs/" + label.replace("~", "~0").replace("/", "~1").replace(" ", "%20")
