"""What fuzz.py does to option files: one to three random changes, by a generator that is given."""

from __future__ import annotations

import copy
import datetime
from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import Any

import yaml

from kd_plugins.checks.datasets import DATASETS
from kd_plugins.checks.option_keys import LOSS, METRIC, MODELS, NETWORK
from kd_plugins.data.degradations import DEGRADATION
from kd_plugins.extractors import EXTRACTOR
from kd_plugins.training.optimizers import OPTIMIZERS, SCHEDULERS


def _deep(levels: int) -> Any:
    node: Any = 1
    for level in range(levels):
        node = [node] if level % 2 else {"a": node}
    return node


NUMBERS = (
    *(-1, 0, 1, 2, 3, 7, 0.5, -0.5, 1e-4, -0.0, 5e-324, 1e308, -1e308, -(2**63), 2**63, -(10**30), 10**30),
    *(float("nan"), float("inf"), float("-inf")),
)
VALUES = (
    *(None, True, False, *NUMBERS),
    *("", "x", "auto", "no", "1e-4", "nan", "2025-13-01", "/", "~", ".", "../..", "~/", "é\u2028", "\u202e👍日本", "a" * 5000),
    *([], {}, [1], ["x"], [[]], [None], [0, -1], [float("nan")], [1, "x", None], {"a": 1}, {1: 2}, {None: {}}, {True: []}),
    *({"type": "x"}, {"type": None}, {"type": []}, {"type": {}}, [{"type": "L1Loss"}], {"type": "L1Loss", "loss_weight": None}),
    *(b"\x00\xff", datetime.date(2025, 1, 1), datetime.datetime(2025, 1, 1, 12), {"x"}, _deep(40)),
)
_TAGS = ("int", "float", "bool", "timestamp", "binary", "set", "omap", "pairs", "seq", "map", "str", "null", "merge", "value")
TEXTS = (
    *("\t", ":", "- ", "{", "}", "[", "]", "'", '"', "%", "\x00", "?", "\r", "\ufeff", "\n---\n", "\n...\n", "&a ", "*a "),
    *("!!python/object/apply:os.getcwd []", "!!python/name:os.getcwd ", "!own ", *(f"!!{tag} " for tag in _TAGS)),
    *("<<: *a\n", "<<: 1\n", "? [1]\n: 2\n", "? {a: 1}\n: 2\n", "[" * 50, "[" * 5000, "{a: " * 2000, "0x", "1" * 5000),
)
WHOLE_FILES = (b"", b"\n", b"---\n", b"~", b"1", b"[]", b"{}", b"x", b"\xff\xfe", b"\xef\xbb\xbf", b"&a [*a]", b"&a {a: *a}", b"? ")
_NAMES = [
    *(LOSS, METRIC, EXTRACTOR, DATASETS, DEGRADATION, NETWORK),
    *(dict(OPTIMIZERS), dict(SCHEDULERS)),
]
# BasicSR's own videos, GANs and faces, and what would be downloaded, are not ours to answer for
_NOT_OURS = (
    *("GAN", "VGG", "Perceptual", "EDVR", "Video", "REDS", "Vimeo", "FFHQ", "DFDNet", "VSR", "DUF", "SpyNet", "TOFlow"),
    "Discriminator",
)


def _entries(named: Any) -> list[str]:
    entries = named if isinstance(named, Mapping) else named.entries
    return [name for name in entries if not any(part in name for part in _NOT_OURS)]


def _siblings(name: object) -> list[str]:
    """What may stand in place of a registered name, of the same registry."""
    own = [_entries(named) for named in (*_NAMES, MODELS) if name in _entries(named)]
    if name in _entries(MODELS):
        return [name for name in own[0] if name.endswith(("DModel", "DistillationModel"))]
    return own[0] if own else []


def _arguments(name: object) -> list[str]:
    """What a registered name takes."""
    for named in _NAMES:
        if not isinstance(named, Mapping) and named.has(name):
            block = named.block_of(str(name))
            return list(block.keys) if block else []
    return []


