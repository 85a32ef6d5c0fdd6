"""Signatures are enforced: bounds, types, what is let through, and how it is said."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
import torch
from annotated_types import Gt, Len
from torch import Tensor, nn

from kd_plugins.arguments import Above, AtLeast, Below, Between, MinLen, MultipleOf, Range, Share, WholeRange, checked, schema_of


@checked
class Everything(nn.Module):
    def __init__(
        self,
        sigma: Annotated[float, Above(0)] = 1.0,
        levels: Annotated[int, Between(1, 4)] | None = None,
        norm: Literal["l1", "l2"] = "l1",
        decay: Annotated[float, AtLeast(0), Below(1)] = 0.5,
        window: Annotated[int, MultipleOf(8)] = None,  # type: ignore[assignment]
        density: Annotated[Range, AtLeast(0)] = 1.0,
        layers: Annotated[WholeRange, Between(1, 8)] = 1,
        weights: Annotated[Sequence[float], AtLeast(0), MinLen(1)] = (1.0,),
        chance: Share = 0.5,
        file: str | os.PathLike[str] = "",
        net: nn.Module | None = None,
        scale: float | Tensor = 1.0,
        block: Mapping[str, Any] | None = None,
        flag: bool = False,
        from_: Annotated[float, Gt(0)] = 1.0,
        pair: Annotated[list[int], Len(2, 2)] = [1, 2],  # noqa: B006
        untyped=None,
    ) -> None:
        super().__init__()
        self.net = net


@pytest.mark.parametrize(
    "arguments",
    [
        {"sigma": 0.1},
        {"sigma": 1},
        {"sigma": np.float32(0.5)},
        {"sigma": torch.tensor(-1.0)},  # an object is the callee's affair
        {"levels": None},
        {"levels": np.int64(4)},
        {"norm": "l2"},
        {"decay": 0},
        {"window": None},
        {"window": 16},
        {"density": [0.5, 4]},
        {"density": (2, 2)},
        {"layers": [1, 8]},
        {"weights": np.ones(3)},
        {"weights": (0, 1)},
        {"file": Path("a.pth")},
        {"net": nn.Identity(), "scale": torch.ones(3)},
        {"block": {"a": 1}},
        {"untyped": object()},
        {"from_": 2},
    ],
)
def test_what_the_signature_allows(arguments):
    Everything(**arguments)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"sigma": 0}, "sigma: 0, expected a number above 0"),
        ({"sigma": math.inf}, "sigma: inf, expected a number above 0"),
        ({"sigma": math.nan}, "sigma: nan, expected a number above 0"),
        ({"sigma": True}, "sigma: True, expected a number above 0"),
        ({"sigma": "1"}, "sigma: '1', expected a number above 0"),
        ({"sigma": np.float32(-1)}, "sigma: .*, expected a number above 0"),
        ({"sigma": None}, "sigma: None, expected a number above 0"),
        ({"levels": 2.0}, "levels: 2.0, expected a whole number from 1 to 4 or nothing"),
        ({"levels": 5}, "levels: 5, expected a whole number from 1 to 4 or nothing"),
        ({"norm": "L1"}, "norm: 'L1', expected one of l1, l2; nearest: l1"),
        ({"decay": 1}, "decay: 1, expected a number of at least 0 and below 1"),
        ({"window": 12}, "window: 12, expected a whole number divisible by 8 or nothing"),
        ({"density": [4, 1]}, "density: .*, expected a number of at least 0 or .lo, hi. with lo <= hi"),
        ({"density": [-1, 1]}, "each a number of at least 0"),
        ({"density": [1, 2, 3]}, "lo <= hi"),
        ({"layers": [1, 9]}, "each a whole number from 1 to 8"),
        ({"weights": []}, "expected a list of at least 1 .each a number of at least 0"),
        ({"weights": [1, -1]}, "weights: .1, -1., expected a list"),
        ({"chance": 1.5}, "chance: 1.5, expected a number from 0 to 1"),
        ({"file": 3}, "file: 3, expected the path of a file"),
        ({"block": "a"}, "block: 'a', expected a mapping or nothing"),
        ({"flag": "no"}, "flag: 'no', expected true or false"),
        ({"from_": 0}, "from: 0, expected a number above 0"),
        ({"pair": [1]}, "pair: "),
    ],
)
def test_what_it_does_not(arguments, expected):
    with pytest.raises(ValueError, match=f"^Everything: .*{expected}"):
        Everything(**arguments)


def test_a_call_that_python_refuses_says_what_python_says():
    with pytest.raises(TypeError, match="unexpected keyword argument 'sigm'"):
        Everything(sigm=1)  # type: ignore[call-arg]


def test_a_subclass_is_named():
    class Mine(Everything):
        def __init__(self, sigma):
            super().__init__(sigma)

    with pytest.raises(ValueError, match=r"^Mine: sigma: -1, expected a number above 0"):
        Mine(-1)


def test_functions_and_dataclasses():
    @checked
    def score(img, model: os.PathLike[str] | None = None, *, scale: Annotated[float, Above(0)] = 1.0, **kwargs: int):
        return scale

    assert score(np.zeros(3), scale=2, more="x") == 2
    with pytest.raises(ValueError, match=r"^score: scale: 0, expected a number above 0"):
        score(None, scale=0)

    @checked
    @dataclasses.dataclass
    class Noise:
        sigma: Annotated[Range, AtLeast(0)] = 25.0

    assert Noise([1, 2]).sigma == [1, 2]
    with pytest.raises(ValueError, match=r"^Noise: sigma: -1"):
        Noise(-1)


def test_annotations_that_cannot_be_evaluated_are_left_alone():
    @checked
    def one(size: NowhereDefined = 3):  # type: ignore[name-defined]  # noqa: F821
        return size

    assert one("x") == "x"


def test_bounds_are_words_of_the_schema():
    assert schema_of(Annotated[float | None, Between(0, 1)]) == {
        "anyOf": [{"type": "number", "minimum": 0, "maximum": 1}, {"type": "null"}]
    }
    assert schema_of(str | os.PathLike[str]) == {"type": "string", "format": "path"}
    assert schema_of(Annotated[tuple[int, int], AtLeast(1)])["items"] == {"type": "integer", "minimum": 1}
