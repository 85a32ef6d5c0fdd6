"""A class comes out of a user's file, whatever that registers."""

import sys

import pytest
from basicsr.utils.registry import ARCH_REGISTRY

from kd_plugins.archs.file_arch import import_file, import_module, networks_of

TAKEN = """
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn

@ARCH_REGISTRY.register()
class EDSR(nn.Module):
    mine = True

@ARCH_REGISTRY.register()
class {free}(nn.Module):
    pass

helper = 3
"""


@pytest.fixture(autouse=True)
def same_registry(monkeypatch):
    monkeypatch.setattr(ARCH_REGISTRY, "_obj_map", dict(ARCH_REGISTRY._obj_map))


def write(path, text):
    path.write_text(text)
    return str(path)


def test_a_name_that_is_taken_neither_fails_nor_replaces_what_has_it(tmp_path):
    theirs, names = ARCH_REGISTRY.get("EDSR"), ARCH_REGISTRY._obj_map
    classes = networks_of(import_file(write(tmp_path / "edsr_arch.py", TAKEN.format(free="OfAFork"))))
    assert classes["EDSR"].mine and list(classes) == ["EDSR", "OfAFork"]
    assert ARCH_REGISTRY.get("EDSR") is theirs is not classes["EDSR"]
    assert ARCH_REGISTRY.get("OfAFork") is classes["OfAFork"]  # a free name is registered, as always
    assert ARCH_REGISTRY._obj_map is names
    with pytest.raises(AssertionError):
        ARCH_REGISTRY.register(classes["EDSR"])  # outside such an import BasicSR's rule holds


def test_a_file_is_imported_once_and_files_of_one_name_do_not_meet(tmp_path):
    for folder in "ab":
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "net.py", f"from torch import nn\nclass Net(nn.Module):\n    where = {folder!r}\n")
    first, second = (networks_of(import_file(str(tmp_path / folder / "net.py")))["Net"] for folder in "ab")
    assert (first.where, second.where) == ("a", "b")
    assert networks_of(import_file(str(tmp_path / "a" / "net.py")))["Net"] is first


def test_a_neighbour_is_imported_and_the_folder_is_no_package(tmp_path):
    write(tmp_path / "__init__.py", "raise RuntimeError('not asked for')")
    write(tmp_path / "blocks.py", TAKEN.format(free="Block"))
    file = write(tmp_path / "net.py", "from .blocks import EDSR\nclass Net(EDSR):\n    pass\n")
    assert set(networks_of(import_file(file))) == {"EDSR", "Net"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import nothing_of_this_name", "cannot be imported: ModuleNotFoundError: No module named 'nothing_of_this_name'$"),
        ("from basicsr.models.archs.x import y", "a part of its fork, not of BasicSR: copy it beside the file"),
        ("def f(:", "cannot be imported: SyntaxError"),
        ("1 / 0", "cannot be imported: ZeroDivisionError"),
    ],
)
def test_a_file_that_fails_is_one_sentence_and_leaves_nothing(tmp_path, text, said):
    before = set(sys.modules)
    with pytest.raises(ValueError, match=said):
        import_file(write(tmp_path / "net.py", text))
    assert not [name for name in set(sys.modules) - before if name.endswith(".net")]


@pytest.mark.parametrize("name", ["missing.py", "net.txt", "."])
def test_what_is_no_python_file_is_refused(tmp_path, name):
    (tmp_path / "net.txt").touch()
    with pytest.raises(FileNotFoundError, match="is no .py file"):
        import_file(str(tmp_path / name))


def test_a_module_that_cannot_be_imported_is_one_sentence():
    with pytest.raises(ValueError, match="module 'no.such' cannot be imported: .*`file: FILE.py"):
        import_module("no.such")
