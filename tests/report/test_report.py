import re
import shutil
import subprocess
from contextlib import nullcontext
from pathlib import Path

import pytest
from basicsr.utils.registry import LOSS_REGISTRY
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from kd_plugins.cli import main

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture
def run(with_validation, write, tmp_path, monkeypatch, one_thread):
    """The folder of a run of four steps."""
    with_validation["num_threads"] = 1
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("kd_plugins.deploy.benchmark.peak_memory", lambda *_: 3 << 20)  # a process for each network
    monkeypatch.setattr("kd_plugins.report.make.RESTORED", 32)
    assert main(["train", "-opt", write(with_validation)]) == 0
    return tmp_path / "experiments" / "tiny"


def opened(page: Path, folder: Path, script: str = "") -> tuple[str, str]:
    """The document after its script, and a further one, has run in a browser; and what the console says."""
    if CHROMIUM is None:
        pytest.skip("no chromium to open a page in")
    copy = folder / "opened.html"
    copy.write_text(page.read_text().replace("</body>", f"<script>{script}</script></body>"))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    flags += ["--disable-component-update", "--disable-sync", f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr"]
    command = [CHROMIUM, *flags, "--virtual-time-budget=2000", "--window-size=390,900", "--dump-dom", copy.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


SCRIPT = """
const range = document.querySelector(".compare input");
range.value = 20;
range.dispatchEvent(new Event("input"));
const select = document.querySelector('select[data-side="right"]');
select.value = "student";
select.dispatchEvent(new Event("change"));
const role = (side) => document.querySelector(`.compare img.${side}`).dataset.role;
const at = document.querySelector(".compare").style.getPropertyValue("--at");
document.body.dataset.seen = `${role("left")} ${role("right")} ${at}`;
document.body.dataset.broken = [...document.images].filter((image) => !image.naturalWidth).length;
document.body.dataset.wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
"""


def test_a_page_tells_all_of_a_run_and_works_in_a_browser(run, tmp_path, capsys, monkeypatch):
    waited = []
    monkeypatch.setattr("kd_plugins.report.make.status", lambda text: waited.append(text) or nullcontext())
    assert main(["report", "tiny"]) == 0
    page = run / "report.html"
    assert str(page) in capsys.readouterr().out and waited == ["Timing the networks of tiny"]
    text = page.read_text()
    for words in (
        "against its teacher",
        "Start, before training",
        "Trained",
        "PSNR (dB)",
        "Parameters",
        "FLOPs",
        "3 MiB",
        "Terms of the loss",
        "metrics/small/psnr",
    ):
        assert words in text, words
    assert "astronaut" in text and "coffee" in text
    events = EventAccumulator(str(tmp_path / "tb_logger" / "tiny")).Reload()
    tags = re.findall(r'<small title="in TensorBoard">(.*?)</small>', text)
    assert tags and all(any(known.startswith(tag) for known in events.Tags()["scalars"]) for tag in tags), tags
    assert (
        not re.search(r'(src|href)="(?!data:)', text) and "@import" not in text and "http" not in text.replace("http://www.w3", "")
    )
    document, console = opened(page, tmp_path, SCRIPT)
    assert console == ""
    seen = re.search(r"<body[^>]*>", document)
    assert seen and 'data-seen="teacher student 20%"' in seen[0] and 'data-broken="0"' in seen[0] and 'data-wide="0"' in seen[0]


def test_the_page_of_a_training_without_a_teacher_speaks_of_no_student(with_validation, write, tmp_path, monkeypatch, one_thread):
    for key in ("teacher", "init", "features"):
        del with_validation[key]
    with_validation.update(model_type="DistillationModel", num_threads=1)
    with_validation["train"].update(pixel_opt={"type": "L1Loss"}, total_iter=2)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("kd_plugins.deploy.benchmark.peak_memory", lambda *_: 3 << 20)
    monkeypatch.setattr("kd_plugins.report.make.RESTORED", 32)
    assert main(["train", "-opt", write(with_validation)]) == 0
    assert main(["report", "tiny"]) == 0
    page = (tmp_path / "experiments" / "tiny" / "report.html").read_text()
    seen = re.sub(r"<(script|style|pre)>.*?</\1>|<[^>]*>", " ", page, flags=re.S)  # of the option file nothing
    assert "student" not in seen.lower() and "teacher" not in seen.replace("trained without a teacher", "").lower()
    assert "restored" in seen and "against its input" in seen


class BrokenLoss(nn.Module):
    """No number from the third call on."""

    calls = 0

    def forward(self, output, gt):
        BrokenLoss.calls += 1
        return (output - gt).abs().mean() * (1 if BrokenLoss.calls < 3 else float("nan"))


def test_a_run_that_has_gone_wrong_has_a_page_that_says_where(with_validation, write, tmp_path, monkeypatch, one_thread, capsys):
    monkeypatch.setitem(LOSS_REGISTRY._obj_map, "BrokenLoss", BrokenLoss)
    for key in ("teacher", "init", "features"):
        del with_validation[key]
    with_validation.update(model_type="SRModel", num_threads=1)  # which goes on
    with_validation["train"]["pixel_opt"] = {"type": "BrokenLoss"}
    with_validation["logger"]["print_freq"] = 1
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("kd_plugins.deploy.benchmark.peak_memory", lambda *_: 3 << 20)
    monkeypatch.setattr("kd_plugins.report.make.RESTORED", 32)
    assert main(["train", "-opt", write(with_validation)]) == 0
    run, where = (
        tmp_path / "experiments" / "tiny",
        "The loss is not finite from iteration 3 on, as far as it is logged: l_pix is nan.",
    )
    for whole in (True, False):
        capsys.readouterr()
        assert main(["report", "tiny"]) == 0
        page = (run / "report.html").read_text()
        assert where in page and where in capsys.readouterr().out and "net_g_latest.pth was not scored: its weights" in page
        assert "Terms of the loss" in page and ("Parameters" in page) == ("astronaut" in page) == whole
        (run / "models" / "net_g_2.pth").unlink(missing_ok=True)
    assert main(["report", "tiny", "tiny", "-o", "family.html"]) == 0


def test_several_runs_make_one_page_with_their_front(run, tmp_path):
    shutil.copytree(run, run.parent / "other")
    assert main(["report", "tiny", "other", "-o", str(tmp_path / "family.html"), "--images", "1"]) == 0
    text = (tmp_path / "family.html").read_text()
    assert "Decibels over milliseconds" in text and text.count("<circle") == 3
    assert 'href="experiments/tiny/report.html"' in text


def test_what_is_no_run_is_one_error(run, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for argument, words in (("tiny2", "nearest: tiny"), ("empty", "no option file")):
        assert main(["report", argument]) == 2
        assert words in capsys.readouterr().err
    assert main(["report", "tiny", "--images", "0"]) == 2
    shutil.rmtree(run / "models")
    assert main(["report", "tiny"]) == 2
    assert "no student" in capsys.readouterr().err