def places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a tree of options with each of its keys."""
    for key in list(node) if isinstance(node, dict) else range(len(node)):
        yield node, key
        if isinstance(node[key], (dict, list)):
            yield from places(node[key])


def damaged_options(options: dict[str, Any], blocks: Sequence[Mapping[str, Any]], random: Random) -> bytes:
    """The content of an option file in which one to three things were changed, and sometimes its text as well.

    Args:
        options: good ones.
        blocks: further good values that go together, by the keys that lead there ('train:scheduler').
        random: what is drawn from.
    """
    options = copy.deepcopy(options)
    for _ in range(random.choice((0, 0, 1, 2))):
        for path, value in random.choice(blocks).items():
            _put(options, path, value)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        _change(options, random)
    text = yaml.dump(options, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    if random.random() < 0.25:
        text = _damaged_text(text, random)
    content = text.encode()
    if random.random() < 0.02:
        return random.choice(WHOLE_FILES)
    if random.random() < 0.02:
        at = random.randrange(len(content) + 1)
        content = content[:at] + bytes([random.randrange(256)]) + content[at:]
    return content


class _Dumper(yaml.SafeDumper):
    """Writes what stands at several places as often as it does: with its anchors every change would be one of them all."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _put(options: dict[str, Any], path: str, value: Any) -> None:
    *above, last = path.split(":")
    node = options
    for key in above:
        if not isinstance(node.get(key), dict):
            node[key] = {}
        node = node[key]
    node[last] = copy.deepcopy(value)


_CHANGES = ("value", "delete", "rename", "move", "wrap", "add", "argument", "type", "number", "twice")


def _change(options: dict[str, Any], random: Random) -> None:
    found = list(places(options))
    if not found:
        return
    (node, key), (other, from_key) = random.choice(found), random.choice(found)
    what = random.choice((*_CHANGES, "value", "argument", "argument", "type", "number"))
    named = [(block, block["type"]) for block, at in found if isinstance(block, dict) and at == "type"]
    if what == "value":
        node[key] = copy.deepcopy(random.choice(VALUES))
    elif what == "delete":
        del node[key]
    elif what == "rename" and isinstance(node, dict):
        name = str(key)
        node[random.choice((name + "s", name[:-1], name.upper(), name[::-1], name + "\u200b", 1, None))] = node.pop(key)
    elif what == "move":
        node[key] = copy.deepcopy(other[from_key])
    elif what == "wrap":
        node[key] = random.choice(([node[key]], {"type": node[key]}, {key: node[key]}, str(node[key]), {"ensemble": [node[key]]}))
    elif what == "add" and isinstance(node, dict):
        node[random.choice(("type", "loss_weight", "window", "checkpoint", "file", "x", 3))] = copy.deepcopy(random.choice(VALUES))
    elif what == "argument" and named:
        block, name = random.choice(named)
        if arguments := _arguments(name):
            block[random.choice(arguments)] = copy.deepcopy(random.choice(random.choice((NUMBERS, NUMBERS, VALUES))))
    elif what == "type" and named:
        block, name = random.choice(named)
        if names := _siblings(name):
            block["type"] = random.choice(names)
    elif what == "number":
        numbers = [(holder, at) for holder, at in found if isinstance(holder[at], (int, float))]
        if numbers:
            node, key = random.choice(numbers)
            value = node[key]
            node[key] = random.choice((-value, value + 1, value / 2, str(value), [value], float(value), *NUMBERS))
    elif what == "twice" and isinstance(node, list):
        node.insert(random.randint(0, len(node)), copy.deepcopy(random.choice((node[key], other[from_key]))))


def _damaged_text(text: str, random: Random) -> str:
    """A piece of YAML put in, text cut off or out, a line twice, a value that is an alias of another one."""
    at, what = random.randint(0, len(text)), random.choice(("put", "put", "value", "value", "end", "cut", "line", "alias"))
    if what == "put":
        return text[:at] + random.choice(TEXTS) + text[at:]
    if what == "end":
        return text[:at]
    if what == "cut":
        return text[:at] + text[at + random.randint(1, 9) :]
    lines = text.splitlines(keepends=True)
    valued = [number for number, line in enumerate(lines) if ": " in line]
    if what == "line" or len(valued) < 2:
        number = random.randrange(max(len(lines), 1))
        return "".join([*lines[: number + 1], *lines[number : number + 1] * random.choice((1, 1, 2)), *lines[number + 1 :]])
    anchor, alias = sorted(random.sample(valued, 2))
    if what == "value":
        lines[alias] = lines[alias].replace(": ", f": {random.choice(TEXTS)}", 1)
        return "".join(lines)
    blocks = [number for number in range(alias) if lines[number].rstrip().endswith(":")]
    anchor = random.choice((anchor, *blocks))
    lines[anchor] = lines[anchor].rstrip().replace(":", ": &a", 1) + "\n"
    key, indent = lines[alias].split(": ")[0], " " * (len(lines[alias]) - len(lines[alias].lstrip()))
    lines[alias] = random.choice((f"{key}: *a\n", f"{indent}<<: *a\n", f"{lines[alias]}{indent}<<: [*a, *a]\n"))
    return "".join(lines)
