"""`basicsr restore`: a folder through a model, and again."""

import os
import shutil
import signal
import subprocess

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

from kd_plugins.cli import main
from kd_plugins.teachers import build_source

TINY = {"type": "SRVGGNetCompact", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_conv": 1, "upscale": 2}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A network of 2 x, as `-m` takes it."""
    file = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_file(build_source(TINY, "x").state_dict(), file)
    return f"{{type: SRVGGNetCompact, num_feat: 4, num_conv: 1, upscale: 2, checkpoint: {file}}}"


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder of images of several kinds and odd sizes."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for number, name in enumerate(("a.png", "b.jpg", "sub/c.tif", "sub/d.webp")):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (11 + number, 23, 3), np.uint8)).save(tmp_path / "photos" / name)
    return tmp_path / "photos"


def _files(folder):
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def test_a_folder_is_restored_once_and_what_is_missing_later(model, photos, tmp_path, capsys):
    command = ["restore", "-m", model, "-i", "photos", "-o", "out"]
    assert main(command) == 0
    said = capsys.readouterr()
    assert "tiny on cpu in fp32\n" in said.out and "4 restored" in said.out
    assert said.err == ""  # without a terminal a progress bar would be lines of a log
    assert _files(tmp_path / "out") == _files(photos)
    assert [Image.open(tmp_path / "out" / name).size for name in _files(photos)] == [(46, 22 + 2 * n) for n in range(4)]
    assert Image.open(tmp_path / "out" / "sub" / "d.webp").format == "WEBP"

    before = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in _files(photos)}
    assert main(command) == 0
    assert "Nothing to restore: 4 of 4 are there already" in capsys.readouterr().out
    (tmp_path / "out" / "b.jpg").unlink()
    assert main(command) == 0
    assert "; 3 of 4 are there already (--overwrite restores them again)\n1 restored" in capsys.readouterr().out
    after = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in _files(photos)}
    assert [name for name in before if before[name] != after[name]] == ["b.jpg"]
    assert main([*command, "--overwrite"]) == 0
    assert "4 restored" in capsys.readouterr().out


