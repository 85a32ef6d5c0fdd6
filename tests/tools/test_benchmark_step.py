"""tools/benchmark_step.py times variants in processes of their own, and prints one table."""

import subprocess
import sys
from pathlib import Path

import yaml

TOOL = Path(__file__).parents[2] / "tools" / "benchmark_step.py"


def test_variants_take_turns_and_stand_over_their_own_floor(options, tmp_path):
    file = tmp_path / "small.yml"
    options["datasets"]["train"]["gt_size"] = 16
    options["init"] = "random"
    file.write_text(yaml.safe_dump(options))
    command = [sys.executable, TOOL, "-opt", file, "--variants", "", "amp=bf16", "--rounds", "1", "--threads", "1", "--terms"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=TOOL.parents[1]).stdout
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in said.splitlines() if line.startswith("| ")]
    (_, *header), *rows, (_, *last), one, two = rows
    assert last == [header[0].replace("part", "threads"), *header[1:]] and [one, two] == [
        [row[0], "1", *row[2:]] for row in rows if row[1] == "whole step"
    ]
    assert header == ["part", "ms", "over the floor", "CPU ms", "over the floor", "images/s", "peak MB"]
    parts = ["floor", "teacher forward", "student step", "whole step", "without kl", "without nc", "without et"]
    assert [row[:2] for row in rows] == [[f"small, {name}", part] for name in ("as it is", "amp=bf16") for part in parts]
    floor, teacher, student, whole, *_ = ([float(cell or "nan") for cell in row[2:]] for row in rows)
    assert floor[1] == 1 and abs(floor[0] - teacher[0] - student[0]) < 0.11
    assert abs(whole[4] - 2 / whole[0] * 1e3) < 0.02 * whole[4] and whole[5] > 100


def test_what_is_not_ready_in_time_is_said(options, tmp_path):
    file = tmp_path / "small.yml"
    file.write_text(yaml.safe_dump(options))
    command = [sys.executable, TOOL, "-opt", file, "--threads", "1", "--seconds", "0.5"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=TOOL.parents[1]).stdout
    assert "small, as it is: not ready in time" in said
