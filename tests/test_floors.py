"""The floors of CONTRIBUTING.md: no module imports from its own floor or a higher one, outside of its own room."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "kd_plugins"
FLOORS = {
    room: int(floor)
    for floor, room in re.findall(r"^\| (\d+) \| `(\w+)` \|", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.M)
}
ROOMS = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()} - {"__init__"}


def rooms_imported(file: Path) -> Iterator[tuple[int, str]]:
    """Line and room of each import from the package, those inside functions and for type checkers, too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(node, (ast.Import, ast.ImportFrom)):
            continue
        names = [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: a relative import"
            names = [f"{node.module}.{name}" for name in names]
        for package, *below in (name.split(".") for name in names):
            if package == PACKAGE.name and below and below[0] in ROOMS:  # the package itself has the version alone
                yield node.lineno, below[0]


def test_each_room_stands_on_one_floor():
    assert set(FLOORS) == ROOMS


def test_no_import_goes_up_or_across_a_floor():
    wrong = []
    for file in PACKAGE.rglob("*.py"):
        room = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        wrong += [
            f"{file.relative_to(ROOT)}:{line}: {room} (floor {FLOORS[room]}) imports {other} (floor {FLOORS[other]})"
            for line, other in (rooms_imported(file) if room != "__init__" else ())  # it registers everything
            if other != room and FLOORS[other] >= FLOORS[room]
        ]
    assert not wrong, "\n".join(wrong)


def test_each_room_stands_as_low_as_its_imports_allow():
    lowest = dict.fromkeys(ROOMS, 0)
    for room in sorted(ROOMS, key=FLOORS.__getitem__):
        files = [PACKAGE / f"{room}.py"] if (PACKAGE / f"{room}.py").exists() else (PACKAGE / room).rglob("*.py")
        below = {other for file in files for _, other in rooms_imported(file)} - {room}
        lowest[room] = 1 + max((lowest[other] for other in below), default=-1)
    assert lowest == FLOORS
