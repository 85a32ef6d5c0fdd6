"""The table and the plot of a study: PSNR over steps, row by row.

python tools/plot_study.py FOLDER/scores.csv [MORE.csv] --teachers derain=36.65 denoise=32.04 [--rows ROW ...] [--svg FILE]
python tools/plot_study.py FOLDER/scores.csv --leads [--rows ROW ...]                # one table, a column for each task

A task is taken from the first file that has it.

The band around a line is the 95 % interval of its mean, from the spread that seeds have over all rows of the task with several.
"""

from __future__ import annotations

import argparse
import csv
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from runs import markdown

Scores = dict[str, dict[int, dict[str, float]]]  # of a task: row, iteration, seed
TITLES = {
    "derain": "deraining (Rain100L 1-20, Y)",
    "denoise": "denoising, sigma 25 (Kodak 1-12, RGB)",
    "deblur": "deblurring (Kodak 1-12, RGB)",
    "x4": "super-resolution x4 (Set5, Y)",
    "x4_bsrn": "x4 under BSRN (Set5, Y)",
}


def read(file: Path) -> dict[str, Scores]:
    """The scores of all tasks."""
    found: dict[str, Scores] = {}
    with file.open(newline="") as stream:
        for line in csv.DictReader(stream):
            rows = found.setdefault(line["task"], {}).setdefault(line["row"], {})
            rows.setdefault(int(line["iteration"]), {})[line["seed"]] = float(line["psnr"])
    return {task: {row: dict(sorted(scores.items())) for row, scores in rows.items()} for task, rows in found.items()}


def seed_deviation(rows: Scores, iteration: int) -> float:
    """The standard deviation between seeds, pooled over the rows with several; random starts, which spread more, are left out."""
    inherited = [scores.get(iteration, {}) for row, scores in rows.items() if "random start" not in row]
    spreads = [[*values.values()] for values in inherited if len(values) > 1]
    freedom = sum(len(values) - 1 for values in spreads)
    return math.sqrt(sum(statistics.variance(v) * (len(v) - 1) for v in spreads) / freedom) if freedom else math.nan


def lead(rows: Scores, row: str, baseline: str, stop: int) -> str:
    """The mean lead over the baseline's same seeds, or nothing where there is none."""
    values, base = rows[row].get(stop, {}), rows.get(baseline, {}).get(stop, {})
    leads = [values[seed] - base[seed] for seed in values.keys() & base] if row != baseline and stop else []
    return f"{statistics.mean(leads):+.2f}".replace("-0.00", "+0.00") if leads else ""


def mean(scores: Mapping[int, Mapping[str, float]], stop: int) -> str:
    """The mean over the seeds."""
    return f"{statistics.mean(scores[stop].values()):.2f}" if stop in scores else ""


def deviations(rows: Scores, stops: Sequence[int]) -> list[str]:
    """Between seeds."""
    return [f"{value:.2f}" if not math.isnan(value := seed_deviation(rows, stop)) else "" for stop in stops]


def table(rows: Scores, baseline: str) -> str:
    """Mean, and the lead over the baseline's same seeds, at each number of steps."""
    stops = sorted({stop for scores in rows.values() for stop in scores})
    lines = []
    for row, scores in rows.items():
        cells = [
            f"{mean(scores, stop)} ({ahead})" if (ahead := lead(rows, row, baseline, stop)) else mean(scores, stop)
            for stop in stops
        ]
        lines.append([row, str(max(len(values) for values in scores.values())), *cells])
    last = ["deviation between seeds", "", *deviations(rows, stops)]
    return markdown(["row", "seeds", *(f"{stop:,}" for stop in stops)], [*lines, last])


def leads(tasks: Mapping[str, Scores], baseline: str) -> str:
    """A column for each task: leads at each number of steps (a star: of one seed), and the baseline's own scores."""
    names = list(dict.fromkeys([baseline, *(row for rows in tasks.values() for row in rows)]))
    lines = {name: [name] for name in [*names, "deviation between seeds"]}
    for rows in tasks.values():
        stops = sorted({stop for scores in rows.values() for stop in scores if stop})
        for name in names:
            scores = rows.get(name, {})
            parts = [mean(scores, stop) if name == baseline else lead(rows, name, baseline, stop) for stop in stops if scores]
            lines[name].append(" / ".join(parts) + "*" * (len(scores.get(stops[-1], ())) == 1))
        spread = deviations(rows, stops)
        lines["deviation between seeds"].append(" / ".join(spread) if any(spread) else "")
    return markdown(["row", *(TITLES.get(task, task).partition(" (")[0] for task in tasks)], list(lines.values()))


def plot(tasks: Mapping[str, Scores], teachers: Mapping[str, float], file: Path) -> None:
    """A panel for each task."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    plt.rcParams.update({"svg.hashsalt": "study", "svg.fonttype": "none", "font.size": 9})
    wide = min(len(tasks), 3)
    high = math.ceil(len(tasks) / wide)
    figure, axes = plt.subplots(high, wide, figsize=(5 * wide, 4 * high), squeeze=False, layout="constrained")
    names = list(dict.fromkeys(row for rows in tasks.values() for row in rows))
    for axis, (task, rows) in zip(axes.flat, tasks.items(), strict=False):
        for row, scores in rows.items():
            stops = [stop for stop in scores if stop]
            means = [statistics.mean(scores[stop].values()) for stop in stops]
            colour = "0.35" if row == "no teacher" else f"C{names.index(row)}"
            axis.plot(stops, means, ".-", color=colour, lw=2 if row in ("no teacher", "hint first") else 1, label=row)
            half = [1.96 * seed_deviation(rows, stop) / math.sqrt(len(scores[stop])) for stop in stops]
            if not any(map(math.isnan, half)):
                low, high = ([m + sign * h for m, h in zip(means, half, strict=True)] for sign in (-1, 1))
                axis.fill_between(stops, low, high, color=colour, alpha=0.15, lw=0)
        if task in teachers:
            axis.axhline(teachers[task], ls="--", lw=1, color="k", label="teacher")
        axis.set(title=TITLES.get(task, task), xscale="log", xlabel="steps", ylabel="PSNR in dB")
        ticks = sorted({stop for scores in rows.values() for stop in scores if stop})
        axis.set_xticks(ticks, [f"{tick:,}" for tick in ticks], minor=False)
        axis.minorticks_off()
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)
    for axis in axes.flat[len(tasks) :]:
        axis.set_axis_off()
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables, draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scores", type=Path, nargs="+")
    parser.add_argument("--teachers", nargs="*", default=[], metavar="TASK=DB")
    parser.add_argument("--rows", nargs="+")
    parser.add_argument("--tasks", nargs="+")
    parser.add_argument("--leads", action="store_true", help="one table for all tasks")
    parser.add_argument("--svg", type=Path)
    args = parser.parse_args(argv)
    tasks: dict[str, Scores] = {}
    for file in args.scores:
        tasks = {**read(file), **tasks}
    tasks = {task: tasks[task] for task in args.tasks or tasks}
    tasks = {task: {row: scores for row, scores in rows.items() if row in (args.rows or rows)} for task, rows in tasks.items()}
    if args.leads:
        print(leads(tasks, "no teacher"))
    for task, rows in tasks.items() if not args.leads else ():
        print(f"{task}\n\n{table(rows, 'no teacher')}\n")
    if args.svg:
        plot(tasks, {name: float(value) for name, _, value in (entry.partition("=") for entry in args.teachers)}, args.svg)


if __name__ == "__main__":
    main()
