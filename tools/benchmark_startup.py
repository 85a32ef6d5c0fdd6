"""Time work of a small network with kd_plugins' settings of the process and without, on a quiet machine and beside other processes.

python tools/benchmark_startup.py [--others 2] [--seconds 6]

A step is forward and backward of the bundled students' Restormer, batch 4 x 64²; a tile is 512² forward through the teachers'.
Medians, in milliseconds. Each figure is a process of its own: the settings are read when PyTorch is imported.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

OWN = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "MALLOC_", "GLIBC_TUNABLES")
SPIN, RETURN = {"GOMP_SPINCOUNT": "300000"}, {"MALLOC_CHECK_": "0"}  # OpenMP's default; glibc's, whose mention leaves it alone
SETTINGS = {"as PyTorch comes": {**SPIN, **RETURN}, "threads sleep soon": RETURN, "and memory is kept": {}}


def main() -> None:
    """Time each setting, quiet and busy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--others", type=int, default=2, help="busy processes")
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)  # a process that is timed: what, with so many threads
    args = parser.parse_args()
    if args.one:
        print(median(args.one[0], int(args.one[1]), args.seconds))
        return
    threads = os.cpu_count() or 1
    rows = [(f"{count} thread{'s' * (count > 1)}, {name}", count, own) for count in (1, threads) for name, own in SETTINGS.items()]
    quiet = [figures(count, own, args.seconds) for _, count, own in rows]
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True) for _ in range(args.others)]
    try:
        busy = [figures(count, own, args.seconds) for _, count, own in rows]
    finally:
        for other in others:
            other.kill()
    print(f"| | step | tile | step beside {args.others} processes | tile |\n|---|" + "---:|" * 4)
    for (name, *_), *both in zip(rows, quiet, busy, strict=True):
        print(f"| {name} | {' | '.join(f'{1e3 * each:,.0f} ms' for found in both for each in found)} |")


def figures(threads: int, own: dict[str, str], seconds: float) -> list[float]:
    """The medians of a step and of a tile."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OWN)}
    environment = {**kept, "OMP_NUM_THREADS": str(threads), **own}
    commands = [[sys.executable, __file__, "--one", what, str(threads), "--seconds", str(seconds)] for what in ("step", "tile")]
    runs = [subprocess.run(command, env=environment, check=True, capture_output=True, text=True) for command in commands]
    return [float(run.stdout.split()[-1]) for run in runs]


def median(what: str, threads: int, seconds: float) -> float:
    """Seconds of a step or a tile."""
    import kd_plugins  # noqa: F401, I001  (before PyTorch: it says how threads wait)
    import torch

    from kd_plugins.archs import Restormer

    torch.set_num_threads(threads)
    if what == "step":
        net = Restormer(dim=8, num_blocks=[1, 1, 1, 2], num_refinement_blocks=1, ffn_expansion_factor=1.25)
        x = torch.rand(4, 3, 64, 64)
    else:
        net = Restormer(dim=16, num_blocks=[1, 1, 2, 2], num_refinement_blocks=1, ffn_expansion_factor=2.0).requires_grad_(False)
        x = torch.rand(1, 3, 512, 512)
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 5:
        begun = time.perf_counter()
        out = net(x).square().mean()
        if out.requires_grad:
            out.backward()
        times.append(time.perf_counter() - begun)
    return statistics.median(times[2:])


if __name__ == "__main__":
    main()
