"""`basicsr scale`: students of the teacher's family to choose from."""

from functools import partial

import pytest
import yaml

from kd_plugins.teachers import build_source

EDSR = {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 24, "num_block": 4, "upscale": 2, "pad_to": 2}


@pytest.fixture
def scale(said_of):
    return partial(said_of, "scale")


def test_candidates_with_their_cost_and_the_chosen_block_to_paste(scale):
    out, _, code = scale({"teacher": EDSR}, "--params", "0.3")
    assert code == 0
    title, header, _, *lines = (line for line in out.splitlines() if line.strip())
    assert "Students of EDSR" in title and header.split()[:2] == ["num_feat", "num_block"] and "latency" in header
    rows = [line.split() for line in lines if " ms (" in line]
    assert rows[0][:3] == ["teacher", "24", "4"] and rows[1][0] == "chosen" and len(rows) > 2
    for row in rows[1:]:
        share = float(next(cell for cell in row if cell.startswith("(")).strip("()"))
        assert abs(share / 0.3 - 1) <= 0.1 + 1e-3
    block = yaml.safe_load(out[out.index("network_g:") :])["network_g"]
    assert [str(block["num_feat"]), str(block["num_block"])] == rows[1][1:3] and block["pad_to"] == 2
    build_source(block, "network_g")


def test_the_option_files_own_request_is_shown(scale):
    out, _, code = scale({"teacher": EDSR, "network_g": {"from_teacher": {"width": 0.5, "depth": 0.5}}})
    assert code == 0 and "num_feat: 12" in out and "num_block: 2" in out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"techer": EDSR}, "no `teacher`; nearest key: techer"),
        ({"teacher": {"program": "a.pt"}}, "x.yml: from_teacher: the teacher is `program`"),
        ({"teacher": EDSR, "network_g": {"from_teacher": {"flop": 0.1}}}, "from_teacher:flop: no such key; nearest: flops"),
    ],
)
def test_what_cannot_be_scaled_is_said(scale, options, said):
    _, error, code = scale(options)
    assert code == 2 and said in error and "Traceback" not in error
