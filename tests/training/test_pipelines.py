"""Both doors: `basicsr train` and upstream's own train_pipeline; what they leave on disk."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kd_plugins.cli import main

TERMS = ("l_pix", "l_kl", "l_nc", "l_et")


def test_train_leaves_checkpoint_curves_pictures_and_tables_and_test_scores_it_alike(with_validation, write, in_folder, capfd):
    with_validation["val"]["metrics"]["piqe"] = {"type": "calculate_piqe", "better": "lower"}
    with_validation["val"]["rgb2bgr"] = True  # a key of forks
    assert main(["train", "-opt", write(with_validation)]) == 0
    log = capfd.readouterr().err
    for said in (
        "Networks on cpu: FLOPs at 32x32, latency at 32x32 (median, fastest - slowest)",
        "reduction",
        "l_nc:",
        "Result on small",
        "net_g_latest.pth",
        "rgb2bgr: True, a key of",
    ):
        assert said in log

    checkpoint = in_folder / "experiments/tiny/models/net_g_latest.pth"
    state = torch.load(checkpoint, weights_only=True)
    assert set(state) == {"params", "params_ema"}

    events = EventAccumulator(str(in_folder / "tb_logger/tiny"), size_guidance={"images": 0})
    events.Reload()
    scalars = set(events.Tags()["scalars"])
    assert {"lr", *(f"losses/{name}" for name in TERMS)} <= scalars
    total, *terms = ({event.step: event.value for event in events.Scalars(f"losses/{name}")} for name in ("total", *TERMS))
    assert total == pytest.approx({step: sum(term[step] for term in terms) for step in total})
    (text,) = events.Tensors("options/text_summary")
    assert "model_type: SLKDModel" in text.tensor_proto.string_val[0].decode()
    metrics = {f"metrics/small/psnr{suffix}" for suffix in ("", "_teacher", "_input", "_gap")}
    assert metrics <= scalars
    student, teacher, gap = (events.Scalars(f"metrics/small/psnr{suffix}")[-1].value for suffix in ("", "_teacher", "_gap"))
    assert gap == pytest.approx(student - teacher, abs=1e-4)
    assert [event.step for event in events.Scalars("metrics/small/psnr")] == [2, 4]
    panel = events.Images(next(tag for tag in events.Tags()["images"] if "astronaut" in tag))[-1]
    assert (panel.height, panel.width) == (22 + 48 + 2 + 48, 4 * 64 + 3 * 2)  # input, student, teacher, clean, crops

    options = {**with_validation, "name": "scored", "model_type": "DistillationModel"}
    options["datasets"] = {"test": with_validation["datasets"]["val"]}
    options["path"] = {"pretrain_network_g": str(checkpoint), "param_key_g": "params_ema", "strict_load_g": True}
    options["val"] = {**with_validation["val"], "save_img": True}
    from kd_plugins.test import test_pipeline as run_test

    model = run_test(str(in_folder), ["-opt", write(options, "test.yml")])
    assert model.validator.scores["small"]["student"]["psnr"] == pytest.approx(student, abs=1e-4)
    assert len(list((in_folder / "results/scored/visualization/small").glob("*.png"))) == 2


def test_auto_resume_goes_on_from_the_newest_state(options, write, in_folder, capfd):
    options["logger"]["use_tb_logger"] = False
    file = write(options)
    assert main(["train", "-opt", file]) == 0
    scm = torch.load("experiments/tiny/models/net_scm_4.pth", weights_only=True)["params"]
    assert main(["train", "-opt", file, "--auto_resume", "--force_yml", "train:total_iter=6"]) == 0
    assert "Resuming training from epoch: 0, iter: 4" in capfd.readouterr().err
    state = torch.load("experiments/tiny/training_states/6.state", weights_only=True)
    assert state["iter"] == 6
    later = torch.load("experiments/tiny/models/net_scm_6.pth", weights_only=True)["params"]
    drift = max((later[key] - scm[key]).abs().max().item() for key in scm)
    assert 0 < drift < 0.01  # two steps of lr 1e-3 away, not a new start


def test_skd_trains_shows_its_attention_and_goes_on_with_what_it_learnt(with_validation, write, in_folder, capfd):
    with_validation["model_type"] = "SKDModel"
    attention = {"type": "CrossNetAttentionLoss", "between": ["encoder", "decoder"], "loss_weight": 0.1, "learnable": True}
    with_validation["train"]["distill"] = {"gk": attention}
    file = write(with_validation)
    assert main(["train", "-opt", file]) == 0
    log = capfd.readouterr().err
    assert "l_gk:" in log and "l_cl:" in log
    events = EventAccumulator(str(in_folder / "tb_logger/tiny"), size_guidance={"images": 0})
    events.Reload()
    tags = [tag for tag in events.Tags()["images"] if tag.startswith("terms/gk/channel_attention")]
    assert tags and [event.step for event in events.Images(tags[0])] == [2, 4]

    learnt = torch.load("experiments/tiny/models/net_terms_4.pth", weights_only=True)["params"]
    assert learnt and all(value != 0 for value in learnt.values())  # a factor of 1 at the start is exp(0)
    assert main(["train", "-opt", file, "--auto_resume", "--force_yml", "train:total_iter=6"]) == 0
    later = torch.load("experiments/tiny/models/net_terms_6.pth", weights_only=True)["params"]
    assert all(0 < abs(later[key] - learnt[key]) < 0.01 for key in learnt)


def test_upstreams_own_pipeline_trains_a_model_of_ours(with_validation, write, tmp_path):
    script = "import kd_plugins, sys; from basicsr.train import train_pipeline; train_pipeline(sys.argv.pop(1))"
    result = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), "-opt", write(with_validation)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert (tmp_path / "experiments/tiny/models/net_g_latest.pth").is_file()
    assert "l_et:" in result.stderr and "Validation small at 4" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-opt", "nowhere.yml"], "nowhere.yml: no such file"),
        (["-opt", "FILE", "--force_yml", "train:distill:nc:type=BrisqeFeatureLoss"], "nearest: BrisqueFeatureLoss"),
        (["-opt", "FILE", "--force_yml", "teacher:checkpoint=nowhere.pth"], "nowhere.pth"),
        (["-opt", "FILE", "--force_yml", "datasets:train:degradation:type=rian"], "rain"),
        (["-opt", "FILE", "--force_yml", "model_type=SLKDModl"], "nearest: SLKDModel"),
    ],
)
def test_a_wrong_option_is_one_sentence_and_exit_code_2(options, write, in_folder, capfd, arguments, said):
    file = write(options)
    assert main(["train", *(file if argument == "FILE" else argument for argument in arguments)]) == 2
    error = capfd.readouterr().err
    assert said in error.splitlines()[-1] and "Traceback" not in error


def test_options_that_the_first_step_finds_not_to_go_together_are_one_sentence_too(dckd_options, write, in_folder, capfd):
    dckd_options["datasets"]["train"]["gt_size"] = 8
    assert main(["train", "-opt", write(dckd_options)]) == 2
    said = "basicsr train: the first step: train:distill:dcl: TokenizerExtractor: expected"
    assert said in capfd.readouterr().err.splitlines()[-1]
