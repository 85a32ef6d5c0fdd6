"""Imports the plugin before any test imports basicsr, which fails on today's torchvision without it."""

import kd_plugins  # noqa: F401
