"""The notebook runs from its first cell to its last."""

import json
import os
import subprocess
import sys
from pathlib import Path

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "first_steps.ipynb"


def test_the_notebook_runs(tmp_path):
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    code = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    assert code.count("steps = 200\n") == 1
    script = tmp_path / "first_steps.py"
    script.write_text(code.replace("steps = 200\n", "steps = 2\n") + "\nprint('the end')\n")
    environment = {**os.environ, "PYTHONPATH": str(NOTEBOOK.parents[1])}
    run = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=600, env=environment)
    assert run.returncode == 0, run.stderr
    assert run.stdout.rstrip().endswith("the end")
    assert all(f"{name}: " in run.stdout for name in ("restormer_derain_student", "restormer_derain", "net_g_latest.pth"))
