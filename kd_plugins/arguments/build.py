"""Build what a block of an option file says: one way for losses, extractors, degradations, optimizers, and the rest."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, cast

from kd_plugins.arguments.block_specs import Named, Path, Spec, signature_block
from kd_plugins.arguments.checked import argument_of
from kd_plugins.arguments.traversal import check_value

_REFUSALS = (TypeError, ValueError, KeyError, AssertionError, NotImplementedError)
"""What constructors raise at arguments that they do not take."""


def build(what: Named | Callable[..., Any], block: Any, path: Path, *given: Any) -> Any:
    """Build an object from its block, which is checked first, as `basicsr check` does it.

    Args:
        what: the entries that the block's `type` chooses from; or the one class or function that takes the block's keys.
        block: the block; nothing is an empty one where there is no `type` to name.
        path: the keys that lead to it, for messages.
        given: positional arguments that the code gives, not the option file.

    Returns:
        What the entry's constructor, or the function, returns.

    Raises:
        ValueError: no such entry, an unknown key, a wrong value, or arguments that do not go together; it names the key, the
            value, what was expected, and the nearest name.
        FileNotFoundError: an argument names a file that is not there.
    """
    block, target, beside = {} if block is None else block, cast(Any, what), set()
    if isinstance(what, Named):
        check_value(_Raise(), path, block, what)
        target, beside = what.entry(block.get("type", what.default)), {"type", *what.beside}
    else:
        check_value(_Raise(), path, block, signature_block(what, given=list(inspect.signature(what).parameters)[: len(given)]))
    arguments = {argument_of(key): value for key, value in block.items() if key not in beside}
    try:
        return target(*given, **arguments)
    except _REFUSALS as error:
        raise ValueError(f"{':'.join(path)}: {said_by(error)}") from error
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{':'.join(path)}: {error}") from error


def require(spec: Spec, block: Any, path: Path) -> None:
    """Hold a block to what may stand in it, without building anything.

    Raises:
        ValueError: as `build`.
    """
    check_value(_Raise(), path, block, spec)


def said_by(error: Exception) -> str:
    """The text of an error; that of a KeyError without the quotes, and the name of one without a text."""
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    return str(text) or type(error).__name__


class _Raise:
    """Findings of which the first is raised."""

    def error(self, path: Path, text: str) -> None:
        raise ValueError(f"{':'.join(path)}: {text}")

    def warning(self, path: Path, text: str) -> None:
        pass  # said by the check

    def file(self, path: Path, name: str) -> None:
        pass  # said by who opens it
