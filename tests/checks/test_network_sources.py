"""The sources of networks (docs/teachers.md) in an option file: accepted, or refused before anything is built or imported."""

import json
import re
import zipfile
from pathlib import Path

import pytest
import torch
from option_texts import GOOD
from safetensors.torch import save_file

from kd_plugins.arguments.block_specs import Named
from kd_plugins.checks.network_sources import _ADAPTER, STUDENT, TEACHER
from kd_plugins.teachers.network_keys import ADAPTER_KEYS, CACHE, source_keys
from kd_plugins.training.checkpoint_files import write

DNCNN = "type: DnCNN, in_nc: 3, out_nc: 3"
EDSR = "{type: EDSR, num_in_ch: 3, num_out_ch: 3, upscale: 1}"
PLAIN = ("model_type=DistillationModel", "init=random", f"network_g={EDSR}")  # has no terms between features
SCHEDULER = "train:scheduler={type: MultiStepLR, milestones: [1]}"


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    """Weights, what looks like a program, and a class file that must not be imported, in the working folder."""
    monkeypatch.chdir(tmp_path)
    torch.save({}, "a.pth")
    torch.save({}, "b.pth")
    with zipfile.ZipFile("net.pt", "w") as program:
        program.writestr("net/constants.pkl", "")
        program.writestr("net/code/net.py", "")
    save_file({"weight": torch.zeros(1)}, "plain.safetensors")
    for name, network in (("evil", {"file": "net.py", "class": "Net"}), ("wrapped", {"type": "SourcedNetwork", "network": {}})):
        save_file({"weight": torch.zeros(1)}, f"{name}.safetensors", metadata={"network": json.dumps(network)})
    write("evil.pth", {"params": {}}, {"file": "net.py", "class": "Net"})
    Path("torn.safetensors").write_text("no weights")
    Path("net.py").write_text("raise SystemExit('the check imports nothing')\n")


# ------------------------------------------------------------------------------------------------ what is accepted


@pytest.mark.parametrize(
    "teacher",
    [
        "{checkpoint: restormer_derain}",
        "{checkpoint: a.pth, param_key: params}",  # spandrel may recognise it
        "{checkpoint: plain.safetensors, noise_level: 25}",
        "{type: Restormer, dim: 8, checkpoint: a.pth, pad_to: 8, output: 0}",
        f"{{{DNCNN}, nb: 8, act_mode: R, checkpoint: a.pth, output: image}}",
        "{file: net.py, class: Net, checkpoint: a.pth, value_range: 255, mean: [0.4, 0.5, 0.5], pad_square: true}",
        "{checkpoint: a.pth, mean: 0.5}",
        "{type: MixDehazeNet, depths: [1, 1, 2, 1, 1], checkpoint: a.pth}",
        "{type: spandrel.architectures.DnCNN.DnCNN, whatever: 1, checkpoint: a.pth}",
        "{type: torch.nn.Identity, checkpoint: a.pth}",
        "{type: __main__.Net, checkpoint: a.pth}",
        "{file: net.py, class: Net, checkpoint: a.pth, whatever: 1, output: 0, pad_to: 8}",
        "{program: net.pt, trust: true, output: 0, pad_to: 8, noise_level: 15.5}",
        "{ensemble: [{checkpoint: a.pth, weight: 0.7}, {program: net.pt, trust: true, weight: 0}]}",
        "{ensemble: [{file: net.py, class: Net, checkpoint: b.pth}]}",
        f"{{ensemble: [{{{DNCNN}, checkpoint: a.pth, weight: 1}}, {{ensemble: [{{checkpoint: b.pth}}], weight: 2}}]}}",
    ],
)
def test_a_teacher_from_any_source_is_fine(check, teacher):
    entries = (*PLAIN, "train:distill:x={type: L1Loss, view: clean}", f"teacher={teacher}", f"teacher_clean={teacher}")
    assert check(GOOD, *entries, code=0) == ["a.yml: fine, for `basicsr train`"]


@pytest.mark.parametrize(
    "student",
    [
        f"{{{DNCNN}, nc: 4}}",
        f"{{{DNCNN}, nc: 4, checkpoint: ~, pad_to: ~}}",
        "{checkpoint: a.pth}",
        "{type: torch.nn.Identity, whatever: 1}",
        "{file: net.py, class: Net, width: 4, output: image}",
        "{type: EDSR, num_in_ch: 3, num_out_ch: 3, upscale: 1, pad_to: 8}",
    ],
)
@pytest.mark.parametrize("model", ["DistillationModel", "SRModel"])
def test_a_student_from_any_source_is_fine_in_basicsrs_models_as_a_sourced_network(check, student, model):
    if model == "SRModel":
        student = f"{{type: SourcedNetwork, network: {student}}}"
    lines = check(GOOD, "init=random", f"model_type={model}", SCHEDULER, f"network_g={student}", code=0)
    assert lines[0] == "a.yml: fine, for `basicsr train`"
    assert not any(": network_g:" in line for line in lines)


