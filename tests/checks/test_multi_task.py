"""Several tasks in an option file: their data, their teachers, and the two against each other."""

import pytest
import torch
from basicsr.utils.registry import DATASET_REGISTRY
from option_texts import text_of

GOOD = text_of("slkd_tasks")
NOISE = "datasets:train:tasks:noise"
PLAIN = "datasets:val_1={name: a, type: DegradedPhotoDataset, photos: builtin, degradation: {type: rain}}"
UNLABELLED = ("train:pixel_opt=~", "train:distill:et=~")


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({}, "a.pth")


@pytest.mark.parametrize(
    "entries",
    [
        (),
        ("teacher:tasks:noise={ensemble: [{checkpoint: a.pth}]}", "train:distill={nc: ~, et: ~}"),
        ("teacher={checkpoint: a.pth}",),  # one for all
        ("teacher_clean={tasks: {rain: {checkpoint: a.pth}, noise: {checkpoint: a.pth}}}",),
        (f"{NOISE}:unlabelled=true", "datasets:train:tasks:rain:unlabelled=true", *UNLABELLED),
        ("network_g={from_teacher: {flops: 0.15}}",),
        ("model_type=SRModel", "teacher=~", "init=~", "features=~", "train:scheduler={type: MultiStepLR, milestones: [1]}"),
    ],
    ids=str,
)
def test_what_is_fine(check, entries):
    assert check(GOOD, *entries, code=0)[0] == "a.yml: fine, for `basicsr train`"


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        # the teachers
        (["teacher={tasks: {}}"], "teacher:tasks: {}, expected a mapping of mappings"),
        (["teacher={tasks: ~}"], "teacher:tasks: None, expected a mapping of mappings"),
        (["teacher={tasks: [a.pth]}"], "teacher:tasks: ['a.pth'], expected a mapping of mappings"),
        (["teacher:pad_to=8"], "teacher:pad_to: 8, beside `tasks`, expected nothing else"),
        (["teacher:checkpoint=a.pth"], "teacher:checkpoint: 'a.pth', beside `tasks`, expected nothing else"),
        (["teacher:tasks:noise=~"], "teacher:tasks:noise: nothing, expected a mapping"),
        (["teacher:tasks:noise=a.pth"], "teacher:tasks:noise: 'a.pth', expected {type: a registered architecture"),
        (["teacher:tasks:noise={chekpoint: a.pth}"], "teacher:tasks:noise:checkpoint: missing"),
        (["teacher:tasks:noise={checkpoint: no.pth}"], "teacher:tasks:noise:checkpoint: 'no.pth' is no file"),
        (["teacher:tasks:noise={checkpoint: a.pth, weight: 1}"], "teacher:tasks:noise:weight: 1, a block without `type` has no"),
        (["teacher:tasks:noise={tasks: {}}"], "teacher:tasks:noise:tasks: {}, can stand at the top of a teacher only"),
        (["teacher={ensemble: [{tasks: {a: {checkpoint: a.pth}}}]}"], "teacher:ensemble:0:tasks: {'a': {'checkpoint':"),
        (["teacher:tasks:noise={program: a.pth}"], "teacher:tasks:noise:program: a.pth is no TorchScript"),
        (["teacher:tasks:noise={ensemble: [{checkpoint: a.pth}]}"], "train:distill:nc:between: 'encoder', but a teacher with"),
        (["network_g={tasks: {}}"], "network_g:tasks: {}, can be a teacher only"),
        (["network_g={from_teacher: {flops: 0.15}}", "teacher:tasks:rain={program: a.pth}"], "the teacher is `program`, whose"),
        # data and teachers
        (["datasets:train:tasks:nose={}"], "datasets:train:tasks:nose: `teacher` has no such task; nearest: noise"),
        (["teacher_clean={tasks: {rain: {checkpoint: a.pth}}}"], "train:tasks:noise: `teacher_clean` has no such task"),
        (["datasets:val_2:tasks={fog: {}}"], "datasets:val_2:tasks:fog: `teacher` has no such task; expected one of rain, noise"),
        ([PLAIN], "datasets:val_1:type: 'DegradedPhotoDataset', tells no task, which `teacher: {tasks: ...}` needs"),
        # the data of a task as any other
        (["datasets:train:tasks={}"], "datasets:train:tasks: {}, expected a mapping of mappings"),
        (["datasets:train:tasks=~"], "datasets:train:tasks: None, expected a mapping of mappings"),
        ([f"{NOISE}=~"], f"{NOISE}: nothing, expected a mapping"),
        ([f"{NOISE}:use_hflp=true"], f"{NOISE}:use_hflp: True, DegradedPhotoDataset has no such key; nearest: use_hflip"),
        ([f"{NOISE}:use_shuffle=true"], f"{NOISE}:use_shuffle: True, DegradedPhotoDataset has no such key"),
        (["datasets:train:gt_size=64"], "datasets:train:gt_size: 64, TaskDataset has no such key"),
        ([f"{NOISE}:type=TaskDataset"], f"{NOISE}:type: 'TaskDataset', inside of another, expected the data of one task"),
        ([f"{NOISE}:type=Photos"], f"{NOISE}:type: 'Photos', no registered dataset"),
        ([f"{NOISE}:degradation:type=nose"], f"{NOISE}:degradation:type: 'nose', no registered degradation; nearest: noise"),
        ([f"{NOISE}:photos=none"], f"{NOISE}:photos: photos names 'none', which does not exist"),
        ([f"{NOISE}:gt_size=~"], f"{NOISE}:gt_size: missing, training on DegradedPhotoDataset needs it"),
        ([f"{NOISE}:gt_size=32"], f"{NOISE}:gt_size: 32, expected that of 'rain', 64: a batch has both"),
        ([f"{NOISE}:degradation={{type: downsample, scale: 2}}"], f"{NOISE}:degradation: makes images 2 times smaller"),
        (["datasets:train:batch_size_per_gpu=~"], "datasets:train:batch_size_per_gpu: missing, training on TaskDataset needs it"),
        ([f"{NOISE}:unlabelled=true", *UNLABELLED], f"{NOISE}:type: 'DegradedPhotoDataset', has no clean images, but 'rain' has"),
        ([f"{NOISE}:unlabelled=true"], "train:pixel_opt: it compares with the clean image, which datasets:train (TaskDataset)"),
        (["datasets:val_1:tasks:rain:unlabelled=true"], "psnr:type: 'calculate_psnr', compares with a clean image, which datasets"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)  # fmt: skip
