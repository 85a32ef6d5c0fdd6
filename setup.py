"""The package's metadata is in pyproject.toml; docs/install.md says in which order its requirements go in."""

from setuptools import find_packages, setup

# options/ stands at the top, where people look for it, and goes into the wheel as a package of its own.
OPTION_FILES = {"kd_plugins.option_files": "options"}
OPTION_FILES |= {f"kd_plugins.option_files.{folder}": f"options/{folder}" for folder in ("baselines", "paper", "tasks")}

setup(packages=[*find_packages(include=["kd_plugins*"]), *OPTION_FILES], package_dir=OPTION_FILES)
