"""Train every variant of an ablation file from every start with every seed, and write one table.

python tools/ablation.py options/ablation_slkd_derain.yml --out FOLDER [--share 1/2] [--force_yml KEY=VALUE ...]

Each finished run is a line of FOLDER/runs.csv, and is not run again: stop and start as you like, or run
several shares side by side.
"""

import argparse
import csv
import itertools
import os
import shutil
import statistics
import time
from pathlib import Path

import yaml

AXES = ("seeds", "starts", "variants")
COLUMNS = ["start", "variant", "seed", "metric", "value", "seconds"]


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="base, force_yml, starts, seeds, variants")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--base", help="the option file of the runs, in place of the file's own: another task")
    parser.add_argument("--share", default="1/1", help="k/n: every n-th run, from the k-th on")
    parser.add_argument("--force_yml", nargs="+", default=[], help="for every run, after the file's own")
    for axis in AXES:
        parser.add_argument(f"--{axis}", nargs="+", help=f"only these {axis}")
    args = parser.parse_args()

    plan = yaml.safe_load(args.file.read_text())
    args.out.mkdir(parents=True, exist_ok=True)
    results = args.out / "runs.csv"
    chosen = ([item for item in plan[axis] if str(item) in (getattr(args, axis) or map(str, plan[axis]))] for axis in AXES)
    runs = list(itertools.product(*chosen))
    share, shares = map(int, args.share.split("/"))
    for index, (seed, start, variant) in enumerate(runs):
        if index % shares == share - 1 and (start, variant, str(seed)) not in {tuple(row[:3]) for row in read(results)}:
            entries = [*plan["force_yml"], *args.force_yml, *plan["variants"][variant], f"init={start}", f"manual_seed={seed}"]
            for metric, value, seconds in run(args.base or plan["base"], entries, args.out, f"run_{share}"):
                append(results, [start, variant, str(seed), metric, f"{value:.4f}", f"{seconds:.0f}"])
            print(table(read(results)), flush=True)
    print(table(read(results)))


def run(base: str, entries: list[str], out: Path, name: str) -> list[tuple[str, float, float]]:
    """One training; returns (dataset/metric, value, seconds)."""
    from kd_plugins.train import train_pipeline

    shutil.rmtree(out / "experiments" / name, ignore_errors=True)
    started = time.time()
    model = train_pipeline(str(out), ["-opt", base, "--force_yml", f"name={name}", *entries])
    seconds = time.time() - started
    return [(f"{d}/{m}", value, seconds) for d, scores in model.scores.items() for m, value in scores["student"].items()]


def read(file: Path) -> list[list[str]]:
    """The rows so far."""
    return list(csv.reader(file.open()))[1:] if file.exists() else []


def append(file: Path, row: list[str]) -> None:
    """One row, written at once: shares may write side by side."""
    new = not file.exists()
    with file.open("a", newline="") as stream:
        csv.writer(stream).writerows([COLUMNS, row] if new else [row])
        stream.flush()
        os.fsync(stream.fileno())


def table(rows: list[list[str]]) -> str:
    """Mean and standard deviation over seeds, as Markdown."""
    groups: dict[tuple[str, str, str], list[float]] = {}
    for start, variant, _, metric, value, _ in rows:
        groups.setdefault((metric, variant, start), []).append(float(value))
    starts = list(dict.fromkeys(row[0] for row in rows))
    lines = [f"| metric | variant | {' | '.join(f'start: {start}' for start in starts)} |", "|---" * (len(starts) + 2) + "|"]
    for metric, variant in dict.fromkeys((metric, variant) for metric, variant, _ in groups):
        cells = []
        for start in starts:
            values = groups.get((metric, variant, start), [])
            spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.3f}{spread} ({len(values)})" if values else "")
        lines.append(f"| {metric} | {variant} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