@pytest.mark.parametrize("student", ["{file: net.py, class: Net}", "{type: NAFNet}"])
@pytest.mark.parametrize("features", ["auto", "~", "{encoder: auto, decoder: auto}"])
def test_any_two_networks_can_have_pairs(check, student, features):
    """Which ones, only a look at the networks tells."""
    teacher = "teacher={type: kd_plugins.archs.Restormer, checkpoint: a.pth}"
    assert check(GOOD, teacher, f"network_g={student}", f"features={features}", code=0)


# ------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("teacher", "said"),
    [
        ("a.pth", "teacher: 'a.pth', expected {type: a registered architecture, ...}, or {checkpoint: a.pth}"),
        ("3", "teacher: 3, expected {type: a registered architecture, ...}, or {checkpoint: ...}"),
        ("{type: SCUNte, checkpoint: a.pth}", "teacher:type: 'SCUNte', no registered architecture; nearest: SCUNet"),
        (f"{{{DNCNN}, deep: 3, checkpoint: a.pth}}", "teacher:deep: 3, DnCNN has no such key"),
        ("{type: SPAN, checkpoint: a.pth}", "teacher:num_in_ch: missing, SPAN needs it"),
        (f"{{{DNCNN}, nb: many, checkpoint: a.pth}}", "teacher:nb: 'many', expected a number"),
        (f"{{{DNCNN}}}", "teacher:checkpoint: missing, DnCNN needs it"),
        ("{type: nosuch.Net, checkpoint: a.pth}", "teacher:type: 'nosuch.Net', no package 'nosuch' is installed (for a file of"),
        ("{type: .Net, checkpoint: a.pth}", "teacher:type: '.Net', no package '' is installed"),
        ("{type: torch.nn.Identity}", "teacher:checkpoint: missing, torch.nn.Identity needs it"),
        ("{checkpoint: a.pth, dim: 8}", "teacher:dim: 8, a block without `type` has no such key"),
        ("{progam: net.pt}", "teacher:progam: 'net.pt', a block without `type` has no such key; nearest: program"),
        ("{checkpoint: none.pth}", "teacher:checkpoint: 'none.pth' is no file and no bundled checkpoint"),
        ("{checkpoint: net.pt}", "teacher:checkpoint: net.pt is a program (TorchScript), which runs when it is loaded"),
        ("{checkpoint: torn.safetensors}", "teacher:checkpoint: torn.safetensors cannot be read"),
        ("{checkpoint: evil.safetensors}", "teacher:checkpoint: evil.safetensors describes its network by code of its own"),
        ("{checkpoint: evil.pth}", "teacher:checkpoint: evil.pth describes its network by code of its own"),
        ("{checkpoint: wrapped.safetensors}", "teacher:checkpoint: wrapped.safetensors describes its network by no architecture"),
        ("{checkpoint: a.pth, pad_to: 0}", "teacher:pad_to: 0, expected a whole number of at least 1 or nothing"),
        ("{checkpoint: a.pth, output: 0.5}", "teacher:output: 0.5, expected a whole number or text"),
        ("{checkpoint: a.pth, noise_level: high}", "teacher:noise_level: 'high', expected a number"),
        ("{checkpoint: a.pth, value_range: 0}", "teacher:value_range: 0, expected a number above 0"),
        ("{checkpoint: a.pth, mean: 128}", "teacher:mean: 128, expected a number from -1 to 1"),
        ("{checkpoint: a.pth, mean: [0.4, 104]}", "teacher:mean: [0.4, 104], expected a number"),
        ("{file: net.py, checkpoint: a.pth}", "teacher:class: missing, a class in a file needs it"),
        ("{class: Net, checkpoint: a.pth}", "teacher:file: missing, a class in a file needs it"),
        ("{file: net.py, class: Net}", "teacher:checkpoint: missing, a class in a file needs it"),
        ("{file: net.py, class: Net, type: EDSR, checkpoint: a.pth}", "teacher:type: 'EDSR', beside `file`, expected"),
        ("{file: no.py, class: Net, checkpoint: a.pth}", "teacher:file: 'no.py' is no .py file (looked from "),
        ("{program: no.pt, trust: true}", "teacher:program: 'no.pt' is no file (looked from "),
        ("{program: a.pth, trust: true}", "teacher:program: a.pth is no TorchScript and no torch.export file"),
        ("{program: net.pt}", "teacher:trust: missing, a program can run code of whoever made it, and no scan of it can tell"),
        ("{program: net.pt, trust: false}", "teacher:trust: False, expected true: a program can run code of whoever made it"),
        ("{ensemble: [{program: net.pt, weight: 1}]}", "teacher:ensemble:0:trust: missing, a program can run code of whoever"),
        ("{checkpoint: a.pth, trust: true}", "teacher:trust: True, a block without `type` has no such key"),
        ("{program: net.pt, type: EDSR}", "teacher:type: 'EDSR', beside `program`, expected output, "),
        ("{program: net.pt, dim: 8}", "teacher:dim: 8, a block with `program` has no such key"),
        ("{program: net.pt, checkpoint: a.pth}", "teacher:checkpoint: 'a.pth', beside `program`, expected output,"),
        ("{ensemble: {checkpoint: a.pth}}", "teacher:ensemble: {'checkpoint': 'a.pth'}, expected a list of mappings"),
        ("{ensemble: []}", "teacher:ensemble: [], expected a list of mappings"),
        ("{ensemble: [{checkpoint: a.pth}], pad_to: 8}", "teacher:pad_to: 8, beside `ensemble`, expected cache at most"),
        ("{ensemble: [{program: net.pt, file: net.py, weight: 1}]}", "teacher:ensemble:0:file: 'net.py', beside `program`"),
        ("{ensemble: [a.pth]}", "teacher:ensemble:0: 'a.pth', expected {type: a registered architecture, ...}, or {checkpoint"),
        ("{ensemble: [~]}", "teacher:ensemble:0: nothing, expected a mapping"),
        ("{ensemble: [{weight: 1}]}", "teacher:ensemble:0:checkpoint: missing"),
        ("{ensemble: [{checkpoint: a.pth, weight: -1}]}", "teacher:ensemble:0:weight: -1, expected a number of at least 0"),
        ("{ensemble: [{checkpoint: a.pth, weight: 0}]}", "teacher:ensemble: weights [0], expected one above 0"),
        ("{ensemble: [{checkpoint: a.pth}, {checkpoint: no.pth}]}", "teacher:ensemble:1:checkpoint: 'no.pth' is no file"),
        ("{ensemble: [{ensemble: [{program: no.pt, trust: true}]}]}", "teacher:ensemble:0:ensemble:0:program: 'no.pt' is no file"),
        (f"{{ensemble: [{{{DNCNN}, deep: 3, checkpoint: a.pth}}]}}", "teacher:ensemble:0:deep: 3, DnCNN has no such key"),
        (
            f"{{ensemble: [{EDSR.replace('1', '4')[:-1]}, checkpoint: a.pth}}]}}",
            "teacher:ensemble:0:upscale: 4, expected the file",
        ),
        ("{type: SourcedNetwork, network: {file: no.py, class: Net}, checkpoint: a.pth}", "teacher:network:file: 'no.py' is no"),
    ],
)
def test_a_teacher_that_cannot_be_built_is_refused(check, teacher, said):
    for key in ("teacher", "teacher_clean"):
        lines = check(GOOD, *PLAIN, "scale=1", f"{key}={teacher}")
        assert [re.sub("^teacher", key, said) in line for line in lines].count(True) == 1, lines


