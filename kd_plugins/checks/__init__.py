"""An option file is checked as a whole before anything is built: keys, types, names, arguments, files, contradictions."""

from kd_plugins.checks.check import check_file
from kd_plugins.checks.schema import json_schema

__all__ = ["check_file", "json_schema"]
