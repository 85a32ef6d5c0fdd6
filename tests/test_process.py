"""How a run uses its machine."""

import os
import platform
import subprocess
import sys

import pytest
import torch

from kd_plugins.process import prepare_process

FAULTS = """
import resource, sys
if sys.argv[1] == "kd_plugins":
    import kd_plugins
import torch
def step():
    for size in (6, 6, 25):
        maps = [torch.ones(size << 20) for _ in range(4)]  # of 24 MiB, as in training, and of 100, as in a tile
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
def test_freed_memory_is_kept_for_the_next_step_unless_the_environment_says_otherwise():
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}

    def faults(imported: str, **environment: str) -> int:
        command = [sys.executable, "-c", FAULTS, imported]
        return int(subprocess.run(command, env={**clean, **environment}, capture_output=True, check=True, text=True).stdout)

    returned = faults("torch")
    assert faults("kd_plugins") <= returned / 10
    assert faults("kd_plugins", MALLOC_TRIM_THRESHOLD_="131072") > returned / 2
