"""An option file is checked as a whole before anything is built: keys, types, names, arguments, files, contradictions.

Each check adds to `findings` what is wrong with the options `opt`, for training (`is_train`) or a test, of a class `model`, which
is None where it is not registered.
"""

from kd_plugins.checks.check import check_file
from kd_plugins.checks.schema import json_schema

__all__ = ["check_file", "json_schema"]
