"""TorchScript and torch.export files teach by their output, where the option file says that it trusts them."""

import json
import zipfile

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from kd_plugins.teachers import build_teacher
from kd_plugins.teachers.program_files import program, program_kind

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.*` is deprecated")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Dropout(0.5), nn.Conv2d(4, 3, 3, padding=1))

    def forward(self, x):
        return self.body(x)


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture(scope="module")
def files(tmp_path_factory, net):
    """The same network in each form; the traced one was in training mode."""
    folder = tmp_path_factory.mktemp("programs")
    torch.jit.script(Net().train()).save(folder / "training.pt")
    torch.jit.script(net).save(folder / "scripted.pt")
    torch.jit.trace(net, torch.rand(1, 3, 8, 8)).save(folder / "traced.pth")
    any_size = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    torch.export.save(torch.export.export(net, (torch.rand(2, 3, 8, 8),), dynamic_shapes=(any_size,)), folder / "exported.pt2")
    torch.export.save(torch.export.export(net, (torch.rand(1, 3, 8, 8),)), folder / "fixed.pt2")
    return folder


@pytest.mark.parametrize("name", ["scripted.pt", "traced.pth", "exported.pt2"])
def test_a_program_restores_what_its_network_restores(files, net, name):
    teacher = build_teacher({"program": str(files / name), "trust": True})
    for x in (torch.rand(2, 3, 8, 8), torch.rand(3, 3, 9, 12)):
        torch.testing.assert_close(teacher(x).image, net(x))
    assert sum(p.numel() for p in teacher.parameters()) == sum(p.numel() for p in net.parameters())
    assert not any(p.requires_grad for p in teacher.parameters())
    assert teacher.train() is teacher and not teacher(x).image.requires_grad


def test_a_script_saved_in_training_mode_runs_in_eval_mode(files):
    teacher, x = build_teacher({"program": str(files / "training.pt"), "trust": True}), torch.rand(1, 3, 8, 8)
    assert torch.equal(teacher(x).image, teacher(x).image)


def test_a_program_of_one_size_can_be_padded_to_it_and_says_so_otherwise(files, net):
    x = torch.rand(1, 3, 5, 8)
    assert build_teacher({"program": str(files / "fixed.pt2"), "pad_to": 8, "trust": True})(x).image.shape == x.shape
    with pytest.raises(ValueError, match=r"fixed.pt2 does not take a batch of shape \(2, 3, 8, 8\) .*saved for any batch size"):
        build_teacher({"program": str(files / "fixed.pt2"), "trust": True})(torch.rand(2, 3, 8, 8))


def test_its_layers_cannot_be_tapped(files):
    teacher = build_teacher({"program": str(files / "scripted.pt"), "trust": True})
    with pytest.raises(ValueError, match=r"features: scripted.pt is a program, .*no layers.*expected terms `between: output` only"):
        teacher.tap(["body.0"])


def test_as_a_checkpoint_it_is_refused_with_what_to_write(files):
    for name, kind in (("scripted.pt", "TorchScript"), ("exported.pt2", "torch.export")):
        with pytest.raises(
            ValueError, match=rf"is a program \({kind}\), which runs .*if you trust it: `program: .*{name}`, `trust: true`"
        ):
            build_teacher({"checkpoint": str(files / name)})


def test_weights_are_no_program_and_keys_of_other_sources_do_not_go_with_one(tmp_path, files, net):
    torch.save(net.state_dict(), tmp_path / "net.pth")
    assert program_kind(tmp_path / "net.pth") is None
    with pytest.raises(ValueError, match="is no TorchScript and no torch.export file; expected weights in `checkpoint: FILE`"):
        build_teacher({"program": str(tmp_path / "net.pth"), "trust": True})
    with pytest.raises(ValueError, match="teacher:type: 'EDSR', program has no such key"):
        build_teacher({"program": str(files / "scripted.pt"), "type": "EDSR"})


def test_a_damaged_archive_is_one_sentence_whatever_it_was(tmp_path, net):
    path = tmp_path / "net.pth"
    torch.save(net.state_dict(), path)
    path.write_bytes(path.read_bytes().replace(b"PK\x01\x02", b"PK__"))  # its list of contents
    with pytest.raises(ValueError, match="program: .*net.pth is no TorchScript"):
        build_teacher({"program": str(path), "trust": True})
    with pytest.raises(ValueError, match="checkpoint .*net.pth: cannot be read as plain weights"):
        build_teacher({"checkpoint": str(path)})


def test_a_program_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match="program: '.*missing.pt' is no file"):
        build_teacher({"program": str(tmp_path / "missing.pt"), "trust": True})


def test_a_broken_program_is_one_sentence(tmp_path):
    path = tmp_path / "net.pt"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("net/constants.pkl", "net/code/x.py", "net/data.pkl"):
            archive.writestr(name, b"nothing")
    with pytest.raises(ValueError, match="program: .*net.pt cannot be loaded by PyTorch"):
        program(str(path), trust=True)


@pytest.mark.parametrize("name", ["scripted.pt", "traced.pth", "exported.pt2"])
@pytest.mark.parametrize("trust", [{}, {"trust": False}, {"trust": "yes"}, {"trust": 1}, {"trust": None}], ids=str)
def test_a_program_that_is_not_trusted_is_refused_and_not_loaded(files, name, trust, monkeypatch):
    for module in (torch.jit, torch.export):
        monkeypatch.setattr(module, "load", lambda *args, **kwargs: pytest.fail("loaded"))
    block = {"program": str(files / name), **trust}
    for teacher in (block, {"ensemble": [block]}, {"tasks": {"rain": block}}):
        with pytest.raises(ValueError, match=r"teacher.*:trust: .*a program can run code .*`trust: true` beside it"):
            build_teacher(teacher)


def test_a_file_that_describes_its_network_as_a_trusted_program_does_not_trust_it_for_us(tmp_path, files):
    network = {"program": str(files / "scripted.pt"), "trust": True}
    save_file({"w": torch.zeros(1)}, tmp_path / "net.safetensors", metadata={"network": json.dumps(network)})
    with pytest.raises(ValueError, match="describes its network by 'program', expected a registered type"):
        build_teacher({"checkpoint": str(tmp_path / "net.safetensors")})
