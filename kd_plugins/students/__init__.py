"""Students: what they start from."""

from kd_plugins.students.importance import first_order
from kd_plugins.students.inherit import CHANNELS, inherit

__all__ = ["CHANNELS", "first_order", "inherit"]
