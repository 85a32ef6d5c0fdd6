"""The repairs of basicsr and torchvision hold, and can be applied again."""

import importlib
import importlib.util
import sys

import torch

from kd_plugins import _compat

NAME = "torchvision.transforms.functional_tensor"


def test_applied_twice_changes_nothing():
    torchvision, before = sys.modules["torchvision"], sys.modules[NAME]
    _compat.apply()
    _compat.apply()
    assert sys.modules["torchvision"] is torchvision
    assert sys.modules[NAME] is before


def test_functional_tensor_can_be_imported_and_found():
    module = importlib.import_module(NAME)
    assert importlib.util.find_spec(NAME) is not None  # other libraries look before they import
    image = torch.rand(3, 4, 5)
    expected = 0.2989 * image[0] + 0.587 * image[1] + 0.114 * image[2]
    torch.testing.assert_close(module.rgb_to_grayscale(image)[0], expected)


def test_basicsr_uses_it():
    from basicsr.data import degradations

    assert degradations.rgb_to_grayscale is sys.modules[NAME].rgb_to_grayscale


def test_torchvision_operators_are_defined():
    import torchvision

    assert torchvision.transforms is not None
    assert hasattr(torch.ops.torchvision, "nms")


def test_folders_are_archived_twice_within_a_second(tmp_path):
    from basicsr.utils import mkdir_and_rename

    for number in range(3):
        mkdir_and_rename(str(tmp_path / "run"))
        (tmp_path / "run" / str(number)).touch()
    kept = sorted(file.name for file in tmp_path.glob("run_archived_*/*"))
    assert kept == ["0", "1"] and (tmp_path / "run" / "2").exists()
