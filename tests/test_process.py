"""How a run uses its machine."""

import platform
import subprocess
import sys

import pytest
import torch

from kd_plugins.process import prepare_process

FAULTS = """
import resource, sys, torch
from kd_plugins.process import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
def step():
    for _ in range(5):
        maps = [torch.ones(6 << 20) for _ in range(4)]  # of 24 MiB
        del maps
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_num_threads_is_set():
    before = torch.get_num_threads()
    try:
        prepare_process({"num_threads": 1})
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_freed_memory_is_kept_for_the_next_step():
    faults = {
        how: int(subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, check=True, text=True).stdout)
        for how in ("returned", "kept")
    }
    assert faults["kept"] <= faults["returned"] / 10, faults
