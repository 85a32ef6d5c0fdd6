"""Train every variant of an ablation file from every start with every seed, and write one table.

python tools/ablation.py options/ablation_slkd_derain.yml --out FOLDER [--share 1/2] [--force_yml KEY=VALUE ...]

Each finished run is a line of FOLDER/runs.csv, and is not run again: stop and start as you like, or run
several shares side by side. For whole option files side by side: tools/compare.py.
"""

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path

from runs import Results, markdown, my_share, scored, spread, train

from kd_plugins.options import read_option_file

AXES = ("seeds", "starts", "variants")
COLUMNS = ("start", "variant", "seed", "metric", "value", "seconds")


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="base, force_yml, starts, seeds, variants")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--base", help="the option file of the runs, in place of the file's own: another task")
    parser.add_argument("--share", default="1/1", help="k/n: every n-th run, from the k-th on")
    parser.add_argument("--force_yml", nargs="+", default=[], help="for every run, after the file's own")
    for axis in AXES:
        parser.add_argument(f"--{axis}", nargs="+", help=f"only these {axis}")
    args = parser.parse_args(argv)

    plan = read_option_file(str(args.file)).opt
    args.out.mkdir(parents=True, exist_ok=True)
    results = Results(args.out / "runs.csv", COLUMNS)
    chosen = ([item for item in plan[axis] if str(item) in (getattr(args, axis) or map(str, plan[axis]))] for axis in AXES)
    for seed, start, variant in my_share(list(itertools.product(*chosen)), args.share):
        run = {"start": start, "variant": variant, "seed": seed}
        if results.has(**run):
            continue
        entries = [*plan["force_yml"], *args.force_yml, *plan["variants"][variant], f"init={start}", f"manual_seed={seed}"]
        scores, seconds = train(args.base or plan["base"], entries, args.out, f"run_{args.share.partition('/')[0]}")
        values = scored(scores).items()
        results.add([{**run, "metric": name, "value": f"{value:.4f}", "seconds": f"{seconds:.0f}"} for name, value in values])
        print(table(results), flush=True)
    print(table(results))


def table(results: Results) -> str:
    """Mean and standard deviation over seeds, as Markdown."""
    groups: dict[tuple[str, str, str], list[float]] = {}
    for row in results.rows:
        groups.setdefault((row["metric"], row["variant"], row["start"]), []).append(float(row["value"]))
    starts = list(dict.fromkeys(start for *_, start in groups))
    lines = dict.fromkeys((metric, variant) for metric, variant, _ in groups)
    rows = [[*line, *(spread(groups.get((*line, start), [])) for start in starts)] for line in lines]
    return markdown(["metric", "variant", *(f"start: {start}" for start in starts)], rows)


if __name__ == "__main__":
    main()
