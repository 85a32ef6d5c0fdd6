"""Students: what they start from."""

from kd_plugins.students.inherit import FAMILIES, inherit

__all__ = ["FAMILIES", "inherit"]
