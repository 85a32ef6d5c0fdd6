"""The decorator that enforces what a signature says."""

from __future__ import annotations

import functools
import inspect
import keyword
import typing
from collections.abc import Callable
from typing import Any, TypeVar, cast

from kd_plugins.arguments.type_schemas import Schema, fits, refusal, schema_of

_T = TypeVar("_T", bound=Callable[..., Any])


def checked(target: _T) -> _T:
    """Check the arguments of a class or a function against its annotations whenever it is called.

        @LOSS_REGISTRY.register()
        @checked
        class MyLoss(nn.Module):
            def __init__(self, sigma: Annotated[float, Above(0)], norm: Literal["l1", "l2"] = "l1") -> None:

    An argument without annotation, or whose annotation YAML has no word for, may be anything. So may tensors, arrays and other
    objects, whatever the annotation; None where it is the default. `basicsr check` and the JSON schema read the same annotations.

    Args:
        target: a class (its `__init__` is checked; above `@dataclass`), or a function.

    Returns:
        The same class, or the function that checks first. They raise ValueError, with the argument, its value and what was
        expected.
    """
    if inspect.isclass(cls := cast(Any, target)):
        cls.__init__ = _checked(cls.__init__)
        return target
    return _checked(target)


def _checked(function: Any) -> Any:
    signature = inspect.signature(function)

    @functools.cache
    def schemas() -> dict[str, Schema]:  # at the first call: an annotation may name what is defined below
        return {name: schema for name, hint in hints_of(function).items() if (schema := schema_of(hint))}

    @functools.wraps(function)
    def check_first(*args: Any, **kwargs: Any) -> Any:
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError:  # said by the call
            given = {}
        for name, value in given.items():
            if name in schemas() and not fits(value, schemas()[name]):
                owner = type(args[0]) if function.__name__ == "__init__" else function
                raise ValueError(f"{owner.__name__}: {key_of(name)}: {refusal(value, schemas()[name])}")
        return function(*args, **kwargs)

    return check_first


def key_of(name: str) -> str:
    """What an option file calls an argument: `from_` is `from` there, which is no name in Python."""
    return name.removesuffix("_")


def argument_of(key: str) -> str:
    """The argument that an option file calls so."""
    return f"{key}_" if keyword.iskeyword(key) else key


def hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a function's named arguments, evaluated; of those that have none, or cannot be evaluated, nothing.

    Many write `size: int = None`: None is allowed where it is the default.
    """
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except Exception:  # a name that exists for type checkers only
        return {}
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    named = [parameter for parameter in parameters if parameter.name in hints and parameter.kind not in variadic]
    return {each.name: typing.Optional[hints[each.name]] if each.default is None else hints[each.name] for each in named}  # noqa: UP045
