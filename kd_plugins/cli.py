"""The `basicsr` command: one parser, a sub-command for each module of `commands`."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import pkgutil
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import kd_plugins
from kd_plugins import commands, home
from kd_plugins.errors import RunStopped, StoppedAtStart, describe
from kd_plugins.messages import choose
from kd_plugins.options import OptionError

COMMANDS = tuple(module.name for module in pkgutil.iter_modules(commands.__path__))
"""Modules with HELP, EXAMPLE, `add_arguments(parser)` and `run(args)`, which alone imports PyTorch: without it there is help.

`NEEDS_LIBRARIES = False` says that it runs without PyTorch and BasicSR."""

_RUNS = ("train", "test")


class _Parser(argparse.ArgumentParser):
    """A parser that takes no abbreviations, and names the nearest flag in place of an unknown one."""

    def __init__(self, **settings) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **settings)
        self.register("type", None, _text)
        self.register("type", Path, _path)

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[override]
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"{unknown[0]}: no such argument; {choose(unknown[0], self._option_string_actions)}")
        return found, unknown


def _text(text: str) -> str:
    """A text, which may be a path."""
    if wrong := home.fault(text):
        raise argparse.ArgumentTypeError(wrong)
    return text


def _path(text: str) -> Path:
    """A path; of nothing, as of a variable that is not set, it would be the folder here."""
    if not text:
        raise argparse.ArgumentTypeError("'', expected a path")
    return home.expand(_text(text))


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def build_parser(modules: dict[str, ModuleType]) -> argparse.ArgumentParser:
    """The parser of the whole command line.

    Args:
        modules: the modules of the sub-commands, by name.
    """
    parser = _Parser(prog="basicsr", description=kd_plugins.__doc__.splitlines()[0] if kd_plugins.__doc__ else None)
    versions = f"kd_plugins {kd_plugins.__version__}, BasicSR {_version('basicsr')}, PyTorch {_version('torch')}"
    parser.add_argument("--version", action="version", version=versions)
    group = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, title="commands")
    group.type = str  # the words behind a command are for its own parser to look at
    for name, command in modules.items():
        epilog = f"example:\n  {command.EXAMPLE}"
        command.add_arguments(group.add_parser(name, help=command.HELP, description=command.HELP, epilog=epilog))
    return parser


def main(argv: Sequence[str] | None = None, own: Mapping[str, Any] | None = None) -> int:
    """Run `basicsr COMMAND ARGUMENTS`.

    Args:
        argv: the command and its arguments; those of the process by default.
        own: further commands by name, each a module (or another object) with what `COMMANDS` says.

    Returns:
        The exit code: 0; 2 for a command line or an option file that cannot be used; 75 for a run that a signal stopped and
        that can go on; 130 for another command that Ctrl+C stopped; 1 for a run that stopped by itself, and for a library that is
        not installed.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name or a table's line that it has no letters for is no reason to fail
        sys.stdout.reconfigure(errors="backslashreplace")
    words = list(sys.argv[1:] if argv is None else argv)
    modules = {name: importlib.import_module(f"kd_plugins.commands.{name}") for name in COMMANDS}
    modules.update(own or {})
    parser = build_parser(modules)
    if not words:
        parser.print_help(sys.stderr)
        return 2
    if words[0] not in modules and not words[0].startswith("-"):
        parser.error(f"{words[0]}: no such command; {choose(words[0], modules)}")
    args = parser.parse_args(words)
    return _run(args, modules[args.command])


def _run(args: argparse.Namespace, command: ModuleType) -> int:
    """Run a command, and say in one line why it ended if it did not end well."""
    name = f"basicsr {args.command}"
    needs_libraries = getattr(command, "NEEDS_LIBRARIES", True)
    try:
        if needs_libraries:
            kd_plugins.register()
        code = command.run(args)
    except ImportError as error:
        if error.name not in ("torch", "basicsr"):
            raise
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `basicsr init | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except StoppedAtStart as stop:
        print(f"{name}: {stop}", file=sys.stderr)
        return stop.exit_code  # the others are not waited for: they may not have got here
    except KeyboardInterrupt:
        print(f"{name}: stopped", file=sys.stderr)
        return 130  # as shells have it
    except (ValueError, OSError) as error:
        if args.command in _RUNS and not isinstance(error, OptionError):
            raise  # of a step: no fault of the command line
        print(f"{name}: {describe(error)}", file=sys.stderr)
        return 2  # perhaps in this process only: the others are not waited for
    except RunStopped as stop:
        print(f"{name}: {stop}", file=sys.stderr)
        code = stop.exit_code
    if needs_libraries:
        from kd_plugins.distributed import destroy_process_group

        destroy_process_group()
    return code


if __name__ == "__main__":
    sys.exit(main())
