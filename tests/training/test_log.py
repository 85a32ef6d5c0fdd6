"""What a run says: its options in one line, in the order in which things happen, in the words of TensorBoard and the report."""

import logging
import re
from types import SimpleNamespace

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kd_plugins.cli import main
from kd_plugins.report.logs import read_course
from kd_plugins.training.loop import Loop

TIME = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) ", re.M)


@pytest.fixture
def plain(with_validation):
    """A training without a teacher, as that of a teacher is."""
    for key in ("teacher", "init", "features"):
        del with_validation[key]
    with_validation["model_type"] = "DistillationModel"
    with_validation["train"].update(pixel_opt={"type": "L1Loss"}, total_iter=2)
    return with_validation


def test_options_are_one_line_and_the_log_file_has_them_all(with_validation, write, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    with_validation["train"]["total_iter"] = 2
    file = write(with_validation)
    assert main(["train", "-opt", file, "--force_yml", "val:val_freq=1"]) == 0
    said = capfd.readouterr().err
    versions, options, *_ = said.splitlines()
    assert "INFO: kd_plugins " in versions
    assert options.partition("INFO: ")[2] == (
        "tiny: SLKDModel | teacher teacher.safetensors | student Restormer | train photos | val small | 2 steps | "
        "--force_yml val:val_freq=1 | all options: experiments/tiny/options.yml"
    )
    (log,) = (tmp_path / "experiments/tiny").glob("train_*.log")
    text = log.read_text()
    assert "\n  network_g:[" in text and "network_g:[" not in said
    assert [line for line in said.splitlines() if line not in text.splitlines()] == []
    times = TIME.findall(said)
    assert times == sorted(times) and "days" not in said and "-1 day" not in said

    assert main(["test", "-opt", file]) == 0
    said = capfd.readouterr().err
    assert "student Restormer | val small | all options: results/tiny/options.yml" in said
    assert "Test of small\n" in said and "Validation" not in said
    assert (tmp_path / "results/tiny/options.yml").is_file()


def test_a_plain_training_has_a_network_and_no_student(plain, write, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "-opt", write(plain)]) == 0
    said = capfd.readouterr().err
    assert "student" not in said.lower() and "teacher" not in said.lower()
    assert re.search(r"metric +input +restored +best @ iteration", said) and "Network: " in said
    assert set(read_course(tmp_path / "experiments/tiny").scores["small"]["psnr"]) == {"input", "student"}
    events = EventAccumulator("tb_logger/tiny", size_guidance={"images": 0}).Reload()
    tags = {tag for tag in events.Tags()["scalars"] if "psnr" in tag}
    assert tags == {"metrics/small/psnr", "metrics/small/psnr_input"}


def test_the_time_left_is_never_below_nothing(monkeypatch):
    said = []
    opt = {"name": "x", "logger": {"print_freq": 1, "use_tb_logger": False}, "train": {"total_iter": 3}}
    model = SimpleNamespace(get_current_learning_rate=lambda: [1.0], get_current_log=dict)
    loop = Loop(opt, model, None, None, [])
    loop.message_logger.start_time -= 100  # slow steps
    monkeypatch.setattr(loop.message_logger, "logger", SimpleNamespace(info=said.append))
    loop.current_iter = 3
    loop._log(time=1.0, data_time=0.0)
    assert "eta: 0:00:00," in said[0]


def test_lines_before_the_file_are_shown_at_once(capfd):
    from kd_plugins.training.run_log import held_log

    with held_log(shown=True) as held:
        logging.getLogger("basicsr").info("early")
        assert capfd.readouterr().err.endswith("INFO: early\n")
    assert [record.getMessage() for record in held] == ["early"]
    with held_log():
        logging.getLogger("basicsr").info("unseen")
    assert not capfd.readouterr().err
