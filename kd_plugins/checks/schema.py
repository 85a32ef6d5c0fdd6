"""The JSON schema of option files, made of the tables and registries that the check itself uses."""

from __future__ import annotations

from dataclasses import replace

from kd_plugins.checks.blocks import ERROR, Block, Named, Spec, house_of, schema_of_leaf
from kd_plugins.checks.hints import Schema
from kd_plugins.checks.known import MODELS, OURS, file_block
from kd_plugins.checks.walk import NOTES

_ALWAYS = ("name", "model_type", "datasets", "network_g")


def json_schema() -> Schema:
    """The schema (JSON Schema, draft 2020-12) of an option file, for what is registered now.

    Keys of forks that have no effect are in it as deprecated; in files for models that are not this project's, unknown keys are
    allowed.
    """
    definitions: dict[str, Schema] = {}
    models = MODELS.entries
    ours = [name for name, model in models.items() if house_of(model) == OURS]
    block, other = (replace(file_block(models[name], is_train=False), required=_ALWAYS) for name in (ours[0], "SRModel"))
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "An option file of BasicSR with kd_plugins",
        "type": "object",
        "properties": {"model_type": {"enum": sorted(models)}},
        "if": {"properties": {"model_type": {"enum": ours}}},
        "then": {**_block(block, definitions), "patternProperties": {f"^({'|'.join(NOTES)})": True}},
        "else": _block(other, definitions),
        "$defs": definitions,
    }


def _schema(spec: Spec, definitions: dict[str, Schema]) -> Schema:
    if isinstance(spec, Block):
        return _or_nothing(_block(spec, definitions))
    if isinstance(spec, Named):
        return _or_nothing(_named(spec, definitions))
    return schema_of_leaf(spec)


def _or_nothing(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _block(block: Block, definitions: dict[str, Schema]) -> Schema:
    properties = {key: _schema(spec, definitions) for key, spec in block.keys.items()}
    for key, fork in block.forks.items():
        if not fork.changes_training:
            properties.setdefault(key, {"deprecated": True, "description": f"{fork.owner}: {fork.reason}"})
    schema: Schema = {"type": "object", "properties": properties, "required": list(block.required)}
    if block.every is not None:
        schema["additionalProperties"] = _schema(block.every, definitions)
    elif block.unknown == ERROR:
        schema["additionalProperties"] = False
    return schema


def _named(spec: Named, definitions: dict[str, Schema]) -> Schema:
    """A choice by `type`; the arguments of each entry are written down once."""
    entries = spec.entries
    choices = []
    for name in entries:
        label = f"{spec.kind} {name}{''.join(f' {key}' for key in spec.beside)}"
        if label not in definitions:
            definitions[label] = {}  # a block may hold one of its own kind
            block = spec.block_of(name)
            definitions[label] = {} if block is None else _block(block, definitions)
        choices.append({"if": {"properties": {"type": {"const": name}}, "required": ["type"]}, "then": {"$ref": _pointer(label)}})
    schema: Schema = {
        "type": "object",
        "properties": {
            "type": {"enum": sorted(entries)},
            **{key: _schema(value, definitions) for key, value in spec.beside.items()},
        },
        "required": [*(["type"] if spec.type_needed and spec.default is None else []), *spec.required],
        "allOf": choices,
    }
    return {"anyOf": [schema, {"type": "array", "items": schema}]} if spec.many else schema


def _pointer(label: str) -> str:
    return "#/$defs/" + label.replace("~", "~0").replace("/", "~1").replace(" ", "%20")
