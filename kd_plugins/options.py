"""Read option files: the only place that reads YAML.

Unlike BasicSR's own reading, the file cannot run code, `1e-4` is a number, `--force_yml` takes any YAML value, and `_base_` names
files that this one completes.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import path as osp
from typing import Any, NamedTuple

import yaml

from kd_plugins.arguments import Path
from kd_plugins.home import expand
from kd_plugins.option_library import find_option_file, unknown_name
from kd_plugins.yaml_loader import Loader, load

BASE = "_base_"
"""The key of an option file that names the file, or the list of files, that it completes."""

MAIN_KEYS = ("name", "model_type", "datasets", "network_g")
"""Those without which nothing can be completed."""

_DELETE = "_delete_"
_KEEP_NULL = ("train", "distill")  # `name: ~` leaves a term of the model out
_DEEPEST = 100


class OptionError(ValueError):
    """An option file or a command line that cannot be used; the message says what to write instead."""


@contextmanager
def option_errors(file: str) -> Iterator[None]:
    """While things are built: an error about an option becomes one about the option file.

    Raises:
        OptionError: in place of the errors that wrong options raise; the cause is kept.
    """
    try:
        yield
    except (ValueError, KeyError, FileNotFoundError, NotADirectoryError) as error:
        text = error.args[0] if isinstance(error, KeyError) and error.args else error
        raise OptionError(f"{file}: {text}") from error


class Place(NamedTuple):
    """Where a key stands, sorted by how far that is from the command line.

    Attributes:
        depth: 0 for `--force_yml`, 1 for the option file, 2 for its bases, and so on.
        file: the file, or the flag.
        line: counted from 1; 0 for a flag.
    """

    depth: int
    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass
class OptionFile:
    """An option file, completed by its bases and by `--force_yml`.

    Attributes:
        file: its path.
        opt: the options.
        places: where each key stands, by the keys that lead there.
        twice: what to say of keys that stand twice in one mapping, where YAML takes the last.
    """

    file: str
    opt: dict[str, Any]
    places: dict[Path, Place] = field(default_factory=dict)
    twice: dict[Path, str] = field(default_factory=dict)

    def place(self, path: Path) -> Place:
        """Where a key stands, or the nearest one above it that stands somewhere."""
        above = (path[:depth] for depth in range(len(path), 0, -1))
        return next((self.places[key] for key in above if key in self.places), Place(1, self.file, 1))


def read_options(file: str) -> dict[str, Any]:
    """Read the options of a file, completed by its bases.

    Args:
        file: path of the YAML file.

    Raises:
        OptionError: see `read_option_file`; or a key that every option file needs is missing.
    """
    found = read_option_file(file)
    require_keys(found)
    return found.opt


def require_keys(found: OptionFile) -> None:
    """Look for the main keys.

    Raises:
        OptionError: some are missing; the message names all of them.
    """
    missing = [key for key in MAIN_KEYS if found.opt.get(key) is None]
    if missing:
        raise OptionError(f"{found.file}: missing key(s) {', '.join(missing)}")


def read_option_file(file: str, entries: Sequence[str] = ()) -> OptionFile:
    """Read an option file and its bases; a key that is missing is no error yet.

    Args:
        file: path of the YAML file.
        entries: `--force_yml` entries.

    Raises:
        OptionError: no such file, no valid or safe YAML, not a mapping, a circle of bases; or see `force_options`.
    """
    found = _read(file, f"-opt {file}", (), {})
    force_options(found.opt, entries)
    if BASE in found.opt:
        raise OptionError(f"--force_yml {BASE}: bases belong in the option file")
    paths = [tuple(key.strip() for key in entry.partition("=")[0].split(":")) for entry in entries]
    found.places = _outside(found.places, paths)
    found.places.update(dict.fromkeys(paths, Place(0, "--force_yml", 0)))
    return found


def _read(file: str, named: str, above: Path, cache: dict[str, OptionFile]) -> OptionFile:
    """Read a file and, first, its bases.

    Args:
        file: path of the file.
        named: where it is named, for messages.
        above: the files that have it as a base.
        cache: what was read before, by file: two bases may share one.
    """
    if file in above:
        raise OptionError(f"{named}: a circle, {' > '.join((*above, file))}")
    if len(above) == _DEEPEST:
        raise OptionError(f"{named}: bases in more than {_DEEPEST} levels")
    if file in cache:
        return cache[file]
    own = _load(file, named, len(above) + 1)
    bases = own.opt.pop(BASE, None)
    at = f"{own.place((BASE,))}: {BASE}"
    bases = [bases] if isinstance(bases, str) else [] if bases is None else bases
    if not isinstance(bases, list) or not all(base and isinstance(base, str) for base in bases):
        raise OptionError(f"{at}: {bases!r}, expected a file or a list of files")
    whole = own
    if bases:
        whole = OptionFile(file, {})
        for base in bases:
            path = osp.normpath(osp.join(osp.dirname(file), expand(base)))
            path = path if osp.exists(path) else find_option_file(base)
            _complete(whole, _read(path, f"{at}: {path}", (*above, file), cache))
        _complete(whole, own)
    cache[file] = whole
    return whole


def _load(file: str, named: str, depth: int) -> OptionFile:
    """Read a file alone."""
    own = OptionFile(file, {})
    if not osp.isfile(file):
        found = "a folder" if osp.isdir(file) else f"no such file (looked from {osp.abspath(osp.curdir)})"
        raise OptionError(f"{named}: {found}, and {unknown_name(file)}")
    try:
        with open(file, encoding="utf-8") as stream:
            loader = Loader(stream)
            if node := loader.get_single_node():
                _note_places(node, (), depth, own, set())  # before anchors are merged into it
                own.opt = loader.construct_document(node)
    except OSError as error:
        raise OptionError(f"{named}: cannot be read: {error.strerror or error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise OptionError(f"{file}: not a valid option file: {error}") from None
    if node is None or not isinstance(own.opt, dict):
        got = "nothing" if node is None else type(own.opt).__name__
        raise OptionError(f"{file}: expected `key: value` lines at the top, got {got}")
    return own


def _note_places(node: yaml.Node, path: Path, depth: int, found: OptionFile, seen: set[int]) -> None:
    if id(node) in seen:  # an alias: its lines are those of the anchor, and it may hold itself
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            below, line = (*path, str(key.value)), key.start_mark.line + 1
            if key.tag == "tag:yaml.org,2002:merge":  # `<<`: what it brings is overridden on purpose
                pass
            elif below in found.places:
                found.twice[below] = f"in lines {found.places[below].line} and {line} of {found.file}"
            else:
                found.places[below] = Place(depth, found.file, line)
            _note_places(value, below, depth, found, seen)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _note_places(value, (*path, str(index)), depth, found, seen)


def _complete(whole: OptionFile, later: OptionFile) -> None:
    """Put a later file over what bases say, in place: its values win, mappings are merged, `~` removes."""
    replaced: list[Path] = [(BASE,)]
    whole.opt = _merged(whole.opt, later.opt, (), replaced, later.file)
    whole.places = _outside(whole.places, replaced) | later.places
    whole.twice |= later.twice


def _merged(base: dict[Any, Any], later: dict[Any, Any], path: Path, replaced: list[Path], file: str) -> dict[Any, Any]:
    if len(path) > _DEEPEST:
        raise OptionError(f"{file}: {path[0]}: holds itself: an anchor stands inside what it names")
    whole = dict(base)
    for key, value in later.items():
        below = (*path, str(key))
        if isinstance(value, dict) and isinstance(whole.get(key), dict) and value.get(_DELETE) is not True:
            whole[key] = _merged(whole[key], value, below, replaced, file)
            continue
        replaced.append(below)
        if value is None and key in whole and path != _KEEP_NULL:
            del whole[key]
        elif isinstance(value, dict) and value.get(_DELETE) is True:
            whole[key] = {name: each for name, each in value.items() if name != _DELETE}
        else:
            whole[key] = value
    return whole


def _outside(places: dict[Path, Place], paths: Sequence[Path]) -> dict[Path, Place]:
    """Places of keys that are neither under one of some paths nor one of them."""
    inside = set(paths)
    return {key: place for key, place in places.items() if not any(key[:depth] in inside for depth in range(1, len(key) + 1))}


def force_options(opt: dict[str, Any], entries: Sequence[str]) -> None:
    """Apply `--force_yml` entries in place.

    Args:
        opt: the options.
        entries: `a:b:c=value`, the value in YAML; a key that is not there yet is made.

    Raises:
        OptionError: no `=`, a value that is not YAML, or a path through something that is not a mapping.
    """
    for entry in entries:
        path, separator, text = entry.partition("=")
        keys = [key.strip() for key in path.split(":")]
        if not separator or not all(keys):
            raise OptionError(f"--force_yml {entry}: expected key:subkey=value")
        try:
            value = load(text)
        except yaml.YAMLError as error:
            reason = f" ({error.problem})" if isinstance(error, yaml.MarkedYAMLError) else ""
            raise OptionError(f"--force_yml {entry[:200]}: {text[:200]!r} is not a YAML value{reason}") from None
        node: Any = opt
        for depth, key in enumerate(keys[:-1], 1):
            if node.get(key) is None:  # not there, or nothing stands after it
                node[key] = {}
            node = node[key]
            if not isinstance(node, dict):
                raise OptionError(f"--force_yml {entry}: {':'.join(keys[:depth])} is {node!r}, it has no keys below it")
        node[keys[-1]] = value


def add_option_file(parser: argparse.ArgumentParser, one_of: argparse._MutuallyExclusiveGroup | None = None) -> None:
    """Declare `-opt` and `--force_yml`.

    Args:
        parser: of a command.
        one_of: a required group that `-opt` is one of; without, `-opt` is required.
    """
    (one_of or parser).add_argument(
        "-opt",
        required=one_of is None,
        metavar="FILE",
        type=find_option_file,
        help="option file (YAML), or a bundled one's name",
    )
    parser.add_argument("--force_yml", nargs="+", default=[], metavar="KEY:SUBKEY=VALUE", help="override options")
