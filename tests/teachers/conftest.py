"""What tests of files that hold code share."""

import os

import pytest


class Code:
    """Pickled, it makes a folder when it is read."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture
def code():
    """An object that runs code where it is unpickled: `code(path)` makes that folder."""
    return Code
