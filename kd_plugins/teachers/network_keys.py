"""The keys of a network's block that are not arguments of its class."""

ADAPTER_KEYS = ("pad_to", "pad_square", "output", "noise_level", "value_range", "mean")
CLASS_KEYS = ("file", "class")
TASKS = "tasks"
TRUST = "trust"
"""Beside `program`."""
TEACHER_KEYS = ("program", "ensemble", TASKS)
WEIGHT_KEYS = ("checkpoint", "param_key", "prefix")
SOURCE_KEYS = (*WEIGHT_KEYS, *CLASS_KEYS, *TEACHER_KEYS, *ADAPTER_KEYS)
SOURCED = "SourcedNetwork"
"""The architecture whose argument is such a block."""
