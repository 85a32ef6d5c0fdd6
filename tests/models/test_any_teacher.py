"""Any architecture teaches, and learns: one training step of each, out of nothing but option blocks."""

import json
from pathlib import Path

import pytest
import torch
from basicsr.models import build_model
from families import ARCHITECTURES, DEEPER, ENLARGING

from kd_plugins.teachers import build_source, build_teacher
from kd_plugins.teachers.checkpoint import network_in

PADDED = {"RRDBNet": {"pad_to": 2}, "SwinIR": {"pad_to": 4}}  # found by trying
LOGITS = {"logits": {"type": "L1Loss", "between": "output", "view": "degraded", "loss_weight": 1.0}}


@pytest.fixture
def checkpoint(tmp_path):
    """Save random weights of a block; its path."""

    def save(block, name="teacher"):
        torch.manual_seed(0)
        torch.save({"params": build_source(block, "teacher").state_dict()}, tmp_path / f"{name}.pth")
        return str(tmp_path / f"{name}.pth")

    return save


def make(student, scale=1, terms=None, **options):
    return build_model(
        {
            "name": "any", "model_type": "DistillationModel", "is_train": True, "dist": False, "num_gpu": 0, "rank": 0, "path": {},
            "scale": scale, "datasets": {"train": {"gt_size": 18}}, "network_g": student,
            "train": {
                "ema_decay": 0.9, "total_iter": 10, "optim_g": {"type": "SGD", "lr": 1e-2}, "pixel_opt": {"type": "L1Loss"},
                "scheduler": {"type": "MultiStepLR", "milestones": [10]}, "distill": terms,
            },
            **options,
        }
    )  # fmt: skip


def step(teacher, student, scale=1, terms=LOGITS, **options):
    """The model after one step on an image of 18 x 18, or half of it, which few of them take as it is."""
    model = make(student, scale, terms, teacher=teacher, **options)
    before = [p.detach().clone() for p in model.net_g.parameters()]
    frozen = [p.detach().clone() for p in model.teachers["degraded"].parameters()]
    size = 18 // scale
    model.feed_data({"lq": torch.rand(2, 3, size, size), "gt": torch.rand(2, 3, 18, 18)})
    model.optimize_parameters(1)
    assert model.output.shape == (2, 3, 18, 18)
    assert any(not torch.equal(old, new) for old, new in zip(before, model.net_g.parameters(), strict=True))
    assert all(torch.equal(old, new) for old, new in zip(frozen, model.teachers["degraded"].parameters(), strict=True))
    return model


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_dckd_in_every_family(name, checkpoint, tokenizer_file):
    block, dckd = ARCHITECTURES[name], {"tokenizer": {"weights": str(tokenizer_file)}}
    teacher = {**block, "checkpoint": checkpoint(block)}
    model = step(teacher, block, 2 if name in ENLARGING else 1, terms={}, model_type="DCKDModel", dckd=dckd)
    assert all(model.updater.losses[f"l_{term}"] > 0 for term in ("logits", "dcl", "ce"))
    assert type(model.net_g_ema) is type(model.net_g)


SAME_SIZE = {  # SLKD's second teacher sees the clean image
    **dict.fromkeys(("EDSR", "RCAN", "SRVGGNetCompact", "SPAN"), {"upscale": 1}),
    **dict.fromkeys(("SAFMN", "PLKSR"), {"upscaling_factor": 1}),
    "RRDBNet": {"scale": 1},
    "SwinIR": {"upscale": 1, "upsampler": ""},
}
SLOW = ("SCUNet", "Uformer", "FFTformer")


@pytest.mark.parametrize(("method", "terms"), [("SLKDModel", ("kl", "nc", "et")), ("SKDModel", ("gk", "cl"))])
@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name not in SLOW])
def test_features_are_compared_in_every_family(name, method, terms, checkpoint):
    block = {**ARCHITECTURES[name], **DEEPER.get(name, {}), **SAME_SIZE.get(name, {})}
    model = step({**block, "checkpoint": checkpoint(block)}, block, terms={}, model_type=method, features="auto")
    assert all(model.updater.losses[f"l_{term}"] > 0 for term in terms)


@pytest.mark.parametrize(
    ("teacher", "student", "chosen"),
    [
        ("Uformer", "NAFNet", "encoders.2 - encoderlayer_2.blocks.0.mlp.dwconv, middle_blks - encoderlayer_3.blocks.0.mlp.dwconv"),
        ("DRUNet", "DnCNN", "model.0 - m_down1.1, model.4 - m_down3.1"),
    ],
    ids=lambda value: value if "." not in value else "",
)
def test_slkd_finds_its_features_in_two_families(teacher, student, chosen, checkpoint, log):
    blocks = [{**ARCHITECTURES[name], **DEEPER.get(name, {})} for name in (teacher, student)]
    named = {**blocks[0], "checkpoint": checkpoint(blocks[0])}
    model = step(named, blocks[1], terms={}, model_type="SLKDModel", features="auto")
    assert chosen in log()
    assert all(model.updater.losses[f"l_{term}"] > 0 for term in ("nc", "et"))


