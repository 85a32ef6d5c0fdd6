"""The JSON schema of option files: printed, valid for every bundled file, and made of what is registered."""

import json
from pathlib import Path

import pytest
from basicsr.utils.registry import LOSS_REGISTRY
from jsonschema import Draft202012Validator

from kd_plugins.checks import json_schema
from kd_plugins.cli import main
from kd_plugins.options import read_options

FOLDER = Path(__file__).parents[2] / "options"
FILES = [
    file
    for file in sorted(FOLDER.rglob("*.yml"))
    if not file.stem.startswith(("ablation", "study")) and file.parent.name != "tasks"
]


@pytest.fixture(scope="module")
def schema():
    return json_schema()


def is_valid(schema, value):
    return Draft202012Validator(schema).is_valid(value)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(FOLDER)))
def test_every_bundled_file_is_valid(schema, file):
    assert is_valid(schema, read_options(str(file)))


def test_features_are_auto_or_groups(schema):
    options = read_options(str(FOLDER / "slkd_derain.yml"))
    assert all(is_valid(schema, {**options, "features": features}) for features in ("auto", None, {"body": [["a", "b"]]}))
    assert not is_valid(schema, {**options, "features": "decoder"})


@pytest.mark.parametrize(
    "change",
    [
        lambda opt: opt.update(chanels_last=True),
        lambda opt: opt.update(model_type="SLKDModl"),
        lambda opt: opt.update(name="../photos"),
        lambda opt: opt["network_g"].update(dmi=8),
        lambda opt: opt["network_g"].update(dim="wide"),
        lambda opt: opt["datasets"]["train"]["degradation"].update(densty=1),
        lambda opt: opt["train"]["pixel_opt"].update(type="L1Los"),
        lambda opt: opt["train"].update(distill={"a": {"type": "ExtractorLoss", "extractor": {"type": "PiqExtractor"}}}),
        lambda opt: opt["train"].update(distill={"a": {"type": "L1Loss", "view": "clear"}}),
        lambda opt: opt["datasets"]["train"].update(gt_sizes=[0]),
        lambda opt: opt["logger"].update(print_freq="often"),
    ],
)
def test_what_the_check_refuses_is_not_valid(schema, change):
    opt = read_options(str(FOLDER / "slkd_derain.yml"))
    change(opt)
    assert not is_valid(schema, opt)


MEMBER = {"checkpoint": "a.pth", "weight": 0.5}
FINE_TEACHERS = [
    {"type": "DnCNN", "nb": 8, "checkpoint": "a.pth"},
    {"type": "torch.nn.Identity", "checkpoint": "a.pth", "any": 1},
    {"file": "a.py", "class": "Net", "checkpoint": "a.pth", "any": 1, "pad_to": 8},
    {"program": "a.pt", "trust": True, "noise_level": 25, "output": "image"},
    {
        "ensemble": [
            MEMBER,
            {"program": "a.pt", "trust": True},
            {"ensemble": [MEMBER, {"type": "DnCNN", "nb": 8, "checkpoint": "a.pth"}]},
        ]
    },
    {"tasks": {"a": {"checkpoint": "a.pth"}, 25: {"ensemble": [MEMBER]}}},
    None,
]
WRONG_TEACHERS = [
    {"type": "DnCNN", "deep": 8, "checkpoint": "a.pth"},
    {"type": "DnCNNN", "checkpoint": "a.pth"},
    {"type": "torch.nn.Identity"},
    {"file": "a.py", "checkpoint": "a.pth"},
    {"file": "a.py", "class": "Net", "type": "DnCNN", "checkpoint": "a.pth"},
    {"class": "Net", "checkpoint": "a.pth"},
    {"program": "a.pt", "trust": True, "checkpoint": "a.pth"},
    {"program": "a.pt"},
    {"program": "a.pt", "trust": False},
    {"checkpoint": "a.pth", "pad_to": 0},
    {"checkpoint": "a.pth", "output": 0.5},
    {"ensemble": []},
    {"ensemble": [MEMBER], "pad_to": 8},
    {"ensemble": ["a.pth"]},
    {"ensemble": [{**MEMBER, "weight": -1}]},
    {"ensemble": [{"ensemble": [{"type": "DnCNN", "deep": 8, "checkpoint": "a.pth"}]}]},
    {"ensemble": [{"tasks": {"a": {"checkpoint": "a.pth"}}}]},
    {"tasks": {}},
    {"tasks": None},
    {"tasks": {"a": {"checkpoint": "a.pth"}}, "pad_to": 8},
    {"tasks": {"a": {"tasks": {"b": {"checkpoint": "a.pth"}}}}},
    {"tasks": {"a": {"type": "DnCNN", "deep": 8, "checkpoint": "a.pth"}}},
]
FINE_STUDENTS = [
    *FINE_TEACHERS[:3],
    {"type": "DnCNN", "nb": 8},
    {"checkpoint": "a.pth"},
    {"type": "SourcedNetwork", "network": {"file": "a.py", "class": "Net"}},
]
WRONG_STUDENTS = [
    *WRONG_TEACHERS[:2],
    {"dim": 8},
    {"program": "a.pt"},
    {"ensemble": [MEMBER]},
    {"tasks": {"a": {"checkpoint": "a.pth"}}},
    {"file": "a.py"},
    {"type": "SourcedNetwork"},
    {"type": "SourcedNetwork", "network": {"program": "a.pt"}},
]
KINDS = {
    True: [*(("teacher", block) for block in FINE_TEACHERS), *(("network_g", block) for block in FINE_STUDENTS)],
    False: [*(("teacher_clean", block) for block in WRONG_TEACHERS), *(("network_g", block) for block in WRONG_STUDENTS)],
}


