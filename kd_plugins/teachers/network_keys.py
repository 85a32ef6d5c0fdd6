"""The keys of a network's block that are not arguments of its class, and the registry of further sources of teachers."""

from basicsr.utils.registry import Registry

SOURCE_REGISTRY = Registry("source")
"""Functions that return a teacher's network, each by the key of a teacher's block that calls it.

The first argument has the key's name and takes its value; the others are keys beside it:

    @SOURCE_REGISTRY.register()
    def program(program: str, trust: Literal[True]) -> nn.Module:       # teacher: {program: FILE, trust: true}
"""
ADAPTER_KEYS = ("pad_to", "pad_square", "output", "noise_level", "value_range", "mean")
CLASS_KEYS = ("file", "class")
ENSEMBLE, TASKS = "ensemble", "tasks"
CACHE = "cache"
"""Of a teacher, no matter to its network."""
WEIGHT_KEYS = ("checkpoint", "param_key", "prefix")
SOURCED = "SourcedNetwork"
"""The architecture whose argument is such a block."""


def registered_keys() -> tuple[str, ...]:
    """The keys of the registered sources."""
    return tuple(SOURCE_REGISTRY.keys())


def teacher_keys() -> tuple[str, ...]:
    """The keys that can stand in a teacher's block only."""
    return (*registered_keys(), ENSEMBLE, TASKS)


def source_keys() -> tuple[str, ...]:
    """All keys by which a block is one that BasicSR does not know."""
    return (*WEIGHT_KEYS, *CLASS_KEYS, *teacher_keys(), *ADAPTER_KEYS)
