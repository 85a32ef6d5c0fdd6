"""What spandrel, and so chaiNNer, makes of the students of the option files, from the files that `basicsr export` writes."""

from pathlib import Path

import pytest
import torch

from kd_plugins.deploy.export import export_model
from kd_plugins.deploy.model import Model
from kd_plugins.options import OptionError, read_options
from kd_plugins.teachers import build_source

OPTIONS = Path(__file__).parents[2] / "options"
UNKNOWN = {
    "Restormer": "it is in spandrel_extra_arches",
    "MSRResNet": "it is in no release",
    "RCAN": "its weights have other names than BasicSR's",
}


def students():
    """The students' blocks of all option files, each once."""
    found = {}
    for file in sorted(OPTIONS.rglob("*.yml")):
        try:
            block = read_options(str(file))["network_g"]
        except OptionError:  # tables of runs, and what other files build on
            continue
        if "type" in block:
            found.setdefault(str(block), pytest.param(block, id=file.stem))
    return list(found.values())


@pytest.mark.parametrize("block", students())
def test_spandrel_loads_the_student_and_restores_as_it_does(block, tmp_path):
    if where := UNKNOWN.get(block["type"]):
        pytest.skip(f"spandrel does not know {block['type']}: {where}")
    from spandrel import ModelLoader

    torch.manual_seed(0)
    model = Model(build_source(block, "network_g").eval().requires_grad_(False), "s", torch.device("cpu"), block=block)
    x = torch.rand(1, model.channels, 33, 40)
    expected = model.net(x).clamp(0, 1)
    for name in ("s.safetensors", "s.pth"):
        export_model(model, tmp_path / name)
        read = ModelLoader().load_from_file(tmp_path / name)
        assert read.scale == model.scale
        torch.testing.assert_close(read(x), expected, atol=1e-5, rtol=0)
