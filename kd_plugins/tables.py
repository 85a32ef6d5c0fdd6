"""What images and scores are called, in the log, in TensorBoard and in the report; and tables as text."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

ROLES = ("input", "student", "teacher")
"""Whose images are scored, in the order in which they are shown."""
SHOWN = (*ROLES, "clean")
GAP = "gap"
"""The student's score less its teacher's."""
UNTAUGHT = "restored"
"""What the student is called where there is no teacher."""
Scores = Mapping[str, Mapping[str, float]]  # role, metric


def role_word(role: str, has_teacher: bool) -> str:
    """What a reader is told of a role."""
    return UNTAUGHT if role == "student" and not has_teacher else role


def score_tag(dataset: str, metric: str, role: str = "student") -> str:
    """The tag of a score in TensorBoard: BasicSR's own for what is trained, with the role behind it for the others."""
    return f"metrics/{dataset}/{metric}" + ("" if role == "student" else f"_{role}")


def render_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], markdown: bool = False) -> str:
    """A table as text, the first column left, the others right; in Markdown, if asked for."""
    from rich import box  # here: the help of a command needs no table
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.MARKDOWN if markdown else box.SIMPLE_HEAD)
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console = Console(file=io.StringIO(), width=200)
    console.print(table)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    return "\n".join(("", title, *[""] * markdown, *(line.rstrip() for line in lines if line.strip())))


def score_table(title: str, scores: Scores, has_teacher: bool, best: Mapping[str, Mapping[str, Any]] | None = None) -> str:
    """Metrics of input, student and teacher, the student's gap to the teacher, and the best value so far."""
    roles = [role for role in ROLES if role in scores]
    words = [role_word(role, has_teacher) for role in roles]
    columns = ["metric", *words, *([GAP] if "teacher" in roles else []), *(["best @ iteration"] if best else [])]
    rows = []
    for metric, value in scores["student"].items():
        row = [metric, *(f"{scores[role][metric]:.4f}" for role in roles)]
        if "teacher" in roles:
            row.append(f"{value - scores['teacher'][metric]:+.4f}")
        if best:
            row.append(f"{best[metric]['val']:.4f} @ {best[metric]['iter']}")
        rows.append(row)
    return render_table(title, columns, rows)
