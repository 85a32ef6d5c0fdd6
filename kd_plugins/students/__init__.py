"""Students: what they start from."""

from kd_plugins.students.importance import first_order
from kd_plugins.students.inherit import Channels, inherit

__all__ = ["Channels", "first_order", "inherit"]