def test_tokens_are_refused_as_a_feature(checkpoint):
    block = ARCHITECTURES["SwinIR"]
    terms = {"fit": {"type": "MSELoss", "between": "body", "view": "degraded", "loss_weight": 1.0}}
    with pytest.raises(ValueError, match=r"features: layer 'layers.0' returns \(1, 144, 4\), expected one map .*`basicsr layers"):
        step({**block, "checkpoint": checkpoint(block)}, block, 2, terms, features={"body": [["layers.0", "layers.0"]]})


def test_features_of_two_scales_are_compared_with_a_warning(checkpoint, log):
    block = ARCHITECTURES["EDSR"]
    terms = {"fit": {"type": "MSELoss", "between": "body", "view": "degraded", "loss_weight": 1.0}}
    features = {"body": [["upsample", "conv_first"], ["conv_first", "conv_first"]]}
    step({**block, "checkpoint": checkpoint(block)}, block, 2, terms, features=features)
    (said,) = [line for line in log().splitlines() if "is resized" in line]
    assert "features:body: [upsample, conv_first]: the student's feature is 18x18, the teacher's 9x9, one is resized" in said


def test_weights_alone_teach_and_are_what_a_student_starts_from(checkpoint):
    file = checkpoint(ARCHITECTURES["DRUNet"])
    model = step({"checkpoint": file}, {"checkpoint": file})
    assert model.updater.losses["l_logits"] == 0  # before the step they were the same network


def saved(model, folder):
    model.opt["path"]["models"] = str(folder)
    model.save_network([model.net_g, model.net_g_ema], "net_g", -1, ["params", "params_ema"])
    return str(folder / "net_g_latest.pth")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_is_saved_of_a_student_is_a_teacher_without_further_words(name, tmp_path):
    x = torch.rand(1, 3, 18, 18)
    model = make(ARCHITECTURES[name], 2 if name in ENLARGING else 1)
    file, block = saved(model, tmp_path), {**ARCHITECTURES[name], **PADDED.get(name, {})}
    assert network_in(Path(file)) == block
    assert torch.equal(build_teacher({"checkpoint": file})(x).image, model.net_g_ema.eval()(x))
    again = make({"checkpoint": file}, 2 if name in ENLARGING else 1)
    assert network_in(Path(saved(again, tmp_path))) == block


def test_a_student_of_weights_that_are_recognised_describes_what_was_read_off_them(checkpoint, tmp_path):
    model = make({"checkpoint": checkpoint(ARCHITECTURES["DRUNet"])})
    file, x = saved(model, tmp_path), torch.rand(1, 3, 18, 18)
    assert network_in(Path(file))["nc"] == [4] * 4
    assert torch.equal(build_teacher({"checkpoint": file})(x).image, model.net_g_ema.eval()(x))


def test_a_students_past_comes_from_the_same_source(checkpoint, tokenizer_file):
    file = checkpoint(ARCHITECTURES["DRUNet"])
    dckd = {"tokenizer": {"weights": str(tokenizer_file)}}
    model = step({"checkpoint": file}, {"checkpoint": file}, terms={"ce": None}, model_type="DCKDModel", dckd=dckd)
    assert type(model.history.net) is type(model.net_g) and model.updater.losses["l_dcl"] >= 0


def test_a_padded_teacher_with_an_added_channel_is_tapped(checkpoint):
    block = ARCHITECTURES["DRUNet"]
    terms = {"fit": {"type": "MSELoss", "between": "encoder", "view": "degraded", "loss_weight": 1.0}}
    features = {"encoder": [["body.0", "m_down1.0"]]}
    model = step({**block, "checkpoint": checkpoint(block)}, ARCHITECTURES["EDSR"] | {"upscale": 1}, 1, terms, features=features)
    assert model.updater.losses["l_fit"] > 0


@pytest.mark.filterwarnings("ignore:`torch.jit.*` is deprecated")
@pytest.mark.parametrize("kind", ["TorchScript", "torch.export", "ensemble"])
def test_what_has_only_an_output_teaches_and_has_no_features(checkpoint, tmp_path, log, kind):
    student, file, program = ARCHITECTURES["DnCNN"], checkpoint(ARCHITECTURES["DnCNN"]), str(tmp_path / "program")
    net = build_source({"checkpoint": file}, "teacher").eval()
    if kind == "torch.export":
        torch.export.save(
            torch.export.export(net, (torch.rand(2, 3, 18, 18),), dynamic_shapes=({0: torch.export.Dim("n")},)), program
        )
    else:
        torch.jit.trace(net, torch.rand(1, 3, 8, 8)).save(program)
    members = [{"program": program, "trust": True, "weight": 1}, {"checkpoint": file, "weight": 3}]
    teacher = {"ensemble": members} if kind == "ensemble" else {"program": program, "trust": True}
    assert step(teacher, student).updater.losses["l_logits"] > 0
    assert f"teacher ({'Ensemble' if kind == 'ensemble' else 'Program'})" in log()
    assert "nan" not in log()
    for features in (None, {"encoder": [["model.0", "model.0"]], "decoder": [["model.2", "model.2"]]}):
        with pytest.raises(ValueError, match="features: .* no layers to compare; expected terms `between: output` only"):
            step(teacher, student, model_type="SLKDModel", features=features)


