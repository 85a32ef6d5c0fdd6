"""Weights in files: whether two sets of them are the same, and code that hides among them."""

import os

import torch


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in right)


class Code:
    """Pickled, it makes a folder when it is read."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)
