"""The package's metadata is in pyproject.toml; docs/install.md says in which order its requirements go in."""

from pathlib import Path

from setuptools import find_packages, setup

# options/ stands at the top, where people look for it, and each of its folders goes into the wheel as a package of its own.
FOLDERS = sorted({file.parent for file in Path("options").rglob("*.yml")})
OPTION_FILES = {".".join(("kd_plugins.option_files", *folder.parts[1:])): folder.as_posix() for folder in FOLDERS}

setup(packages=[*find_packages(include=["kd_plugins*"]), *OPTION_FILES], package_dir=OPTION_FILES)