@pytest.mark.parametrize(
    ("key", "block", "fine"), [(*case, fine) for fine, cases in KINDS.items() for case in cases], ids=lambda value: str(value)[:60]
)
def test_networks_from_any_source(schema, key, block, fine):
    opt = read_options(str(FOLDER / "slkd_derain.yml"))
    assert is_valid(schema, {**opt, key: block}) == fine


@pytest.mark.parametrize(
    "change",
    [
        lambda tasks: tasks.clear(),
        lambda tasks: tasks["noise"].update(use_hflp=True),
        lambda tasks: tasks["noise"].update(use_shuffle=True),
        lambda tasks: tasks["noise"].update(type="TaskDataset", tasks={"a": dict(tasks["rain"])}),
        lambda tasks: tasks["noise"]["degradation"].update(sgima=25),
    ],
)
def test_the_data_of_a_task_is_checked_as_any_other(schema, change):
    opt = read_options(str(FOLDER / "slkd_tasks.yml"))
    assert is_valid(schema, opt)
    change(opt["datasets"]["train"]["tasks"])
    assert not is_valid(schema, opt)


def test_students_of_basicsrs_models_are_registered(schema):
    opt = {**read_options(str(FOLDER / "slkd_derain.yml")), "model_type": "SRModel"}
    opt["train"]["scheduler"] = {"type": "MultiStepLR", "milestones": [1]}
    inner = {"type": "DnCNN", "nb": 8}
    assert is_valid(schema, {**opt, "network_g": {"type": "SourcedNetwork", "network": inner}})
    assert not is_valid(schema, {**opt, "network_g": inner})


def test_a_training_needs_no_validation(schema):
    opt = read_options(str(FOLDER / "slkd_derain.yml"))
    del opt["val"]
    assert is_valid(schema, opt)


def test_keys_of_forks_without_effect_are_deprecated(schema):
    assert schema["else"]["then"]["properties"]["val"]["anyOf"][0]["properties"]["rgb2bgr"]["deprecated"]


def test_the_command_prints_it(schema, capsys):
    assert main(["check", "--schema"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(json.dumps(schema)) and printed["$schema"].endswith("2020-12/schema")


def test_it_has_what_is_registered_at_the_time(schema, monkeypatch):
    class LateLoss:
        def __init__(self, alpha: float = 1.0):
            pass

    monkeypatch.setitem(LOSS_REGISTRY._obj_map, "LateLoss", LateLoss)
    opt = read_options(str(FOLDER / "slkd_derain.yml"))
    opt["train"]["pixel_opt"] = {"type": "LateLoss", "alpha": 2}
    assert not is_valid(schema, opt) and is_valid(json_schema(), opt)


def test_it_is_a_schema(schema):
    Draft202012Validator.check_schema(schema)


def test_a_file_over_a_base_may_leave_out_what_the_base_has(schema):
    assert is_valid(schema, {"_base_": ["a.yml", "tasks/denoise.yml"], "name": "mine", "train": {"total_iter": 10}})
    assert not is_valid(schema, {"_base_": 3})
    assert not is_valid(schema, {"_base_": "a.yml", "trian": {}})
    assert not is_valid(schema, {"name": "mine"})