def test_what_is_refused(check, entries, said):
    lines = check(GOOD, *entries)
    assert [said in line for line in lines].count(True) == 1, lines


def test_errors_in_the_data_of_a_task_have_its_line(check):
    text = GOOD.replace("        degradation: {type: noise, sigma: 25}\n", "        degradation: {type: noise, sgima: 25}\n")
    number = next(number for number, line in enumerate(text.splitlines(), 1) if "sgima" in line)
    assert check(text)[0].startswith(f"a.yml:{number}: {NOISE}:degradation:sgima: 25")


def test_a_teacher_without_data_gets_a_warning(check):
    lines = check(GOOD, "teacher:tasks:blur={checkpoint: a.pth}", code=0)
    assert any("teacher:tasks:blur: nothing to train on: datasets:train has rain, noise (a warning)" in line for line in lines)


def test_a_dataset_of_a_users_own_may_tell_tasks_by_itself(check, register):
    class MineDataset:
        def __init__(self, opt):
            self.opt = opt

    register(DATASET_REGISTRY, MineDataset)
    check(GOOD, "datasets:val_1={name: a, type: MineDataset}", code=0)


def test_data_that_holds_itself_ends(check):
    text = GOOD.replace("  train:\n    name", "  train: &t\n    name", 1)
    text = text.replace("      noise:\n        type", "      again: *t\n      noise:\n        type", 1)
    assert any(": datasets: holds itself" in line for line in check(text))
