"""Decoded images that workers share: read once, within a bound."""

import multiprocessing

import numpy as np
import pytest

from kd_plugins.data.decoded import DecodedImages


def image(number):
    return np.full((4, 5, 3), number, np.uint8)


def never():
    raise AssertionError("it was read already")


def fill(decoded, first):
    for number in range(first, 4):
        decoded.get(number, lambda number=number: image(number))


def test_an_image_is_read_once_in_all_processes():
    decoded = DecodedImages(4)
    fill(decoded, 3)
    worker = multiprocessing.get_context("fork").Process(target=fill, args=(decoded, 1))
    worker.start()
    worker.join()
    assert all(np.array_equal(decoded.get(number, never), image(number)) for number in (1, 2, 3))
    with pytest.raises(AssertionError):
        decoded.get(0, never)


def test_at_the_bound_images_are_read_each_time_and_the_log_says_so_once(log):
    decoded = DecodedImages(4, gigabytes=130e-9, name="photos")
    for _ in range(2):
        fill(decoded, 0)
    assert all(np.array_equal(decoded.get(number, never), image(number)) for number in (0, 1))
    assert np.array_equal(decoded.get(3, lambda: image(9)), image(9))
    assert log().count("dataset 'photos': 0.00012 MB of decoded images are kept, the bound") == 1


def test_a_worker_that_waited_while_another_reached_the_bound_says_nothing(log, monkeypatch):
    decoded = DecodedImages(4, gigabytes=130e-9)
    fill(decoded, 2)
    said = log()

    class Waited:
        def acquire(self, timeout):
            decoded._table[-1] = 1
            return True

        def release(self):
            pass

    monkeypatch.setattr(decoded, "lock", Waited())
    decoded._table[-1] = 0
    assert np.array_equal(decoded.get(0, lambda: image(0)), image(0)) and log() == said


def test_several_datasets_share_the_memory_that_is_free(monkeypatch):
    monkeypatch.setattr("kd_plugins.data.decoded._LIVE", set())
    monkeypatch.setattr("kd_plugins.data.decoded.free_memory", lambda device: 9000)
    tasks = [DecodedImages(4) for _ in range(6)]
    assert [each.bound for each in tasks][:3] == [3000, 2000, 1333] and sum(each.bound for each in tasks) <= 9000


def test_a_process_that_is_not_forked_keeps_nothing():
    other = DecodedImages.__new__(DecodedImages)
    decoded = DecodedImages(4)
    other.__dict__.update(decoded.__getstate__())
    fill(other, 0)
    assert np.array_equal(other.get(0, lambda: image(7)), image(7))
