"""The history model: its schedule and its update, by hand."""

import pytest
import torch
from torch import nn

from kd_plugins.models.history import History, HistorySchedule


def net(value):
    module = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    for parameter in module.parameters():
        nn.init.constant_(parameter, value)
    nn.init.constant_(module[1].running_mean, value)
    return module


# ------------------------------------------------------------------------------------------------ when


@pytest.mark.parametrize(
    ("iteration", "interval"),
    [
        (1, 1000),
        (100_000, 1000),
        (100_001, 2000),
        (200_000, 2000),
        (200_001, 3000),
        (300_000, 3000),
        (300_001, 3000),
        (9 * 10**6, 3000),
    ],
)
def test_the_published_schedule_and_its_last_value_beyond(iteration, interval):
    assert HistorySchedule().interval(iteration) == interval


def test_the_iterations_of_the_updates_of_a_published_run():
    schedule = HistorySchedule()
    due = [i for i in range(1, 310_001) if schedule.due(i)]
    expected = [*range(1000, 100_001, 1000), *range(102_000, 200_001, 2000), *range(201_000, 310_001, 3000)]
    assert due == expected


def test_a_schedule_of_ones_own():
    assert [i for i in range(1, 15) if HistorySchedule([2, 3], 6).due(i)] == [2, 4, 6, 9, 12]
    assert [i for i in range(1, 15) if HistorySchedule(5, 3).due(i)] == [5, 10]


@pytest.mark.parametrize(("every", "block"), [([], 5), (0, 5), ([2, 0], 5), ([2.5], 5), (None, 5), (2, 0), (2, True), ("ab", 5)])
def test_what_is_no_schedule_is_refused(every, block):
    with pytest.raises(ValueError, match="HistorySchedule: (every|block): .*whole number of at least 1"):
        HistorySchedule(every, block)


# ------------------------------------------------------------------------------------------------ what


def test_it_starts_as_the_student_and_moves_by_nine_tenths():
    student = net(1.0)
    history = History(net(5.0), student, every=2)
    assert all((p == 1).all() for p in history.net.parameters())
    for parameter in student.parameters():
        nn.init.constant_(parameter, 3.0)
    assert not history.follow(student, 1)
    assert all((p == 1).all() for p in history.net.parameters())
    assert history.follow(student, 2)
    assert all(torch.allclose(p, torch.full_like(p, 0.1 * 1 + 0.9 * 3)) for p in history.net.parameters())
    assert history.follow(student, 4)
    assert all(torch.allclose(p, torch.full_like(p, 0.1 * 2.8 + 0.9 * 3)) for p in history.net.parameters())


def test_its_decay_is_an_option():
    student = net(0.0)
    history = History(net(0.0), student, decay=0.75, every=1)
    nn.init.constant_(student[0].bias, 4.0)
    history.follow(student, 1)
    assert (history.net[0].bias == 1).all()


def test_a_batch_norms_statistics_move_as_the_weights_do():
    student = net(1.0)
    history = History(net(0.0), student, every=1)
    student[1].running_mean.fill_(7.0)
    student[1].num_batches_tracked.fill_(5)
    history.follow(student, 1)
    assert torch.allclose(history.net[1].running_mean, torch.full((3,), 0.1 * 1 + 0.9 * 7))
    assert history.net[1].num_batches_tracked == 5


def test_it_is_no_part_of_the_student_and_never_trains():
    student = net(1.0)
    history = History(net(0.0), student)
    image = history(torch.rand(2, 3, 4, 4, requires_grad=True))
    assert not image.requires_grad and not history.net.training
    assert not any(p.requires_grad for p in history.net.parameters()) and all(p.requires_grad for p in student.parameters())
    nn.init.constant_(student[0].bias, 9.0)
    assert (history.net[0].bias == 1).all()


@pytest.mark.parametrize("decay", [-0.1, 1.0, "much", True, None])
def test_a_decay_out_of_range_is_refused(decay):
    with pytest.raises(ValueError, match=r"History: decay: .*of at least 0 and below 1"):
        History(net(0.0), net(1.0), decay=decay)
