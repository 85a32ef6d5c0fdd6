"""The memory that a model takes: what a process of its own grows by, from before it is loaded to its peak over one image."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kd_plugins.deploy.variants import Variant


def peak_memory(variant: Variant, size: tuple[int, int], threads: int) -> int | None:
    """Load a model in a process of its own, and let it restore one image.

    Args:
        variant: the model; one that is not compiled: the compiler takes more than what it makes.
        size: height and width of the image.
        threads: of the CPU.

    Returns:
        Bytes: on the CPU resident memory beyond what Python and PyTorch take, on a GPU what PyTorch allocates there; None where
        the system does not say, or for a compiled model.
    """
    if variant.compiled:
        return None
    task = json.dumps([variant, size, threads])
    done = subprocess.run([sys.executable, "-m", __name__, task], capture_output=True, text=True, check=False)
    last = done.stdout.strip().rpartition("\n")[2]
    return int(last) if done.returncode == 0 and last.isdigit() else None


def _measure(task: str) -> int | None:
    import kd_plugins

    kd_plugins.register()
    import torch

    from kd_plugins.deploy.model import find_device
    from kd_plugins.deploy.variants import Variant
    from kd_plugins.memory import growth

    variant, size, threads = json.loads(task)
    torch.set_num_threads(threads)

    def restore() -> None:
        loaded = Variant(*variant).load()
        with torch.inference_mode():
            loaded.run(loaded.example(*size))

    return growth(restore, find_device(Variant(*variant).device))


if __name__ == "__main__":
    print(_measure(sys.argv[1]))
