"""What an argument may be, said once, on its signature: the words for it, and `checked`, which enforces it."""

from annotated_types import Len, MinLen, MultipleOf

from kd_plugins.arguments.block_specs import Block, Many, Named, Path, signature_block, spec_of
from kd_plugins.arguments.build import build, require
from kd_plugins.arguments.checked import checked
from kd_plugins.arguments.type_schemas import Schema, describe, fits, refusal, schema_of, schema_of_default
from kd_plugins.arguments.words import (
    Above,
    AtLeast,
    AtMost,
    Below,
    Between,
    Count,
    Flag,
    Held,
    OneName,
    Ordered,
    OwnName,
    Range,
    Share,
    Text,
    Threads,
    WholeRange,
    Why,
    Workers,
)

__all__ = [
    "Above",
    "AtLeast",
    "AtMost",
    "Below",
    "Between",
    "Block",
    "Count",
    "Flag",
    "Held",
    "Len",
    "Many",
    "MinLen",
    "MultipleOf",
    "Named",
    "OneName",
    "Ordered",
    "OwnName",
    "Path",
    "Range",
    "Schema",
    "Share",
    "Text",
    "Threads",
    "WholeRange",
    "Why",
    "Workers",
    "build",
    "checked",
    "describe",
    "fits",
    "refusal",
    "require",
    "schema_of",
    "schema_of_default",
    "signature_block",
    "spec_of",
]
