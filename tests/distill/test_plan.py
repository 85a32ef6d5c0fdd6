"""The option file of a distillation: which recipe, for which degradation."""

import json

import pytest
import torch
import yaml

from kd_plugins.distill.plan import Plan, Request

ONE_STAGE = """
import torch

class Net(torch.nn.Sequential):
    def __init__(self, width=8):
        super().__init__(torch.nn.Conv2d(3, width, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(width, 3, 3, padding=1))
"""


@pytest.fixture
def terms_of(teacher_file, tmp_path, one_thread):
    """The terms of the file that a request makes, and its heading."""

    def terms(degradation, teacher=str(teacher_file), recipe=None):
        request = Request(teacher, {"params": 0.4}, "builtin", degradation, recipe=recipe, threads=1)
        text = Plan(request, "basicsr distill", tmp_path / "out").render(8)
        return yaml.safe_load(text)["train"]["distill"], text

    return terms


@pytest.mark.parametrize(
    ("degradation", "recipe", "names"),
    [
        ("rain", None, ["hint", "kl"]),
        ("blur", None, ["hint", "kl"]),
        ("noise:25", None, ["logits"]),
        ("noise:25", "hint", ["hint", "kl"]),
        ("rain", "logits", ["logits"]),
    ],
)
def test_the_degradation_chooses_the_recipe_unless_it_is_told(terms_of, degradation, recipe, names):
    terms, _ = terms_of(degradation, recipe=recipe)
    assert list(terms) == names


def test_a_teacher_without_stages_is_followed_by_its_image(terms_of, tmp_path):
    (tmp_path / "net.py").write_text(ONE_STAGE)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 3, 3))
    torch.save({"params": net.state_dict()}, tmp_path / "net.pth")
    teacher = json.dumps({"file": str(tmp_path / "net.py"), "class": "Net", "checkpoint": str(tmp_path / "net.pth")})
    with pytest.raises(ValueError, match="--recipe hint: "):
        terms_of("rain", teacher, "hint")
    terms, text = terms_of("rain", teacher)
    assert list(terms) == ["logits"] and "# (Not hint first: " in text
