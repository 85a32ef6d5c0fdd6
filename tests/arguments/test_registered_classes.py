"""Every bound of every signature here is enforced in Python and by the check alike."""

from __future__ import annotations

import inspect
import math

import pytest
from basicsr.utils.registry import ARCH_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY
from torch import nn

from kd_plugins.arguments import Named, fits
from kd_plugins.arguments.block_specs import Unannotated, house_of, schema_of_leaf, signature_block
from kd_plugins.arguments.checked import key_of
from kd_plugins.arguments.traversal import check_block
from kd_plugins.checks.findings import Findings
from kd_plugins.data.degradations import DEGRADATION_REGISTRY
from kd_plugins.data.negatives import NegativeInputs
from kd_plugins.extractors import EXTRACTOR_REGISTRY
from kd_plugins.losses.trust import Trust
from kd_plugins.models.history import History
from kd_plugins.options import OptionFile
from kd_plugins.teachers import ViewTransform

REGISTRIES = (ARCH_REGISTRY, LOSS_REGISTRY, EXTRACTOR_REGISTRY, DEGRADATION_REGISTRY, METRIC_REGISTRY)
REGISTERED = [entry for registry in REGISTRIES for _, entry in registry if house_of(entry) == "kd_plugins"]
TARGETS = [*REGISTERED, History, NegativeInputs, Trust, ViewTransform]
VALUES = (True, None, -1, 0, 1, 3, 2**70, 0.5, 2.5, 20.5, 1e9, math.nan, math.inf, "a", [], [3, 1], [-1, 1], [0.5], {})


def called(target, **arguments):
    """A call with `arguments`, and objects in place of what is needed beside them."""
    parameters = inspect.signature(target).parameters.values()
    needed = [each for each in parameters if each.default is each.empty and each.name not in arguments]
    given = [nn.Identity() for each in needed if each.kind is each.POSITIONAL_ONLY]
    named = {each.name: nn.Identity() for each in needed if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)}
    return target(*given, **named, **arguments)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.__name__)
def test_what_does_not_fit_a_signature_is_refused_in_python_and_by_the_check(target):
    block = signature_block(target)
    names = {key_of(name): name for name in inspect.signature(target).parameters}
    for key, spec in block.keys.items():
        assert not isinstance(spec, Unannotated), key
        spec = dict | None if isinstance(spec, Named) else spec
        for value in [value for value in VALUES if not fits(value, schema_of_leaf(spec))]:
            with pytest.raises(ValueError, match=rf"{key}: .*, expected "):
                called(target, **{names[key]: value})
            findings = Findings(OptionFile("a.yml", {}, {}, {}))
            check_block(findings, ("here",), {key: value}, block)
            assert findings.has_error(("here", key)), (key, value)
