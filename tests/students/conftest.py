"""A network that takes as long as it says, on a clock that a test holds."""

import time

import pytest

SLOW = """
import time

from torch import nn


class Slow(nn.Module):
    '''Each block takes a millisecond for every 8 channels that it begins with, as a processor does that takes 8 at once.'''

    def __init__(self, width=32, depth=8):
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.body = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(depth))
        self.last = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x):
        time.sleep(0.001 * len(self.body) * -(-self.first.out_channels // 8) * x.shape[-1] / 16)
        x = self.first(x)
        for block in self.body:
            x = x + block(x)
        return self.last(x)
"""


class Clock:
    now = 0.0
    speed = 1.0  # of the machine

    def sleep(self, seconds):
        self.now += float(seconds) / self.speed  # a tensor in a trace


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    for name in ("perf_counter", "monotonic"):
        monkeypatch.setattr(time, name, lambda: clock.now)
    monkeypatch.setattr(time, "sleep", clock.sleep)
    return clock


@pytest.fixture
def slow(tmp_path, clock):
    """The block of a teacher that takes 32 ms at 16x16."""
    (tmp_path / "slow.py").write_text(SLOW)
    return {"file": str(tmp_path / "slow.py"), "class": "Slow", "width": 32, "depth": 8}
