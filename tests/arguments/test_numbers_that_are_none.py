"""Numbers that are none: whatever looks at a range lets neither `nan` nor infinity pass."""

import math

import pytest
from basicsr.utils.registry import LOSS_REGISTRY

from kd_plugins.arguments.block_specs import house_of, signature_block
from kd_plugins.data.degradations import DEGRADATION_REGISTRY
from kd_plugins.data.negatives import NegativeInputs
from kd_plugins.extractors import EXTRACTOR_REGISTRY
from kd_plugins.teachers import ViewTransform

REGISTERED = [entry for registry in (LOSS_REGISTRY, EXTRACTOR_REGISTRY, DEGRADATION_REGISTRY) for _, entry in registry]
CLASSES = [entry for entry in REGISTERED if house_of(entry) == "kd_plugins"] + [NegativeInputs, ViewTransform]


def said(cls, key, value):
    try:
        cls(**{key: value})
    except ValueError as error:
        return str(error)
    except TypeError:  # something else is missing, or no number may stand there
        return ""
    return ""


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_what_has_a_range_refuses_what_is_no_number(cls):
    ranged = [key for key in signature_block(cls).keys if said(cls, key, -1) and not said(cls, key, 20)]
    for key in ranged:
        for value in (math.nan, math.inf, -math.inf):
            assert said(cls, key, value), f"{cls.__name__}: {key}: {value}"
