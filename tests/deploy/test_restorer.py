"""Pictures through a model: their depth, their alpha, any size in tiles."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from kd_plugins import memory
from kd_plugins.deploy.images import Picture
from kd_plugins.deploy.model import Model
from kd_plugins.deploy.restorer import Restorer
from kd_plugins.memory import free_memory, largest_tile

CPU = torch.device("cpu")
AFTER_A_TRAINING = """
import torch
from kd_plugins.memory import growth

fill = lambda: [torch.ones(2**22) for _ in range(4)]
fill()
print(growth(fill, torch.device("cpu")))
"""


class Half(nn.Module):
    """Halves values, at a scale; sees 1 pixel far."""

    def __init__(self, channels=3, scale=1, worth=0.5):
        super().__init__()
        self.body = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        weight = torch.zeros_like(self.body.weight)
        weight[range(channels), range(channels), 1, 1] = worth
        self.body.weight = nn.Parameter(weight)
        self.scale = scale

    def forward(self, x):
        return self.body(x).repeat_interleave(self.scale, -1).repeat_interleave(self.scale, -2)


def _picture(height, width, channels=3, dtype=np.uint8, alpha=False):
    random = np.random.default_rng(0)
    top = np.iinfo(dtype).max
    pixels = random.integers(0, top, (height, width, channels), dtype, endpoint=True)
    return Picture(pixels, random.integers(0, top, (height, width), dtype) if alpha else None, "PNG")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(("channels", "own"), [(3, 3), (1, 3), (3, 1), (1, 1)])
@pytest.mark.parametrize("scale", [1, 2])
def test_a_picture_keeps_its_depth_and_channels(dtype, channels, own, scale):
    picture = _picture(21, 34, channels, dtype, alpha=True)
    again = Restorer(Model(Half(own, scale), "half", CPU)).restore(picture)
    expected = np.round(picture.pixels / 2).repeat(scale, 0).repeat(scale, 1)
    assert again.pixels.dtype == dtype and np.abs(again.pixels - expected).max() <= 1
    assert again.alpha.shape == (21 * scale, 34 * scale)
    if scale == 1:
        assert np.array_equal(again.alpha, picture.alpha)


def test_values_outside_of_an_image_are_clipped_and_the_input_stays_as_it_was():
    picture = _picture(5, 6, dtype=np.uint16)
    before = picture.pixels.copy()
    assert np.array_equal(
        Restorer(Model(Half(worth=3.0), "x", CPU)).restore(picture).pixels, np.minimum(3 * before.astype(int), 65535)
    )
    assert np.array_equal(picture.pixels, before)


@pytest.mark.parametrize("tile", [0, 40])
def test_tiles_make_what_the_whole_makes_and_tell_their_progress(tile):
    picture, shares = _picture(101, 67), []
    again = Restorer(Model(Half(scale=2), "half", CPU), tile, 16).restore(picture, shares.append)
    whole = Restorer(Model(Half(scale=2), "half", CPU), 0).restore(picture)
    assert np.abs(again.pixels.astype(int) - whole.pixels).max() <= 1
    assert sum(shares) == pytest.approx(1) and len(shares) == (12 if tile else 1)


def test_auto_measures_once_and_only_for_what_is_not_small(monkeypatch):
    measured = []
    monkeypatch.setattr(memory, "largest_tile", lambda run, device: measured.append(run(64)) or 96)
    runner = Restorer(Model(Half(), "half", CPU))
    assert runner.tile(256, 200) is None and not measured
    assert [runner.tile(300, 200), runner.tile(50, 4000), runner.tile(10, 10)] == [96, 96, 96] and len(measured) == 1


def test_the_tile_grows_with_what_is_free_and_shrinks_with_what_is_needed(monkeypatch):
    sizes = {}
    for name, free, for_a_pixel in (
        ("much", 2**30, 1000),
        ("little", 2**26, 1000),
        ("heavy", 2**30, 10000),
        ("none", 2**20, 10**6),
    ):
        monkeypatch.setattr(memory, "free_memory", lambda device, free=free: free)
        monkeypatch.setattr(memory, "growth", lambda run, device, each=for_a_pixel: 10**8 + each * run.args[0] ** 2)
        sizes[name] = largest_tile(lambda side: None, CPU)
    assert sizes == {"much": 608, "little": 160, "heavy": 192, "none": 64}
    monkeypatch.setattr(memory, "free_memory", lambda device: None)
    assert largest_tile(lambda side: None, CPU) == 256


def test_memory_is_measured_where_the_system_tells_it():
    if free_memory(CPU) is None or memory.growth(lambda: None, CPU) is None:
        pytest.skip("this system does not say how much memory a process needs")
    done = subprocess.run([sys.executable, "-c", AFTER_A_TRAINING], capture_output=True, text=True, check=True)
    assert int(done.stdout) == pytest.approx(2**26, rel=0.2)
    assert 2**20 < free_memory(CPU) < 2**50


def test_a_container_counts(monkeypatch, tmp_path):
    (tmp_path / "max").write_text("3000000\n")
    (tmp_path / "current").write_text("1000000\n")
    monkeypatch.setattr(memory, "_LIMITS", ((tmp_path / "max", tmp_path / "current"),))
    if not memory.Path("/proc/meminfo").exists():
        pytest.skip("no Linux")
    assert free_memory(CPU) == 2000000
    (tmp_path / "max").write_text("max\n")
    assert free_memory(CPU) > 2**20


@pytest.mark.parametrize(
    ("error", "said"), [("can't allocate memory", "not enough memory for tiles of 30"), ("odd", "cannot restore")]
)
def test_what_goes_wrong_in_the_network_is_said_of_the_picture(monkeypatch, error, said):
    model = Model(Half(), "half", CPU)

    def fail(x):
        raise RuntimeError(error)

    monkeypatch.setattr(model.run, "forward", fail)
    with pytest.raises(ValueError, match=said):
        Restorer(model).restore(_picture(20, 30))


def test_numbers_that_are_not_finite_are_no_image():
    model = Model(Half(), "half", CPU, "fp16")
    model.run.body.weight.data[:] = 1e30
    with pytest.raises(ValueError, match="not finite; .*this is fp16"):
        Restorer(model).restore(_picture(20, 30))


def test_a_file_of_one_size_decides_on_the_tile(monkeypatch):
    monkeypatch.setattr(Model, "fixed_size", (24, 40))
    model = Model(Half(), "half", CPU)
    seen = []
    monkeypatch.setattr(model, "run", lambda x: seen.append(x.shape[-2:]) or x)
    Restorer(model).restore(_picture(100, 90))
    assert set(seen) == {(24, 24)}
    with pytest.raises(ValueError, match="tile: 32, expected at most 24"):
        Restorer(model, 32, 8)


def test_a_tile_has_to_be_larger_than_the_overlap():
    with pytest.raises(ValueError, match="tile: 32, expected more than the overlap, 32"):
        Restorer(Model(Half(), "half", CPU), 32)


def test_an_overlap_below_nothing_is_refused():
    with pytest.raises(ValueError, match="overlap: -1, expected 0 or more"):
        Restorer(Model(nn.Identity(), "net", torch.device("cpu")), overlap=-1)
