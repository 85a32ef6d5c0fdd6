"""What an argument may be, said once, on its signature: the words for it, and `checked`, which enforces it."""

from annotated_types import Len, MinLen, MultipleOf

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
    "Count",
    "Flag",
    "Held",
    "Len",
    "MinLen",
    "MultipleOf",
    "OneName",
    "Ordered",
    "OwnName",
    "Range",
    "Schema",
    "Share",
    "Text",
    "Threads",
    "WholeRange",
    "Why",
    "Workers",
    "checked",
    "describe",
    "fits",
    "refusal",
    "schema_of",
    "schema_of_default",
]
