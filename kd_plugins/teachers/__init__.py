"""Teachers: frozen networks, built from an option block, one forward for all their views."""

from kd_plugins.teachers.network import WRONG_ARGUMENTS, build_registered, build_source, main_block, padded_block, student_block
from kd_plugins.teachers.network_keys import SOURCE_REGISTRY
from kd_plugins.teachers.task_teachers import TaskTeachers, build_teacher
from kd_plugins.teachers.teacher import Observation, Teacher, observe
from kd_plugins.teachers.views import ViewTransform, zoom_in, zoom_out

__all__ = [
    "SOURCE_REGISTRY",
    "WRONG_ARGUMENTS",
    "Observation",
    "TaskTeachers",
    "Teacher",
    "ViewTransform",
    "build_registered",
    "build_source",
    "build_teacher",
    "main_block",
    "observe",
    "padded_block",
    "student_block",
    "zoom_in",
    "zoom_out",
]
