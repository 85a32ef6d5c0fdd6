"""docs/extending.md, walked as it stands: its files, its commands, what they say."""

import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
import torch
import yaml
from basicsr.utils.registry import LOSS_REGISTRY, METRIC_REGISTRY, MODEL_REGISTRY

from kd_plugins.teachers import SOURCE_REGISTRY

REGISTRIES = (LOSS_REGISTRY, METRIC_REGISTRY, MODEL_REGISTRY, SOURCE_REGISTRY)
PAGE = (Path(__file__).parents[1] / "docs" / "extending.md").read_text(encoding="utf-8")
WALKS = {}
for section in PAGE.split("\n## "):
    if blocks := re.findall(r"```(\w+)\n(.*?)```", section, re.S):
        WALKS[section.partition("\n")[0]] = blocks


@pytest.fixture
def walk(options, write, photo_folder, tmp_path, monkeypatch, capsys):
    """Put the files of a section of the page into an empty folder, beside a small `base.yml`; returns the command line there."""
    options.update(model_type="DistillationModel", features=None, init="random")
    options["train"].update(total_iter=2, distill={"logits": {"type": "L1Loss", "between": "output"}})
    options["datasets"]["val"] = {
        "name": "small",
        "type": "DegradedPhotoDataset",
        "photos": str(photo_folder),
        "degradation": {"type": "rain"},
    }
    options["val"] = {"val_freq": 2, "save_img": False, "metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 0}}}
    write(options, "base.yml")
    monkeypatch.chdir(tmp_path)

    def python(line):
        """Run `python FILE.py ...` as a process would; its exit code, and what it printed."""
        words = shlex.split(line)
        assert words[0] == "python"
        with monkeypatch.context() as process, pytest.raises(SystemExit) as end:
            process.setattr(sys, "argv", words[1:])
            for registry in REGISTRIES:
                process.setattr(registry, "_obj_map", dict(registry._obj_map))
            runpy.run_path(words[1], run_name="__main__")
        printed = capsys.readouterr()
        return end.value.code, printed.out + printed.err

    def prepare(section):
        for language, text in WALKS[section]:
            if language != "console":
                Path(text.partition("\n")[0].removeprefix("# ")).write_text(text, encoding="utf-8")
        return python

    return prepare


@pytest.mark.parametrize("section", WALKS)
def test_the_page_is_true(walk, section):
    python = walk(section)
    (console,) = [text for language, text in WALKS[section] if language == "console"]
    for step in console.removeprefix("$ ").split("\n$ "):
        line, *expected = step.strip().split("\n")
        code, printed = python(line)
        refused = bool(re.search("no such|expected|is no|required", "".join(expected)))
        assert code == 2 * refused, printed
        for said in expected:
            assert said in printed


def test_the_page_has_the_five_walks():
    assert len(WALKS) == 5


@pytest.mark.parametrize(
    "section, said",
    [("A loss", r"l_edges: \d"), ("A method with state of its own", r"l_mean: \d"), ("A metric that reads a file", "weighted")],
)
def test_the_log_shows_what_is_new(walk, section, said):
    python = walk(section)
    (name,) = [yaml.safe_load(text)["name"] for language, text in WALKS[section] if language == "yaml"]
    code, printed = python(f"python {name}.py train -opt {name}.yml")
    assert code == 0 and re.search(said, printed), printed


def test_the_methods_state_is_saved_and_resumed_with_the_same_bits(walk):
    python = walk("A method with state of its own")
    start = "python my_method.py train -opt my_method.yml"
    assert python(f"{start} --force_yml train:total_iter=2")[0] == 0
    assert python(f"{start} --auto_resume --force_yml train:total_iter=4")[0] == 0
    assert python(f"{start} --force_yml train:total_iter=4 name=straight")[0] == 0
    for label in ("net_g", "net_mean"):
        mine, theirs = (
            torch.load(f"experiments/{run}/models/{label}_4.pth", weights_only=True)["params"] for run in ("my_method", "straight")
        )
        assert mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in theirs)
    assert mine["num_batches_tracked"] == 4 and mine["running_mean"].any()


def test_a_registered_source_is_a_member_of_an_ensemble_and_no_student(walk):
    python = walk("A source of teachers")
    base = "python my_source.py check -opt my_source.yml --force_yml"
    assert python(f"{base} 'teacher={{ensemble: [{{median: 1}}, {{median: 2, weight: 2}}]}}'")[0] == 0
    code, printed = python(f"{base} 'network_g={{median: 1}}'")
    assert code == 2 and "network_g:median: 1, can be a teacher only" in printed
    code, printed = python(f"{base.replace('check', 'train')} 'train:distill:fit={{type: L1Loss, between: encoder}}' features=auto")
    assert code == 2 and "a median filter has an output but no layers to compare" in printed
