"""Imports the plugin before any test imports basicsr, which fails on today's torchvision without it."""

import logging

import pytest

import kd_plugins  # noqa: F401


@pytest.fixture(autouse=True)
def fresh_log():
    """basicsr opens its logger once for a process; each test gets its own, on its own streams."""
    yield
    from basicsr.utils.logger import initialized_logger

    logger = logging.getLogger("basicsr")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    initialized_logger.clear()
