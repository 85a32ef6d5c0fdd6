"""Draw the house, whose rooms and floors are the table of CONTRIBUTING.md, and how a step flows, as SVG.

python tools/draw_house.py [--out docs/images]

Both can be read on light and on dark ground.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WIDTH = 760
_ROOM, _GAP, _IN_A_ROW = 34, 6, 6
_SHADES = ("#e8eef7", "#dbe7f5", "#cfe0f3", "#c2d9f0", "#b6d2ee", "#a9cbeb", "#9dc4e9")
_STYLE = (
    "text{font:14px system-ui,sans-serif;text-anchor:middle;dominant-baseline:central;fill:#14202e}"
    ".aside{fill:#7d8794;font-size:12.5px}path{fill:none;stroke:#7d8794;stroke-width:1.6}"
)


def floors(text: str) -> dict[int, list[tuple[str, str]]]:
    """Rooms and what they have, by floor."""
    found: dict[int, list[tuple[str, str]]] = {}
    for floor, room, what in re.findall(r"^\| (\d+) \| `(\w+)` \| (.*) \|$", text, re.M):
        found.setdefault(int(floor), []).append((room, what))
    return found


def house(text: str) -> str:
    """The house, the lowest floor at the bottom; each room has a title."""
    parts, y, left = [], 44, 40
    width = WIDTH - 2 * left
    parts.append(f'<path d="M{left - 16} 40 L{WIDTH / 2} 8 L{WIDTH - left + 16} 40" stroke-linejoin="round"/>')
    for floor, rooms in sorted(floors(text).items(), reverse=True):
        for row in _rows(rooms):
            side = (width - _GAP * (len(row) - 1)) / len(row)
            for number, (room, what) in enumerate(row):
                x = left + number * (side + _GAP)
                parts.append(_box(x, y, side, room, _SHADES[min(floor // 2, len(_SHADES) - 1)], what))
            y += _ROOM + _GAP
        parts.append(f'<text class="aside" x="{left / 2}" y="{y - _GAP - _ROOM / 2}">{floor}</text>')
    parts.append(f'<text class="aside" x="{WIDTH / 2}" y="{y + 10}">a room imports from lower floors only</text>')
    return _svg(WIDTH, y + 26, parts, "The rooms of the package, floor by floor")


def _rows(rooms: Sequence[tuple[str, str]]) -> Iterator[Sequence[tuple[str, str]]]:
    count = -(-len(rooms) // _IN_A_ROW)
    size = -(-len(rooms) // count)
    for start in range(0, len(rooms), size):
        yield rooms[start : start + size]


def step() -> str:
    """How a step flows."""
    boxes = (
        (20, 110, 90, "dataset", "#e8eef7"),
        (230, 52, 120, "student", "#9dc4e9"),
        (230, 168, 130, "teacher, frozen", "#f0c48f"),
        (440, 38, 132, "scale conversion", "#dbe7f5"),
        (500, 110, 90, "terms", "#cfe9d4"),
        (668, 110, 72, "sum", "#cfe9d4"),
    )
    arrows = (
        ("M110 120 L228 74", "degraded", 150, 84),
        ("M110 134 L228 182", "degraded, clean", 134, 174),
        ("M350 64 L438 58", "features", 394, 48),
        ("M350 78 L498 120", "image", 402, 110),
        ("M530 72 L540 108", "", 0, 0),
        ("M360 182 L498 138", "image, features", 456, 176),
        ("M590 127 L666 127", "losses", 626, 115),
    )
    parts = [_box(*box) for box in boxes]
    for path, word, x, y in arrows:
        parts.append(f'<path d="{path}" marker-end="url(#to)"/>')
        parts.append(f'<text class="aside" x="{x}" y="{y}">{word}</text>')
    parts.append('<path d="M704 110 V20 H290 V50" stroke-dasharray="5 4" stroke-linejoin="round" marker-end="url(#to)"/>')
    parts.append('<text class="aside" x="640" y="34">gradient</text>')
    parts.append('<text class="aside" x="290" y="8">step, then the average (EMA)</text>')
    return _svg(WIDTH, 214, parts, "How a step flows")


def _box(x: float, y: float, width: float, text: str, fill: str, title: str = "") -> str:
    says = f"<title>{escape(title.replace('`', ''))}</title>" if title else ""
    return (
        f'<g>{says}<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{_ROOM}" rx="6" fill="{fill}"/>'
        f'<text x="{x + width / 2:.1f}" y="{y + _ROOM / 2}">{escape(text)}</text></g>'
    )


def _svg(width: float, height: float, parts: Sequence[str], label: str) -> str:
    marker = '<marker id="to" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    marker += '<path d="M0 0 L8 4 L0 8 z" style="fill:#7d8794;stroke:none"/></marker>'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">'
    return "\n".join([head, f"<style>{_STYLE}</style><defs>{marker}</defs>", *parts, "</svg>\n"])


def main() -> None:
    """Write both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    args = parser.parse_args()
    table = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for name, text in (("house", house(table)), ("step", step())):
        (args.out / f"{name}.svg").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
