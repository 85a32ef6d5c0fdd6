"""Training and validation without clean images: only what compares with the teacher runs."""

from pathlib import Path

import pytest
import torch
from basicsr.data import build_dataset
from basicsr.models import build_model
from basicsr.utils.registry import DATASET_REGISTRY

from kd_plugins.cli import main
from kd_plugins.options import read_options
from kd_plugins.run_options import parse_options

FOLDER = Path(__file__).parents[2] / "options"
BASELINES = [file.stem for file in sorted((FOLDER / "baselines").glob("*_derain.yml")) if file.stem != "no_distillation_derain"]
SLKD_ALONE = {"et": None}


@pytest.fixture
def unlabelled(options):
    options["datasets"]["train"]["unlabelled"] = True
    return options


def step(model):
    """The losses of one step, which moves the student."""
    before = [p.detach().clone() for p in model.net_g.parameters()]
    model.optimize_parameters(1)
    assert any(not torch.equal(p, q) for p, q in zip(model.net_g.parameters(), before, strict=True))
    log = model.get_current_log()
    assert all(0 < value < 10 for value in log.values())
    return list(log)


# ------------------------------------------------------------------------------------------------ what runs


def test_slkd_and_skd_run_with_the_teachers_terms_alone(unlabelled, build):
    unlabelled["train"]["distill"] = SLKD_ALONE
    assert step(build(unlabelled)) == ["l_kl", "l_nc"]
    unlabelled["train"]["distill"] = {"et": {"view": "degraded"}}
    assert step(build(unlabelled)) == ["l_kl", "l_nc", "l_et"]
    unlabelled["model_type"] = "SKDModel"
    unlabelled["train"]["distill"] = {}
    assert step(build(unlabelled)) == ["l_gk", "l_cl"]


def test_dckd_runs_with_the_teachers_terms_alone(dckd_options, build):
    dckd_options["datasets"]["train"]["unlabelled"] = True
    assert step(build(dckd_options)) == ["l_logits", "l_dcl", "l_ce"]


@pytest.mark.parametrize("name", [name for name in BASELINES if name != "csd_derain"])  # whose VGG19 is a download
def test_baselines_run_without_their_pixel_loss(name, unlabelled, build):
    unlabelled["model_type"] = "DistillationModel"
    unlabelled["train"]["distill"] = read_options(str(FOLDER / "baselines" / f"{name}.yml"))["train"]["distill"]
    unlabelled["train"]["pixel_opt"] = None
    assert step(build(unlabelled)) == [f"l_{term}" for term in unlabelled["train"]["distill"]]


def test_the_bundled_option_file_follows_the_teacher_alone(build):
    options = read_options(str(FOLDER / "unlabelled_denoise.yml"))
    options["num_gpu"] = 0
    options["datasets"].pop("val")
    assert step(build(options)) == ["l_logits"]


# ------------------------------------------------------------------------------------------------ what is refused


def test_terms_that_read_the_ground_truth_are_refused_when_the_model_is_built(unlabelled, build):
    unlabelled["train"]["pixel_opt"] = {"type": "L1Loss"}
    with pytest.raises(ValueError) as error:
        build(unlabelled)
    assert str(error.value) == (
        "datasets:train (DegradedPhotoDataset) has no clean images, which these compare with: "
        "train:pixel_opt: expected `pixel_opt: ~`; train:distill:et: expected view: degraded, or `et: ~`"
    )


def test_for_a_dataset_that_does_not_say_so_the_first_batch_tells(options, build, monkeypatch):
    model = build(options)
    model.feed_data({"lq": model.lq})  # a batch with clean images went before
    with pytest.raises(
        ValueError, match=r"the batch \(no `gt`\) has no clean images, which .*pixel_opt: ~`; train:distill:et: exp"
    ):
        model.optimize_parameters(1)

    class MineDataset(DATASET_REGISTRY.get("DegradedPhotoDataset")):
        unlabelled = True

    monkeypatch.setitem(DATASET_REGISTRY._obj_map, "MineDataset", MineDataset)
    options["datasets"]["train"]["type"] = "MineDataset"
    with pytest.raises(ValueError, match=r"datasets:train \(MineDataset\) has no clean images"):
        build(options)


def test_nothing_to_train_by_is_refused(options, build):
    options.update(model_type="DistillationModel")
    with pytest.raises(ValueError, match="no pixel_opt and no term in distill"):
        build(options)
    weightless = {"loss_weight": 0, "type": "L1Loss"}
    options["train"].update(pixel_opt=weightless, distill={"logits": weightless})
    with pytest.raises(ValueError, match="no pixel_opt and no term in distill"):
        build(options)


def test_a_wrong_weights_file_is_still_an_error_of_its_own(unlabelled, build, tmp_path):
    unlabelled["train"]["distill"] = SLKD_ALONE
    torch.save({"params": {"x": torch.zeros(1)}}, tmp_path / "student.pth")
    unlabelled["path"]["pretrain_network_g"] = str(tmp_path / "student.pth")
    with pytest.raises(ValueError, match="student.pth does not fit"):
        build(unlabelled)
    unlabelled["path"]["param_key_g"] = "generator"
    with pytest.raises(
        ValueError, match="student.pth: no param_key 'generator'; it has params; of these `param_key` can name params"
    ):
        build(unlabelled)


# ------------------------------------------------------------------------------------------------ whole runs


@pytest.fixture
def images_alone(with_validation, photo_folder):
    """Training and validation on images alone, in BasicSR's own dataset: they are of one size."""
    block = {"type": "SingleImageDataset", "dataroot_lq": str(photo_folder), "io_backend": {"type": "disk"}}
    loader = {"num_worker_per_gpu": 0, "batch_size_per_gpu": 2, "dataset_enlarge_ratio": 4}
    with_validation["datasets"] = {"train": {"name": "noisy", **block, **loader}, "val": {"name": "small", **block}}
    with_validation["train"]["distill"] = SLKD_ALONE
    with_validation["val"]["metrics"].pop("psnr")
    return with_validation


def test_a_run_without_a_clean_image_anywhere(images_alone, write, tmp_path, monkeypatch, capfd):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.chdir(tmp_path)
    assert main(["train", "-opt", write(images_alone)]) == 0
    log = capfd.readouterr().err
    assert "own pixel loss is left out" in log and "l_kl:" in log and "l_pix" not in log and "of one size" in log
    assert "Result on small" in log and "piqe" in log
    events = EventAccumulator(str(tmp_path / "tb_logger/tiny"), size_guidance={"images": 0})
    events.Reload()
    panel = events.Images(next(tag for tag in events.Tags()["images"] if "astronaut" in tag))[-1]
    assert (panel.height, panel.width) == (120, 3 * 64 + 2 * 2)  # input, student, teacher, crops


def test_validation_refuses_a_metric_that_compares_in_other_peoples_loops(images_alone, write, tmp_path):
    images_alone["val"]["metrics"]["psnr"] = {"type": "calculate_psnr", "crop_border": 0}
    opt, _ = parse_options(str(tmp_path), True, ["-opt", write(images_alone)])
    model = build_model(opt)
    loader = torch.utils.data.DataLoader(build_dataset(opt["datasets"]["val"]))
    with pytest.raises(
        ValueError, match="val:metrics:psnr: calculate_psnr compares with a clean image, which dataset 'small' does"
    ):
        model.validation(loader, 0, None, False)
