"""YAML as option files have it: safe, of a size that can be walked through, its errors with their lines."""

from __future__ import annotations

import itertools
import re
from typing import Any

import yaml

_DEEPEST = 100  # levels of nesting: whatever walks through the options does so by recursion
_MOST = 100_000  # values, each counted wherever an alias repeats it: whatever walks through the options sees it there


class Loader(yaml.SafeLoader):
    """Safe YAML that reads 1e-4 as a number, as YAML 1.2 does."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """As SafeLoader's, down to a depth."""
        if self.depth == _DEEPEST:
            raise yaml.MarkedYAMLError(problem=f"nested in more than {_DEEPEST} levels", problem_mark=self.peek_event().start_mark)
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    def get_single_node(self) -> yaml.Node | None:
        """As SafeLoader's, of a size that can be walked through."""
        node = super().get_single_node()
        count, depth = (0, 0) if node is None else _extent(node, {})
        if count > _MOST or depth > _DEEPEST:
            raise yaml.MarkedYAMLError(
                problem=f"aliases repeat what they stand for until there are more than {_MOST} values, or {_DEEPEST} levels of them"
            )
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """As SafeLoader's, whose own errors for `!!int ""`, `!!bool x` or a date like 2025-13-01 say neither line nor value."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError, IndexError, AttributeError, OverflowError) as error:
            if not isinstance(node, yaml.ScalarNode):
                raise
            kind = node.tag.rpartition(":")[2]
            raise yaml.MarkedYAMLError(problem=f"{node.value[:100]!r} is no {kind}", problem_mark=node.start_mark) from error


def _extent(node: yaml.Node, seen: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """How many nodes there are in one, and in how many levels; each alias counted as what it stands for."""
    if id(node) not in seen:
        seen[id(node)] = (0, 0)  # one that holds itself is found elsewhere
        parts = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        below = [_extent(part, seen) for part in (() if isinstance(node, yaml.ScalarNode) else parts)]
        seen[id(node)] = 1 + sum(count for count, _ in below), 1 + max((depth for _, depth in below), default=0)
    return seen[id(node)]


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


for _each in (Loader, _Dumper):
    _each.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)$"), list("-+.0123456789")
    )


def load(text: str) -> Any:
    """The value of a YAML text.

    Raises:
        yaml.YAMLError: it is none, or no safe one.
    """
    return yaml.load(text, Loader=Loader)  # noqa: S506 (a SafeLoader)


def text_saying(value: Any, text: str) -> str:
    """A text as it is, where it says just this value; else its opening comment, and the value."""
    if load(text) == value:
        return text
    lines = text.splitlines(keepends=True)
    return "".join(itertools.takewhile(lambda line: line.startswith("#"), lines)) + dump(value)


def dump(value: Any) -> str:
    """A value as YAML that `load` reads as the same."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None, width=132)


def one_line(value: Any) -> str:
    """A value as an option file has it behind a key: YAML in one line."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")