@pytest.mark.parametrize(
    ("student", "said"),
    [
        ("{program: net.pt}", "network_g:program: 'net.pt', can be a teacher only, expected a class: `type` or `file`"),
        (
            "{ensemble: [{checkpoint: a.pth}]}",
            "network_g:ensemble: [{'checkpoint': 'a.pth'}], can be a teacher only, expected a class",
        ),
        ("{dim: 8}", "network_g:type: missing, expected a registered architecture, or `checkpoint`, `program`, `"),
        ("{checkpoint: ~}", "network_g:type: missing, expected a registered architecture"),
        ("{checkpoint: a.pth, dim: 8}", "network_g:dim: 8, a block without `type` has no such key"),
        ("{checkpoint: no.pth}", "network_g:checkpoint: 'no.pth' is no file"),
        ("{type: SCUNte}", "network_g:type: 'SCUNte', no registered architecture; nearest: SCUNet"),
        (f"{{{DNCNN}, deep: 3}}", "network_g:deep: 3, DnCNN has no such key"),
        ("{file: net.py}", "network_g:class: missing, a class in a file needs it"),
        ("{file: no.py, class: Net}", "network_g:file: 'no.py' is no .py file"),
    ],
)
@pytest.mark.parametrize("model", ["DistillationModel", "SRModel"])
def test_a_student_that_cannot_be_built_is_refused(check, student, said, model):
    if model == "SRModel":
        student, said = f"{{type: SourcedNetwork, network: {student}}}", said.replace("network_g:", "network_g:network:")
    assert any(said in line for line in check(GOOD, "init=random", f"model_type={model}", SCHEDULER, f"network_g={student}"))


