"""The installed package: its metadata, its command, and what `import kd_plugins` does in a new process."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import kd_plugins

ROOT = Path(__file__).resolve().parents[1]
FIND_PYTHON = ROOT / "tools" / "find_python.sh"
HEAVY = ["lpips", "skimage", "mmengine", "spandrel", "tensorboard", "torch.utils.tensorboard", "matplotlib", "pandas", "wandb"]
UNIX_ONLY = pytest.mark.skipif(os.name == "nt", reason="a POSIX shell script")


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a new process, from the repository's root."""
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def fresh_import() -> dict[str, list[str]]:
    """Modules and registered names after nothing but `import kd_plugins`, in a new process."""
    run = run_python(
        "import sys\n"
        "assert not {'torch', 'torchvision', 'basicsr'} & set(sys.modules)\n"
        "import kd_plugins, json\n"
        "modules = sorted(sys.modules)\n"
        "from basicsr.utils import registry\n"
        "kinds = ('ARCH', 'DATASET', 'LOSS', 'METRIC', 'MODEL')\n"
        "names = {kind: sorted(getattr(registry, kind + '_REGISTRY').keys()) for kind in kinds}\n"
        "print(json.dumps({'modules': modules, **names}))"
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


def test_metadata_names_version_licence_and_pythons() -> None:
    about = metadata.metadata("kd_plugins")
    assert about["Version"] == kd_plugins.__version__
    assert about["License-Expression"] == "Apache-2.0"
    assert set(about["Requires-Python"].split(",")) == {">=3.10", "<3.13"}


def test_requirements_hold_one_tensorboard_and_one_opencv() -> None:
    requirements = [line for line in metadata.requires("kd_plugins") or [] if "extra ==" not in line]
    names = {re.split(r"[^A-Za-z0-9_.-]", line)[0].lower() for line in requirements}
    assert {"torch", "torchvision", "tensorboard", "opencv-python"} <= names
    assert not {"basicsr", "tb-nightly", "opencv-python-headless", "opencv-contrib-python"} & names


def test_the_licence_is_the_whole_apache_text() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Version 2.0, January 2004" in text
    assert "APPENDIX: How to apply the Apache License to your work." in text


def test_the_command_is_installed_and_runs() -> None:
    (entry,) = metadata.entry_points(group="console_scripts", name="basicsr")
    assert entry.value == "kd_plugins.cli:main"
    script = Path(sysconfig.get_path("scripts")) / "basicsr"
    run = subprocess.run([str(script), "--help"], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    assert "train" in run.stdout and "test" in run.stdout


def test_import_loads_every_module_that_registers_a_class(fresh_import: dict[str, list[str]]) -> None:
    registering = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in (ROOT / "kd_plugins").rglob("*.py")
        if re.search(r"^@\w+_REGISTRY\.register\(", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert "kd_plugins.archs.restormer_arch" in registering
    assert registering <= set(fresh_import["modules"])


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("ARCH", "Restormer"),
        ("DATASET", "DegradedPhotoDataset"),
        ("LOSS", "ExtractorLoss"),
        ("METRIC", "calculate_brisque"),
        ("METRIC", "calculate_piqe"),
        ("METRIC", "calculate_lpips"),
        ("MODEL", "SLKDModel"),
    ],
)
def test_import_registers_with_basicsr(fresh_import: dict[str, list[str]], kind: str, name: str) -> None:
    assert name in fresh_import[kind]


def test_import_keeps_what_basicsr_registers(fresh_import: dict[str, list[str]]) -> None:
    assert {"EDSR", "SwinIR"} <= set(fresh_import["ARCH"])
    assert "PairedImageDataset" in fresh_import["DATASET"]
    assert {"calculate_psnr", "calculate_ssim"} <= set(fresh_import["METRIC"])


def test_import_leaves_heavy_libraries_alone(fresh_import: dict[str, list[str]]) -> None:
    assert not set(HEAVY) & set(fresh_import["modules"])


def test_import_works_after_torchvision_was_tried() -> None:
    run = run_python(
        "try:\n"
        "    import torchvision.transforms.functional\n"
        "except RuntimeError:\n"  # the compiled part does not load: what kd_plugins repairs
        "    pass\n"
        "import kd_plugins, torch, basicsr.train\n"
        "from torchvision.transforms.functional_tensor import rgb_to_grayscale\n"
        "print(tuple(rgb_to_grayscale(torch.rand(3, 4, 5)).shape))"
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "(1, 4, 5)"


def test_missing_basicsr_is_one_error_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "basicsr", None)
    with pytest.raises(ImportError, match="basicsr is not installed: run `basicsr setup`"):
        kd_plugins.register()


def test_wheel_holds_the_package_its_data_and_nothing_else(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("kd_plugins", "options"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = ["-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(tmp_path), "."]
    run = subprocess.run([sys.executable, *command], cwd=source, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr

    (wheel,) = tmp_path.glob("kd_plugins-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    patterns = ("**/*.py", "py.typed", "weights/*.safetensors", "weights/*.md", "report/templates/*", "distill/*.jinja")
    expected = {path for pattern in patterns for path in (source / "kd_plugins").glob(pattern)}
    options = {f"kd_plugins/option_files/{path.relative_to(source / 'options')}" for path in source.glob("options/**/*.yml")}
    assert held == {path.relative_to(source).as_posix() for path in expected} | options


def find_python(path: Path, *names: str) -> subprocess.CompletedProcess[str]:
    """Run tools/find_python.sh where only the commands of one folder can be found."""
    environment = {"PATH": str(path), "HOME": str(path)}
    return subprocess.run(["/bin/sh", str(FIND_PYTHON), *names], env=environment, capture_output=True, text=True, timeout=60)


def add_command(folder: Path, name: str, script: str) -> None:
    """Write an executable shell script."""
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


@UNIX_ONLY
def test_find_python_passes_over_a_name_that_does_not_run(tmp_path: Path) -> None:
    add_command(tmp_path, "python3.12", "echo 'shim: no such version' >&2; exit 127")
    add_command(tmp_path, "python3", f"exec '{sys.executable}' \"$@\"")
    run = find_python(tmp_path)
    assert (run.returncode, run.stdout) == (0, "python3\n")


@UNIX_ONLY
def test_find_python_refuses_others_in_one_sentence(tmp_path: Path) -> None:
    add_command(tmp_path, "python3", "echo 3.13")
    add_command(tmp_path, "python", "echo 2.7")
    run = find_python(tmp_path)
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr == ("kd_plugins needs Python 3.10, 3.11 or 3.12 with its venv module; found: python3 (3.13), python (2.7).\n")


@UNIX_ONLY
def test_find_python_keeps_to_the_name_it_was_given(tmp_path: Path) -> None:
    add_command(tmp_path, "python3.13", "echo 3.13")
    assert find_python(tmp_path, sys.executable).stdout.strip() == sys.executable
    assert find_python(tmp_path, "python3.13").returncode == 1
    assert "none of nosuch" in find_python(tmp_path, "nosuch").stderr