def test_a_bad_file_is_named_passed_over_and_counted(model, photos, tmp_path, capsys):
    data = (photos / "b.jpg").read_bytes()
    (photos / "b.jpg").write_bytes(data[: len(data) // 2])
    assert main(["restore", "-m", model, "-i", "photos", "-o", "out"]) == 1
    said = capsys.readouterr()
    assert "3 restored" in said.out and "1 could not be" in said.out
    assert "photos/b.jpg: " in said.err and "truncated" in said.err.lower() and said.err.count("passed over") == 1
    assert _files(tmp_path / "out") == ["a.png", "sub/c.tif", "sub/d.webp"]


def test_suffix_kind_tiles_and_precision(model, photos, tmp_path):
    words = ["--suffix", "_x2", "--ext", "png", "--tile", "16", "--overlap", "4", "--bf16"]
    assert main(["restore", "-m", model, "-i", "photos", "-o", "out", *words]) == 0
    assert _files(tmp_path / "out") == ["a_x2.png", "b_x2.png", "sub/c_x2.png", "sub/d_x2.png"]
    assert {Image.open(tmp_path / "out" / name).format for name in _files(tmp_path / "out")} == {"PNG"}


def test_one_image_into_a_file_of_another_kind(model, photos, tmp_path):
    assert main(["restore", "-m", model, "-i", "photos/a.png", "-o", "x.jpg", "--quality", "50"]) == 0
    assert Image.open(tmp_path / "x.jpg").format == "JPEG"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--quality", "0"], "--quality: 0, expected 1 to 100"),
        (["--tile", "big"], "--tile: 'big', expected a number of pixels, 0 or auto"),
        (["--tile", "32", "--overlap", "32"], "tile: 32, expected more than the overlap, 32"),
        (["--device", "cuda:99"], "device: 'cuda:99', expected one of auto, cpu"),
        (["-o", "photos"], "is an input, which is never written to"),
        (["-m", "restormer_drain"], "nearest: restormer_derain"),
        (["-i", "photo"], "-i photo: no such file or folder"),
        (["--bf16", "--fp16"], "not allowed with argument"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_written(model, photos, tmp_path, capsys, words, said):
    try:
        code = main(["restore", "-m", model, "-i", "photos", "-o", "out", *words])
    except SystemExit as stop:  # argparse's
        code = stop.code
    assert code == 2 and said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_stopped_it_leaves_whole_files_and_goes_on_with_the_others(model, photos, tmp_path, monkeypatch, capsys):
    from kd_plugins.deploy import images

    written = []
    save = images.Image.Image.save

    def stop_in_the_second(self, file, *args, **kwargs):
        save(self, file, *args, **kwargs)
        written.append(file)
        if len(written) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(images.Image.Image, "save", stop_in_the_second)
    try:
        assert main(["restore", "-m", model, "-i", "photos", "-o", "out"]) == 75
    finally:
        signal.signal(signal.SIGTERM, before)
    assert "stopped with 3 of 4 restored" in capsys.readouterr().err
    assert _files(tmp_path / "out") == ["a.png", "b.jpg", "sub/c.tif"]  # Pillow writes the second and the fourth
    monkeypatch.undo()
    os.chdir(tmp_path)
    assert main(["restore", "-m", model, "-i", "photos", "-o", "out"]) == 0
    assert _files(tmp_path / "out") == _files(photos)


needs_ffmpeg = pytest.mark.skipif(not (shutil.which("ffmpeg") and shutil.which("ffprobe")), reason="ffmpeg is not installed")


@pytest.fixture
def video(tmp_path, monkeypatch):
    """Half a second of 5 frames with a tone."""
    monkeypatch.chdir(tmp_path)
    sources = [word for source in ("color=c=0x20a060:s=36x22:r=10:d=0.5", "sine=d=0.5") for word in ("-f", "lavfi", "-i", source)]
    said = ["-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709"]
    subprocess.run(["ffmpeg", "-v", "error", *sources, "-pix_fmt", "yuv420p", "-crf", "5", *said, "v.mp4"], check=True)
    return tmp_path / "v.mp4"


def _frames(file):
    words = ["ffmpeg", "-v", "error", "-i", str(file), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    data = subprocess.run(words, check=True, capture_output=True).stdout
    return np.frombuffer(data, np.uint8)


def _streams(file):
    entries = "stream=codec_type,width,height,nb_frames,color_space,avg_frame_rate"
    words = ["ffprobe", "-v", "error", "-show_entries", entries, "-of", "csv=p=0", str(file)]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()


@needs_ffmpeg
def test_a_video_keeps_its_frames_its_rate_its_colours_and_its_sound(model, video, tmp_path, monkeypatch):
    assert main(["restore", "-m", model, "-i", "v.mp4", "-o", "out"]) == 0
    before, after = _streams(video), _streams(tmp_path / "out" / "v.mp4")
    assert after[0] == before[0].replace("36,22", "72,44") and after[1] == before[1]
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["v.mp4"]

    from kd_plugins.deploy.video import restore_video

    restore_video(video, tmp_path / "same.mp4", lambda picture: picture, lambda *args: None)
    assert np.abs(_frames(video).astype(int) - _frames(tmp_path / "same.mp4")).mean() < 3


@needs_ffmpeg
def test_a_video_that_is_none_is_named_and_leaves_nothing(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "v.mp4").write_bytes(b"no video")
    assert main(["restore", "-m", model, "-i", "v.mp4", "-o", "out"]) == 1
    assert "v.mp4: ffprobe finds no video in it" in capsys.readouterr().err
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_a_video_without_ffmpeg_says_what_is_missing(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "v.mp4").write_bytes(b"")
    monkeypatch.setenv("PATH", "")
    assert main(["restore", "-m", model, "-i", "v.mp4", "-o", "out"]) == 1
    assert "a video needs ffmpeg and ffprobe" in capsys.readouterr().err