def test_basicsrs_own_models_know_registered_names_only(check):
    sr = ("model_type=SRModel", SCHEDULER)
    for network, said in (
        (f"{{{DNCNN}}}", "network_g:type: 'DnCNN', no registered architecture"),
        (f"{EDSR[:-1]}, pad_to: 8}}", "network_g:pad_to: 8, EDSR has no such key"),
        ("{type: SourcedNetwork}", "network_g:network: missing, SourcedNetwork needs it"),
    ):
        assert any(said in line for line in check(GOOD, *sr, f"network_g={network}"))


def test_errors_in_a_member_have_its_line(check):
    members = "\n  ensemble:\n    - checkpoint: a.pth\n    - checkpoint: b.pth\n      wieght: 2\n"
    text = GOOD.replace(GOOD[GOOD.index("teacher:\n") : GOOD.index("init:")], f"teacher:{members}")
    number = text.splitlines().index("      wieght: 2") + 1
    (line,) = [line for line in check(text, *PLAIN) if "wieght" in line]
    assert line.startswith(f"a.yml:{number}: teacher:ensemble:1:wieght: 2, a block without `type` has no such key; nearest: weight")


@pytest.mark.parametrize("teacher", ["{program: net.pt, trust: true}", "{ensemble: [{checkpoint: a.pth}]}"])
def test_terms_between_features_need_a_teacher_with_layers(check, teacher):
    said = check(GOOD, f"teacher={teacher}")
    assert [line.split(": ")[1] for line in said] == ["train:distill:nc:between", "train:distill:et:between"]
    key = teacher[1:].partition(":")[0]
    assert all(f"but a teacher with `{key}` has an output and no layers, expected output" in line for line in said)
    assert check(GOOD, f"teacher={teacher}", "train:distill={nc: ~, et: ~}", code=0)


@pytest.mark.parametrize("block", ["teacher: &t {ensemble: [*t]}", "network_g: &t {type: SourcedNetwork, network: *t}"])
def test_a_network_that_holds_itself_is_refused(check, block):
    key = block.partition(":")[0]
    assert any(f": {key}: holds itself" in line for line in check(re.sub(f"^{key}:", f"{block}\nx-was:", GOOD, flags=re.M)))


@pytest.mark.parametrize("note", ["x-note: &n {own: [*n]}", "x-note: &n [*n]"])
def test_a_note_that_holds_itself_is_refused_too(check, note):
    assert [line.partition(": ")[2] for line in check(f"{GOOD}\n{note}\n")] == [
        "x-note: holds itself: an anchor stands inside what it names"
    ]


def test_what_stands_in_many_places_does_not_hold_itself(check):
    aliases = "\n".join(f"x-{n + 1}: &n{n + 1} [*n{n}, *n{n}]" for n in range(10))  # a thousand paths lead to the first
    check(f"{GOOD}\nx-0: &n0 [1]\n{aliases}\n", code=0)


# ------------------------------------------------------------------------------------------------ what it does not do


def test_spandrels_classes_are_looked_up_for_names_that_are_not_registered_only(check, monkeypatch):
    def look(named):
        raise AssertionError("looked up")

    monkeypatch.setattr(Named, "all_entries", property(look))
    members = "{file: net.py, class: Net, checkpoint: a.pth}, {type: spandrel.Net, checkpoint: a.pth}, {checkpoint: b.pth}"
    assert check(GOOD, *PLAIN, f"teacher={{ensemble: [{members}]}}", code=0)
    with pytest.raises(AssertionError, match="looked up"):
        check(GOOD, *PLAIN, f"teacher={{{DNCNN}, checkpoint: a.pth}}", code=0)


def test_the_keys_of_sources_are_those_that_networks_are_built_from():
    assert set(_ADAPTER) == set(ADAPTER_KEYS)
    for source in (STUDENT, TEACHER):
        assert {*source.beside, *source.cases()} - {CACHE} == set(source_keys())
