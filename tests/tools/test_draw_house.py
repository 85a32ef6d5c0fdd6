"""The pictures of the house and of a step are what their script draws today."""

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOOL = runpy.run_path(str(ROOT / "tools" / "draw_house.py"))


def test_the_committed_pictures_are_what_the_table_says():
    table = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for name, text in (("house", TOOL["house"](table)), ("step", TOOL["step"]())):
        assert (ROOT / "docs" / "images" / f"{name}.svg").read_text(encoding="utf-8") == text, "python tools/draw_house.py"
    assert ">losses<" in TOOL["house"](table)
