"""Damaged option files and checkpoints: a run or an error of ours, and nothing changes on disk. tools/fuzz.py does any number."""

import sys
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

TOOLS = Path(__file__).parents[2] / "tools"
randoms = st.randoms(use_true_random=False)
quietly = {"deadline": None, "database": None, "derandomize": True, "suppress_health_check": list(HealthCheck)}


@pytest.fixture(scope="module")
def fuzz():
    sys.path.insert(0, str(TOOLS))
    try:
        import fuzz

        yield fuzz
    finally:
        sys.path.remove(str(TOOLS))


@pytest.fixture(scope="module")
def options(fuzz, tmp_path_factory):
    return fuzz.Options(tmp_path_factory.mktemp("options"))


@settings(max_examples=60, **quietly)
@given(random=randoms)
def test_a_damaged_option_file_is_refused_or_trains(options, random):
    assert options.attempt(random) in ("refused", "trained", "too large")


def test_a_damaged_checkpoint_is_refused_or_harmless_and_changes_nothing(fuzz, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoints = fuzz.Checkpoints(tmp_path)
    outcomes = [checkpoints.attempt(Random(number)) for number in range(20)]
    assert outcomes.count("refused") > 10
