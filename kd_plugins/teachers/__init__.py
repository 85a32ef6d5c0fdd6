"""Teachers: frozen networks, built from an option block, one forward for all their views."""

from kd_plugins.teachers.network import build_registered, build_source, student_block
from kd_plugins.teachers.teacher import Observation, Teacher, build_teacher, observe
from kd_plugins.teachers.transforms import ViewTransform, zoom_in

__all__ = [
    "Observation",
    "Teacher",
    "ViewTransform",
    "build_registered",
    "build_source",
    "build_teacher",
    "observe",
    "student_block",
    "zoom_in",
]
