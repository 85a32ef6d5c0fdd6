"""The `basicsr` command: arguments in, one call out."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

_COMMANDS = {
    "train": ("kd_plugins.train", "train_pipeline", "train the student of an option file"),
    "test": ("kd_plugins.test", "test_pipeline", "score a checkpoint and write its images"),
    "check": ("kd_plugins.checks", "check_pipeline", "check an option file, and do nothing else"),
    "scale": ("kd_plugins.scale", "list_students", "show students of the teacher's own family at a share of its cost"),
    "layers": ("kd_plugins.layers", "list_layers", "show the layers of teacher and student, and pairs of them"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `basicsr COMMAND ARGUMENTS`.

    Args:
        argv: the command and its arguments; those of the process by default.

    Returns:
        The exit code: 0; 2 for a command line or an option file that cannot be used; 75 for a run that a signal stopped and
        that can go on; 1 for a run that stopped by itself.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] not in _COMMANDS:
        asked_for_help = bool(arguments) and arguments[0] in ("-h", "--help")
        lines = [f"  {name:6s} {text}" for name, (_, _, text) in _COMMANDS.items()]
        print("usage: basicsr COMMAND -opt FILE [...]", *lines, sep="\n", file=sys.stdout if asked_for_help else sys.stderr)
        return 0 if asked_for_help else 2
    module, function, _ = _COMMANDS[arguments[0]]
    from kd_plugins.process import run_command

    return run_command(f"basicsr {arguments[0]}", getattr(importlib.import_module(module), function), arguments[1:])


if __name__ == "__main__":
    sys.exit(main())
