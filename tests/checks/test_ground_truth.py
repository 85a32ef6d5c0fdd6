"""The check of option files whose data has no clean images."""

import pytest
from basicsr.utils.registry import DATASET_REGISTRY
from option_texts import GOOD

PIQE = "val:metrics={piqe: {type: calculate_piqe}}"
FOLDER = "name: a, dataroot_lq: images, io_backend: {type: disk}, num_worker_per_gpu: 0"
CROPS = f"datasets:train={{{FOLDER}, type: DegradedImageDataset, batch_size_per_gpu: 2, gt_size: 32}}"
WHOLE = f"datasets:train={{{FOLDER}, type: SingleImageDataset, batch_size_per_gpu: 1}}"
WITHHELD = "datasets:train:unlabelled=true"
TEACHER_ALONE = ("train:pixel_opt=~", "train:distill:et=~")


@pytest.mark.parametrize("data", [CROPS, WHOLE, WITHHELD])
def test_losses_and_terms_that_read_the_ground_truth_are_refused_with_what_to_write(check, data):
    said = check(GOOD, data)
    kind = "DegradedPhotoDataset" if data == WITHHELD else data.partition("type: ")[2].partition(" type: ")[2].partition(",")[0]
    of = f"it compares with the clean image, which datasets:train ({kind}) does not have, expected"
    assert [line.partition(": ")[2] for line in said] == [
        f"train:distill:et: {of} view: degraded, or `et: ~`",
        f"train:pixel_opt: {of} `pixel_opt: ~`",
    ]
    check(GOOD, data, *TEACHER_ALONE, code=0)
    check(GOOD, data, "train:pixel_opt=~", "train:distill:et:view=degraded", code=0)
    perceptual = "train:perceptual_opt={type: PerceptualLoss, layer_weights: {conv5_4: 1}}"
    assert "perceptual_opt: it compares with the clean image" in check(GOOD, data, *TEACHER_ALONE, perceptual)[0]


def test_a_method_brings_no_pixel_loss_to_data_without_clean_images(check):
    text = "\n".join(line for line in GOOD.splitlines() if not line.strip().startswith("pixel_opt"))
    check(text, CROPS, "train:distill:et=~", code=0)
    nothing = {name: f"train:distill:{name}=~" for name in ("kl", "nc", "et")}
    said = check(text, CROPS, *nothing.values())
    assert len(said) == 1 and "train: no pixel_opt and no term in distill, expected one at least" in said[0]


def test_metrics_that_compare_are_refused_on_images_alone(check):
    alone = f"datasets:val={{{FOLDER}, type: SingleImageDataset}}"
    said = check(GOOD, alone)
    assert len(said) == 2
    assert (
        "val:metrics:psnr:type: 'calculate_psnr', compares with a clean image, which datasets:val (SingleImageDataset)" in said[0]
    )
    assert said[0].endswith("expected one of calculate_niqe, calculate_brisque, calculate_piqe")
    check(GOOD, alone, PIQE, code=0)


def test_whole_images_in_a_batch_get_a_warning(check):
    (line, fine) = check(GOOD, WHOLE.replace("per_gpu: 1", "per_gpu: 2"), *TEACHER_ALONE, code=0)[::-1]
    assert "those of a batch must be of one size; DegradedImageDataset crops them (a warning)" in line + fine


def test_basicsrs_models_need_clean_images(check):
    said = check(GOOD, WHOLE, "model_type=SRModel", "train:scheduler={type: MultiStepLR, milestones: [1]}")
    assert any("SingleImageDataset has no clean images, which SRModel needs, expected PairedImageDataset" in line for line in said)


def test_a_users_dataset_says_by_an_attribute_that_it_has_none(check, register):
    class MineDataset:
        unlabelled = True

        def __init__(self, opt):
            self.opt = opt

    register(DATASET_REGISTRY, MineDataset)
    mine = "datasets:train={name: a, type: MineDataset, batch_size_per_gpu: 1, num_worker_per_gpu: 0}"
    assert "datasets:train (MineDataset) does not have" in check(GOOD, mine)[0]
    MineDataset.unlabelled = False
    check(GOOD, mine, code=0)
