"""The command line: what it says without a run, how it refuses, and that it needs no PyTorch for that."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import kd_plugins
from kd_plugins import _startup
from kd_plugins.cli import COMMANDS, main

ROOT = Path(__file__).resolve().parents[1]


def basicsr(*words, blocked=()):
    """Run the command as its script does, where some libraries cannot be found."""
    code = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({list(blocked)!r}))\n"  # None: not found
        f"sys.orig_argv = ['python', 'basicsr', *{list(words)!r}]\n"
        "from kd_plugins.cli import main\n"
        f"sys.exit(main({list(words)!r}))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, env=environment)


WITHOUT = ("torch", "torchvision", "basicsr", "numpy", "cv2", "scipy", "safetensors", "spandrel")


@pytest.mark.parametrize("words", [["--help"], *([name, "--help"] for name in COMMANDS)], ids=" ".join)
def test_help_needs_no_library_and_shows_an_example(words):
    run = basicsr(*words, blocked=WITHOUT)
    assert run.returncode == 0, run.stderr
    if len(words) == 1:
        assert set(COMMANDS) <= {line.strip().partition(" ")[0] for line in run.stdout.splitlines() if line.startswith("    ")}
    else:
        assert f"usage: basicsr {words[0]}" in run.stdout and f"example:\n  basicsr {words[0]}" in run.stdout


def test_help_is_there_at_once():
    start = time.perf_counter()
    run = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "kd_plugins.cli", "--help"], capture_output=True, text=True, cwd=ROOT
    )
    assert run.returncode == 0 and time.perf_counter() - start < 10  # 0.2 s where nothing else runs
    imported = {line.rpartition("|")[2].strip() for line in run.stderr.splitlines()}
    assert "yaml" in imported and not {"torch", "basicsr", "numpy", "rich"} & imported


def test_the_version_names_those_of_basicsr_and_pytorch_and_needs_neither():
    run = basicsr("--version", blocked=WITHOUT)
    assert run.returncode == 0
    assert run.stdout.startswith(f"kd_plugins {kd_plugins.__version__}, BasicSR ") and "PyTorch " in run.stdout


@pytest.mark.parametrize("name, remedy", [("torch", "pip install "), ("basicsr", "basicsr setup")])
def test_a_command_without_its_libraries_is_one_sentence(name, remedy):
    run = basicsr("check", "-opt", "a.yml", blocked=[name])
    assert run.returncode == 1 and "Traceback" not in run.stderr
    (line,) = run.stderr.splitlines()
    assert line.startswith(f"basicsr check: {name} is not installed: run `{remedy}")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trian"], "basicsr: error: trian: no such command; nearest: train"),
        (["q"], "q: no such command; expected one of "),
        (
            ["train", "-opt", "a.yml", "--auto_resum"],
            "basicsr train: error: --auto_resum: no such argument; nearest: --auto_resume",
        ),
        (["train", "--opt", "a.yml"], "the following arguments are required: -opt"),
        (["test", "-opt", "a.yml", "--launcher", "pytroch"], "argument --launcher: invalid choice: 'pytroch'"),
        (["check"], "one of the arguments -opt --schema is required"),
        (["check", "-opt", "a.yml", "--sch"], "--sch: no such argument; nearest: --schema"),
        (["scale", "-opt", "a.yml", "--flops", "0.1", "--params", "0.1"], "not allowed with"),
        (["restore", "-m", "a", "-i", "", "-o", "b"], "argument -i/--input: '', expected a path"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_command_line_names_the_nearest(words, said, capsys):
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    assert said in capsys.readouterr().err


def test_no_command_shows_the_help(capsys):
    assert main([]) == 2
    assert "commands:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("started", "words"),
    [
        (["python", "/env/bin/basicsr", "train", "-opt", "a"], ["train", "-opt", "a"]),
        (["python.exe", "basicsr.exe", "check"], ["check"]),
        (["python", "-u", "-X", "dev", "-m", "kd_plugins.cli", "train"], ["train"]),
        (["python", "-c", "from multiprocessing.spawn import spawn_main", "basicsr"], None),  # a worker of a run
        (["python", "my_terms.py", "train"], None),
        (["python", "-m", "pytest", "basicsr"], None),
        (["python"], None),
    ],
    ids=lambda value: " ".join(value or ["none"]),
)
def test_the_command_is_known_by_how_the_process_was_started(started, words, monkeypatch):
    monkeypatch.setattr(sys, "orig_argv", started)
    assert _startup.command_line() == words


@pytest.mark.parametrize(("given", "spins"), [({}, "3000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)])
def test_threads_that_wait_sleep_soon_unless_the_environment_says_how(monkeypatch, given, spins):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    _startup.share_cores()
    assert os.environ.get("GOMP_SPINCOUNT") == spins


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (PermissionError(13, "Permission denied", "out/a.png"), 2, "basicsr init: out/a.png: Permission denied"),
        (OSError(28, "No space left on device"), 2, "basicsr init: No space left on device"),
        (KeyboardInterrupt(), 130, "basicsr init: stopped"),
    ],
    ids=["file", "disk", "Ctrl+C"],
)
def test_what_the_system_or_ctrl_c_ends_is_one_sentence(error, code, said, monkeypatch, capsys):
    def run(args):
        raise error

    monkeypatch.setattr("kd_plugins.commands.init.run", run)
    assert main(["init"]) == code
    assert capsys.readouterr().err == f"{said}\n"


def test_output_that_has_no_letters_for_a_table_gets_others():
    code = "import sys; from kd_plugins.commands import init; init.run = lambda args: print(chr(0x2500))\n"
    code += "from kd_plugins.cli import main; main(['init'])"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, env=environment)
    assert run.stdout == "\\u2500\n" and run.stderr == ""
