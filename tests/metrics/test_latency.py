"""How long networks take: in turns, warm, at a size that a user restores."""

import pytest
import torch
from torch import nn

from kd_plugins.metrics import latency
from kd_plugins.metrics.latency import Latency, time_networks


class Slow(nn.Module):
    """Moves a clock by some seconds for each pass, and notes it."""

    def __init__(self, clock, name, *seconds, largest=10**9):
        super().__init__()
        self.clock, self.name, self.seconds, self.largest = clock, name, list(seconds), largest

    def forward(self, x):
        if max(x.shape[-2:]) > self.largest:
            raise RuntimeError("no such size")
        assert not self.training
        self.clock.append((self.name, x.shape[-1]))
        self.clock.now += self.seconds.pop(0) if len(self.seconds) > 1 else self.seconds[0]
        return x


class Clock(list):
    now = 0.0


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(latency.time, "perf_counter", lambda: clock.now)
    monkeypatch.setattr(latency, "_SECONDS", 1.5)
    return clock


def test_networks_take_turns_and_the_first_pass_at_a_size_does_not_count(clock):
    teacher = Slow(clock, "t", 0, 0, 50, 0.5, 0.3, 0.4)
    student = Slow(clock, "s", 0, 0, 50, 0.1, 0.2, 0.6, 0.1)
    times, size = time_networks([teacher, student], torch.rand(1, 3, 64, 64), 256)
    assert size == "256x256"
    assert clock[:4] == [("t", 64), ("s", 64)] * 2
    assert clock[4:] == [("t", 256), ("s", 256)] * ((len(clock) - 4) // 2) and len(clock) == 4 + 2 * (1 + 5)
    assert times[0] == pytest.approx((0.4, 0.3, 0.5)) and times[1] == pytest.approx((0.1, 0.1, 0.6))
    assert str(Latency(0.4, 0.3, 0.5)) == "400.0 ms (300.0 - 500.0)"


def test_slow_networks_are_timed_at_a_smaller_size_and_not_often(clock):
    times, size = time_networks([Slow(clock, "t", 0.3)], torch.rand(1, 3, 64, 64), 256)
    assert size == "128x128" and times[0].median == pytest.approx(0.3)
    clock.clear()
    times, size = time_networks([Slow(clock, "t", 9.0)], torch.rand(1, 3, 64, 48), 256)
    assert size == "64x48" and len(clock) == 2 + 1 + 3


def test_networks_of_one_size_are_timed_at_it(clock):
    _, size = time_networks([Slow(clock, "t", 0.01), Slow(clock, "s", 0.01, largest=64)], torch.rand(1, 3, 64, 64), 256)
    assert size == "64x64"


def test_networks_and_random_numbers_are_left_as_they_were():
    net, x = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)).train(), torch.rand(1, 3, 8, 8)
    before, state = {key: value.clone() for key, value in net.state_dict().items()}, torch.get_rng_state()
    time_networks([net], x, 32)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items()) and net.training
    assert torch.equal(torch.get_rng_state(), state)
