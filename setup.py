"""The package's metadata is in pyproject.toml; README.md (Installation) says in which order its requirements go in."""

from setuptools import setup

setup()
