"""Time a pass of a small student on a quiet machine and beside other processes, by how OpenMP's threads wait for one another.

python tools/benchmark_busy.py [--others 2] [--seconds 6]

A pass is forward and backward of the bundled students' Restormer, batch 4 x 64²; medians, in milliseconds.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

WAITS = {"OpenMP's own": {"GOMP_SPINCOUNT": "300000"}, "kd_plugins'": {}, "passive": {"OMP_WAIT_POLICY": "PASSIVE"}}


def main() -> None:
    """Time each way of waiting, quiet and busy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--others", type=int, default=2, help="busy processes")
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)  # a process that is timed, with so many threads
    args = parser.parse_args()
    if args.one:
        print(median(args.one, args.seconds))
        return
    threads = os.cpu_count() or 1
    rows = [*((f"{threads} threads, {name}", threads, wait) for name, wait in WAITS.items()), ("1 thread", 1, {})]
    quiet = [timed(count, wait, args.seconds) for _, count, wait in rows]
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True) for _ in range(args.others)]
    try:
        busy = [timed(count, wait, args.seconds) for _, count, wait in rows]
    finally:
        for other in others:
            other.kill()
    print(f"| | quiet | beside {args.others} processes |\n|---|---:|---:|")
    for (name, *_), *both in zip(rows, quiet, busy, strict=True):
        print(f"| {name} | {' | '.join(f'{1e3 * each:,.0f} ms' for each in both)} |")


def timed(threads: int, wait: dict[str, str], seconds: float) -> float:
    """The median of a new process: how threads wait is read when PyTorch is imported."""
    kept = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    command = [sys.executable, __file__, "--one", str(threads), "--seconds", str(seconds)]
    found = subprocess.run(
        command, env={**kept, "OMP_NUM_THREADS": str(threads), **wait}, check=True, capture_output=True, text=True
    )
    return float(found.stdout.split()[-1])


def median(threads: int, seconds: float) -> float:
    """Seconds a pass."""
    import kd_plugins  # noqa: F401, I001  (before PyTorch: it says how threads wait)
    import torch

    from kd_plugins.archs import Restormer

    torch.set_num_threads(threads)
    net = Restormer(dim=8, num_blocks=[1, 1, 1, 2], num_refinement_blocks=1, ffn_expansion_factor=1.25)
    net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x, times = torch.rand(4, 3, 64, 64), []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 5:
        begun = time.perf_counter()
        net(x).square().mean().backward()
        times.append(time.perf_counter() - begun)
    return statistics.median(times[2:])


if __name__ == "__main__":
    main()
