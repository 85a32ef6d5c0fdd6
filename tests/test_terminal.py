"""Bars and moving lines: on a terminal, of the first process."""

import io
import sys

import pytest

from kd_plugins import distributed
from kd_plugins.terminal import bar, status


class Screen(io.StringIO):
    def __init__(self, is_terminal):
        super().__init__()
        self.isatty = lambda: is_terminal


@pytest.mark.parametrize("is_terminal, rank, shown", [(True, 0, True), (False, 0, False), (True, 1, False)])
def test_they_show_on_a_terminal_of_the_first_process_alone(monkeypatch, is_terminal, rank, shown):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(distributed, "rank", lambda: rank)

    def look():
        with status("Looking"):
            pass

    for show, word in ((lambda: list(bar(range(3), desc="images")), "images"), (look, "Looking")):
        screen = Screen(is_terminal)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", screen)
            show()
        assert (word in screen.getvalue()) == shown


def test_a_bar_can_be_left_out(monkeypatch):
    screen = Screen(True)
    monkeypatch.setattr(sys, "stderr", screen)
    assert list(bar(range(3), shown=False)) == [0, 1, 2] and not screen.getvalue()