@pytest.mark.parametrize(
    ("teacher", "said"),
    [
        ({"mean": [0.5, 0.5]}, r"mean: \[0.5, 0.5\], expected one number or 3: the image has so many channels"),
        ({"output": 0}, "output: 0, but SwinIR returns one Tensor"),
    ],
    ids=["mean", "output"],
)
def test_what_the_teacher_does_not_take_is_said_before_the_first_step(checkpoint, teacher, said):
    block = ARCHITECTURES["SwinIR"]
    with pytest.raises(ValueError, match=said):
        step({**block, "checkpoint": checkpoint(block), **teacher}, ARCHITECTURES["EDSR"], 2)


def test_a_network_that_takes_no_size_but_its_own_says_so(tmp_path):
    (tmp_path / "fixed.py").write_text(
        "from torch import nn\n\n"
        "class Fixed(nn.Conv2d):\n"
        "    def forward(self, x):\n"
        "        return super().forward(x.reshape(-1, 3, 50, 50))\n"
    )
    block = {"file": str(tmp_path / "fixed.py"), "class": "Fixed", "in_channels": 3, "out_channels": 3, "kernel_size": 1}
    torch.save(build_source(block, "teacher").state_dict(), tmp_path / "fixed.pth")
    with pytest.raises(ValueError, match=r"teacher: Fixed does not take an image of shape \(1, 3, 18, 18\) .*`pad_to: 8`"):
        step({**block, "checkpoint": str(tmp_path / "fixed.pth")}, ARCHITECTURES["DnCNN"])


def test_the_copies_of_a_student_are_padded_as_it_is(checkpoint, tokenizer_file):
    block, dckd = ARCHITECTURES["SwinIR"], {"tokenizer": {"weights": str(tokenizer_file)}}
    model = step({**block, "checkpoint": checkpoint(block)}, block, 2, terms={}, model_type="DCKDModel", dckd=dckd)
    x = torch.rand(1, 3, 7, 10)
    for net in (model.net_g, model.net_g_ema, model.history.net, model.teachers["degraded"].net):
        assert net(x).shape == (1, 3, 14, 20)
    assert model.opt["network_g"] == {"type": "SourcedNetwork", "network": {**block, "pad_to": 4}}


def test_an_option_file_alone_trains_and_tests_a_student_of_a_class_file(options, write, tmp_path, photo_folder):
    """Both from files, the teacher with several outputs; then the test of what was saved."""
    from kd_plugins.test import test_pipeline
    from kd_plugins.train import train_pipeline

    (tmp_path / "net.py").write_text(
        "from basicsr.utils.registry import ARCH_REGISTRY\n"
        "from torch import nn\n\n"
        "@ARCH_REGISTRY.register()\n"
        "class EDSR(nn.Module):\n"  # a taken name
        "    def __init__(self, width):\n"
        "        super().__init__()\n"
        "        self.body = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 3, 3, padding=1))\n\n"
        "    def forward(self, x):\n"
        "        return {'image': x + self.body(x)}\n"
    )
    network = {"file": str(tmp_path / "net.py"), "class": "EDSR", "output": "image"}
    teacher = build_source({**network, "width": 8}, "teacher")
    torch.save({"params": teacher.state_dict()}, tmp_path / "teacher.pth")
    options.update(
        model_type="DistillationModel",
        network_g={**network, "width": 4},
        teacher={**network, "width": 8, "checkpoint": str(tmp_path / "teacher.pth")},
        init="random",
    )
    options["features"] = {"body": [["body.0", "body.0"]]}
    fit = {"type": "MSELoss", "between": "body", "view": "degraded", "loss_weight": 0.1}
    options["train"].update(total_iter=2, pixel_opt={"type": "L1Loss"}, distill={**LOGITS, "fit": fit})
    options["logger"]["use_tb_logger"] = False
    trained = train_pipeline(str(tmp_path), ["-opt", write(json.loads(json.dumps(options)))])
    assert {"l_pix", "l_logits", "l_fit"} <= set(trained.updater.losses)

    saved = str(tmp_path / "experiments/tiny/models/net_g_latest.pth")
    with pytest.raises(ValueError, match=r"by code of its own.* name it beside .*net.py, class: EDSR, output: image, width: 4}"):
        build_teacher({"checkpoint": saved})
    build_teacher({**network, "width": 4, "checkpoint": saved})
    options["datasets"] = {
        "test": {"name": "small", "type": "DegradedPhotoDataset", "photos": str(photo_folder), "degradation": {"type": "rain"}}
    }
    options["path"] = {"pretrain_network_g": saved, "param_key_g": "params_ema", "strict_load_g": True}
    options["val"] = {"save_img": False, "metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 0}}}
    tested = test_pipeline(str(tmp_path), ["-opt", write(options, "test.yml")])
    assert set(tested.scores["small"]) == {"input", "student", "teacher"}
