"""Train several option files under equal conditions, and write one table and one plot.

python tools/compare.py options/slkd_derain.yml options/baselines/*_derain.yml --out FOLDER [--seeds 0 1 2] [--iterations 500]
    [--force_yml KEY=VALUE ...] [--share 1/2]

Every file is trained with every seed. The files must have the same data, metrics and number of steps; --iterations and
--force_yml can make them equal. FOLDER then holds runs.csv (each score of each run), table.csv and table.md (mean and
standard deviation over seeds), plot.svg (needs matplotlib), and the runs themselves in experiments/. The same command again
goes on where it was stopped, in the middle of a run too; more files and seeds may be named then. Shares may run side by side.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from runs import Results, markdown, my_share, scored, spread, train

from kd_plugins.checks import check_file
from kd_plugins.errors import RunStopped
from kd_plugins.options import OptionError, read_option_file
from kd_plugins.training.length import at_length
from kd_plugins.yaml_loader import one_line

COLUMNS = ("file", "seed", "role", "metric", "value")
EQUAL = (("datasets",), ("val", "metrics"), ("scale",), ("train", "total_iter"))
Values = dict[str, dict[str, list[float]]]  # by line of the table and metric


class Prepared(NamedTuple):
    """An option file as it is trained: the `--force_yml` entries, and the options with them."""

    entries: list[str]
    opt: dict[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Check all files, run what is missing, write table and plot; returns the exit code, as `basicsr train` has it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", help="option files; a line of the table each, called as the file")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--iterations", type=int, help="steps of every run; the schedule and fades are scaled alike")
    parser.add_argument("--force_yml", nargs="+", default=[], metavar="KEY:SUBKEY=VALUE", help="for every run")
    parser.add_argument("--share", default="1/1", help="k/n: every n-th run, from the k-th on")
    args = parser.parse_args(argv)
    try:
        prepared = prepare(args.files, args.iterations, args.force_yml)
        keep_conditions(args.out, prepared)
        results = Results(args.out / "runs.csv", COLUMNS)
        for seed, file in my_share([(seed, file) for seed in args.seeds for file in args.files], args.share):
            name = Path(file).stem
            if results.has(file=name, seed=seed):
                continue
            entries = [*prepared[file].entries, f"manual_seed={seed}"]
            scores, _ = train(file, entries, args.out, f"{name}_{seed}", resume=True)
            found = (
                (role, metric, value) for role in ("student", "teacher", "input") for metric, value in scored(scores, role).items()
            )
            results.add(
                {**dict(zip(COLUMNS, (name, seed, *score[:2]), strict=False)), "value": f"{score[2]:.6g}"} for score in found
            )
            report(results, args.out)
    except OptionError as error:
        print(f"compare: {error}", file=sys.stderr)
        return 2
    except RunStopped as stop:
        print(f"compare: {stop}; the same command goes on", file=sys.stderr)
        return stop.exit_code
    print(report(results, args.out))
    plot(values_of(results), args.out / "plot.svg")
    return 0


# ------------------------------------------------------------------------------------------------ equal conditions


def prepare(files: Sequence[str], iterations: int | None, force_yml: Sequence[str]) -> dict[str, Prepared]:
    """Check the files with what is forced on them; returns them as they are trained.

    Raises:
        OptionError: a file is wrong in itself, or two are called alike.
    """
    stems = [Path(file).stem for file in files]
    if twice := next((stem for stem in stems if stems.count(stem) > 1), None):
        raise OptionError(f"two files are called {twice!r}, expected a name of its own for each line of the table")
    prepared = {}
    for file in files:
        found = read_option_file(file, force_yml)
        check_file(found, argparse.Namespace(auto_resume=False, debug=False), is_train=True)
        if not value_at(found.opt, ("val", "metrics")) or not any(phase.startswith("val") for phase in found.opt["datasets"]):
            raise OptionError(f"{file}: no val:metrics or no datasets:val, expected both: there is nothing to compare")
        entries = [*(steps(found.opt, iterations) if iterations else ()), *force_yml]
        prepared[file] = Prepared(entries, read_option_file(file, entries).opt)
    return prepared


def steps(opt: Mapping[str, Any], iterations: int) -> list[str]:
    """The entries that give a file another number of steps, and a course of the same shape."""
    return [f"{':'.join(keys)}={one_line(value)}" for keys, value in at_length(opt, iterations).items()]


def value_at(opt: Any, keys: Sequence[str]) -> Any:
    """What stands after keys, one below the other."""
    for key in keys:
        opt = (opt or {}).get(key)
    return opt


def difference(here: Any, there: Any, path: tuple[str, ...] = ()) -> tuple[tuple[str, ...], Any, Any] | None:
    """The first place where two blocks differ: the keys that lead there, and both values."""
    if isinstance(here, Mapping) and isinstance(there, Mapping):
        pairs = (difference(here.get(key), there.get(key), (*path, str(key))) for key in {**here, **there})
        return next((found for found in pairs if found), None)
    return None if here == there else (path, here, there)


def keep_conditions(out: Path, prepared: Mapping[str, Prepared]) -> None:
    """Hold all files to what the first one ever trained here has, and each to what it was trained with: old runs stay in the table.

    Raises:
        OptionError: they differ in data, metrics or steps; or the folder has runs of a file under other conditions.
    """
    out.mkdir(parents=True, exist_ok=True)
    note = out / "conditions.json"
    known = json.loads(note.read_text()) if note.exists() else {"first": next(iter(prepared)), "equal": None, "files": {}}
    for file, (entries, opt) in prepared.items():
        equal = json.loads(json.dumps({":".join(keys): value_at(opt, keys) for keys in EQUAL}, default=str))
        known["equal"] = known["equal"] or equal
        if found := difference(known["equal"], equal):
            (*path, last), here, there = found
            key = ":".join((*path, last))
            raise OptionError(f"{file}: {key}: {there!r}, expected {here!r} as {known['first']} has; --force_yml makes them equal")
        mine = {"sha256": hashlib.sha256(Path(file).read_bytes()).hexdigest(), "force_yml": entries}
        other = known["files"].setdefault(Path(file).stem, mine)
        if found := difference(other, mine):
            raise OptionError(f"{out} has runs of {file} with {found[0][0]} {found[1]}, now {found[2]}; expected a new --out")
    note.write_text(json.dumps(known, indent=1))


# ------------------------------------------------------------------------------------------------ table and plot


def values_of(results: Results) -> Values:
    """Scores by line and metric: the files, and input and teacher where all runs have the same."""
    lines: Values = {}
    for row in results.rows:
        line = row["file"] if row["role"] == "student" else f"({row['role']})"
        lines.setdefault(line, {}).setdefault(row["metric"], []).append(float(row["value"]))
    for line in [line for line in lines if line.startswith("(")]:
        seen = lines.pop(line)
        if all(len(set(values)) == 1 for values in seen.values()):
            lines[line] = {metric: values[:1] for metric, values in seen.items()}
    return lines


def report(results: Results, out: Path) -> str:
    """Write table.csv and table.md; returns the latter."""
    lines = values_of(results)
    metrics = list(dict.fromkeys(metric for values in lines.values() for metric in values))
    with (out / "table.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file", "metric", "mean", "standard deviation", "seeds"])
        for line, found in lines.items():
            for metric, values in found.items():
                deviation = f"{statistics.stdev(values):.6g}" if len(values) > 1 else ""
                writer.writerow([line, metric, f"{statistics.mean(values):.6g}", deviation, len(values)])
    text = markdown(["file", *metrics], [[line, *(spread(found.get(m, [])) for m in metrics)] for line, found in lines.items()])
    (out / "table.md").write_text(text + "\n", encoding="utf-8")
    return text


def plot(lines: Values, file: Path) -> None:
    """A panel for each metric: every run a dot, mean and standard deviation beside it, input and teacher as lines."""
    try:
        import matplotlib
    except ImportError:
        print("No plot: matplotlib is not installed; the same command draws it once it is.", file=sys.stderr)
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    plt.rcParams.update({"svg.hashsalt": "compare", "svg.fonttype": "none", "font.size": 8})
    names = [line for line in lines if not line.startswith("(")]
    metrics = list(dict.fromkeys(metric for line in names for metric in lines[line]))
    size = (1.5 + 3 * len(metrics), 1 + 0.3 * len(names))
    figure, axes = plt.subplots(1, len(metrics), figsize=size, sharey=True, squeeze=False, layout="constrained")
    for axis, metric in zip(axes[0], metrics, strict=True):
        for height, name in enumerate(names):
            values = lines[name].get(metric, [])
            axis.plot(values, [height] * len(values), ".", color="0.6")
            if values:
                deviation = statistics.stdev(values) if len(values) > 1 else 0.0
                axis.errorbar(statistics.mean(values), height, xerr=deviation, fmt="o", ms=4, capsize=3, color="C0")
        for line, style in (("(teacher)", "--"), ("(input)", ":")):
            for value in lines.get(line, {}).get(metric, []):
                axis.axvline(value, ls=style, lw=1, color="0.4", label=line.strip("()"))
        axis.set_title(metric)
    axes[0][0].set_yticks(range(len(names)), names)
    axes[0][0].invert_yaxis()
    if axes[0][-1].get_legend_handles_labels()[0]:
        axes[0][-1].legend(frameon=False)
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
