"""A target in milliseconds: what is chosen is what was measured, in turns with the teacher."""

import pytest
import torch

from kd_plugins.students.family import Family
from kd_plugins.students.from_teacher import candidates, read_request, student_of
from kd_plugins.students.stopwatch import Stopwatch
from kd_plugins.teachers import build_source


def found(teacher, request):
    family = Family(teacher)
    watch = Stopwatch(family, **read_request(request).timing)
    return list(candidates(family, read_request(request), watch)), watch


@pytest.mark.parametrize(
    ("request_", "side"), [({"ms": 12.5, "size": 16}, 16), ({"latency": 0.4, "size": 16}, 16), ({"ms": 25, "size": [16, 32]}, 32)]
)
def test_the_student_uses_the_time_and_no_more(slow, clock, request_, side):
    block, chosen, said = student_of(slow, request_)
    net = build_source(block, "network_g")
    before = clock.now
    net(torch.zeros(1, 3, 16, side))
    taken = (clock.now - before) * 1e3
    assert taken == pytest.approx(12 * side / 16)
    assert said.startswith(f"0.375 of its latency: {taken:.1f} ms ({taken:.1f} - {taken:.1f}) of ")
    assert block["width"] == 24 and block["depth"] == 4  # not 23, which take as long, and not 25, which take longer
    assert said.endswith(f"asked for: {read_request(request_)}")


def test_flops_say_little_of_the_time(slow):
    (cheap, *_), watch = found(slow, {"flops": 0.2})
    assert watch.latency(cheap).median / watch.teacher.median > 0.3


def test_candidates_are_compared_in_turns_with_the_teacher(slow, monkeypatch):
    turns, take_turns = [], Stopwatch.take_turns

    def noted(self, candidates):
        turns.append(list(candidates))
        take_turns(self, candidates)

    monkeypatch.setattr(Stopwatch, "take_turns", noted)
    students, watch = found(slow, {"ms": 12.5, "size": 16})
    assert len(turns) == 1 and set(map(str, turns[0])) == set(map(str, students)) and len(students) > 3
    times = [watch.latency(each).median * 1e3 for each in students]
    fast = [each for each, ms in zip(students, times, strict=True) if ms <= 12.5]
    assert students[: len(fast)] == fast  # those that are a little too slow come last
    assert fast[0].params == max(each.params for each in fast)


def test_few_networks_are_timed(slow):
    lines = []
    student_of({**slow, "width": 64, "depth": 24}, {"latency": 0.3, "size": 16}, lines.append)
    assert lines[0].startswith("the teacher: 192.0 ms") and 5 < len(lines) <= 30


def test_a_machine_that_changes_its_pace_is_looked_at_again(slow, clock, monkeypatch):
    """It slows down after the search: the teacher is known to be faster than it is by now."""
    first = Stopwatch.take_turns

    def later(self, each):
        clock.speed = 0.7
        first(self, each)

    monkeypatch.setattr(Stopwatch, "take_turns", later)
    students, watch = found(slow, {"ms": 12.5, "size": 16})
    assert 9 <= watch.latency(students[0]).median * 1e3 <= 12.5 and watch.teacher.median == pytest.approx(0.032 / 0.7)


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (
            {"ms": 0.2, "size": 16},
            r"^from_teacher:ms: 0.2, no student is as fast; nearest: {'width': 1, 'depth': 1} takes 1.0 ms .* at 16x16 on the CPU",
        ),
        ({"ms": 40, "size": 16}, r"^from_teacher:ms: 40, expected less than the teacher itself takes: 32.0 ms .* at 16x16"),
    ],
)
def test_a_time_that_no_student_has_is_one_error(slow, request_, said):
    with pytest.raises(ValueError, match=said):
        student_of(slow, request_)


def test_a_size_that_the_teacher_does_not_take_is_said():
    teacher = {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 16, "num_block": 2, "upscale": 2}
    with pytest.raises(ValueError, match=r"from_teacher:size: DRUNet does not take an image of shape"):
        student_of({"type": "DRUNet", "in_nc": 3, "out_nc": 3, "nc": [8] * 4, "nb": 1, "pad_to": 1}, {"ms": 5, "size": 3})
    assert Stopwatch(Family(teacher)).where.startswith("128x128 on the CPU")  # restored, 256x256
