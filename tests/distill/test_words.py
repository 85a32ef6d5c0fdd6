import pytest

from kd_plugins.distill.words import read_degradation, read_time


@pytest.mark.parametrize(
    ("text", "block"),
    [
        ("rain", {"type": "rain"}),
        ("noise:25", {"type": "noise", "sigma": 25}),
        ("noise:5-50", {"type": "noise", "sigma": [5, 50]}),
        ("downsample:4", {"type": "downsample", "scale": 4}),
        ("blur", {"type": "blur"}),
        ("{type: rain, density: [1, 2]}", {"type": "rain", "density": [1, 2]}),
    ],
)
def test_a_degradation_is_a_name_with_a_number_or_a_block(text, block):
    assert read_degradation(text) == block


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rian", "rain"),
        ("noise:x", "expected a number"),
        ("noise:-1", "expected a number"),
        ("rain:4", "takes no number"),
        ("downsample:1.5", "scale"),
        ("{type: rain", "--degradation"),
        ("{type: rain, densty: 1}", "density"),
    ],
)
def test_what_is_no_degradation_is_one_error(text, words):
    with pytest.raises(ValueError, match="--degradation") as error:
        read_degradation(text)
    assert words in str(error.value)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("1.5h", 5400), ("1h30m", 5400)])
def test_a_time_has_units(text, seconds):
    assert read_time(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "0m", "soon", "1.2.3m"])
def test_what_is_no_time_is_one_error(text):
    with pytest.raises(ValueError, match="--budget"):
        read_time(text)
