import subprocess
import sys

SCRIPT = """
import builtins
from torch.utils.data import DataLoader
from kd_plugins.data.workers import ignore_signals

builtins.held = iter(DataLoader(range(100), num_workers=1, worker_init_fn=lambda _: ignore_signals()))
next(builtins.held)
print("the end")
"""


def test_a_worker_that_ignores_signals_keeps_no_process_from_its_end():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "the end\n"
