"""Videos through ffmpeg, frame by frame: decoded, restored, encoded again; sound is copied."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import numpy as np

from kd_plugins.atomic_files import in_place_of
from kd_plugins.deploy.images import Picture

_CODECS = {".webm": ("libvpx-vp9", "-crf", "20", "-b:v", "0")}
_NOWHERE = subprocess.DEVNULL
_CODEC = ("libx264", "-crf", "16")
_TAGS = ("color_range", "color_primaries", "color_trc", "colorspace")
"""As ffmpeg's arguments call what ffprobe calls color_range, color_primaries, color_transfer and color_space."""


def restore_video(
    source: Path, target: Path, restore: Callable[[Picture], Picture], progress: Callable[[int, int], object]
) -> None:
    """Restore a video of 8 bits.

    Args:
        source: the video.
        target: the file to write; its ending decides on what it is. What is there is replaced.
        restore: a picture into another one.
        progress: called after each frame with their number so far, and how many there are, about.

    Raises:
        ValueError: ffmpeg is not installed, or cannot read or write such a video; HDR.
    """
    if missing := [name for name in ("ffmpeg", "ffprobe") if shutil.which(name) is None]:
        raise ValueError(f"a video needs {' and '.join(missing)}, not found on this machine; images need neither")
    rate, count, tags = _probe(source)
    with in_place_of(target) as part, _running(_decoder(source, rate), stdout=subprocess.PIPE) as decoder:
        frames = _read_frames(decoder.stdout)  # type: ignore[arg-type]
        first = next(frames, None)
        if first is None:
            raise ValueError("ffmpeg decodes no frame of it")
        first = restore(_picture(first)).pixels
        with _running(_encoder(source, part, rate, tags, first), stdin=subprocess.PIPE) as encoder:
            _write_frame(encoder.stdin, first)  # type: ignore[arg-type]
            progress(1, count)
            for number, frame in enumerate(frames, 2):
                _write_frame(encoder.stdin, restore(_picture(frame)).pixels)  # type: ignore[arg-type]
                progress(number, count)


def _probe(source: Path) -> tuple[Fraction, int, dict[str, str]]:
    """Frames in a second, how many there are, and what the file says of its colours."""
    entries = "stream=avg_frame_rate,duration,color_range,color_primaries,color_transfer,color_space:format=duration"
    words = ["ffprobe", "-v", "error", "-select_streams", "v:0", "-show_entries", entries, "-of", "json", str(source)]
    done = subprocess.run(words, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout or "{}")
    if done.returncode or not found.get("streams"):
        raise ValueError(f"ffprobe finds no video in it {done.stderr.strip()[-200:]}".strip())
    stream = found["streams"][0]
    rate = Fraction(*map(int, stream["avg_frame_rate"].split("/"))) if stream["avg_frame_rate"][-2:] != "/0" else Fraction(0)
    if not rate:
        raise ValueError("ffprobe finds no frame rate in it")
    if stream.get("color_transfer") in ("smpte2084", "arib-std-b67") or "2020" in stream.get("color_space", ""):
        raise ValueError("HDR video, expected one of 8 bits in BT.709 or BT.601")
    names = ("color_range", "color_primaries", "color_transfer", "color_space")
    tags = {tag: stream[name] for tag, name in zip(_TAGS, names, strict=True) if stream.get(name, "unknown") != "unknown"}
    duration = float(stream.get("duration") or found.get("format", {}).get("duration") or 0)
    return rate, max(1, round(duration * rate)), tags


def _decoder(source: Path, rate: Fraction) -> list[str]:
    frames = ["-f", "image2pipe", "-c:v", "ppm", "-"]
    return ["ffmpeg", "-v", "error", "-nostdin", "-i", str(source), "-map", "0:v:0", "-vf", f"fps={rate}", *frames]


def _encoder(source: Path, part: Path, rate: Fraction, tags: dict[str, str], frame: np.ndarray) -> list[str]:
    even = frame.shape[0] % 2 == frame.shape[1] % 2 == 0
    matrix = "bt709" if tags.get("colorspace") == "bt709" else "bt601"
    extent = "full" if tags.get("color_range") == "pc" else "limited"
    colours = f"scale=out_color_matrix={matrix}:out_range={extent},format={'yuv420p' if even else 'yuv444p'}"
    frames = ["-f", "image2pipe", "-c:v", "ppm", "-framerate", str(rate), "-i", "-"]
    streams = ["-i", str(source), "-map", "0:v", "-map", "1:a?", "-c:a", "copy", "-map_metadata", "1"]
    said = [word for tag, value in tags.items() for word in (f"-{tag}", value)]
    codec = _CODECS.get(part.suffix.lower(), _CODEC)
    return ["ffmpeg", "-v", "error", "-y", *frames, *streams, "-vf", colours, "-c:v", *codec, *said, str(part)]


@contextmanager
def _running(
    words: list[str], stdin: int = subprocess.DEVNULL, stdout: int = subprocess.DEVNULL
) -> Iterator[subprocess.Popen[bytes]]:
    """An ffmpeg, ended at the end; what it says becomes the error where it fails."""
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(words, stdin=stdin, stdout=stdout, stderr=said)
        try:
            yield process
            if process.stdin:
                process.stdin.close()
            code = process.wait()
        except BrokenPipeError:
            code = process.wait() or 1
        finally:
            process.kill()
            process.wait()
        if code:
            said.seek(0)
            raise ValueError(f"ffmpeg: {said.read().decode(errors='replace').strip()[-300:]}")


def _read_frames(pipe: IO[bytes]) -> Iterator[np.ndarray]:
    """The frames of PPM images one behind another."""
    while pipe.readline().strip() == b"P6":
        width, height = map(int, pipe.readline().split())
        pipe.readline()  # the largest value, 255
        data = pipe.read(3 * width * height)
        if len(data) < 3 * width * height:
            return
        yield np.frombuffer(data, np.uint8).reshape(height, width, 3)


def _write_frame(pipe: IO[bytes], pixels: np.ndarray) -> None:
    pipe.write(b"P6\n%d %d\n255\n" % (pixels.shape[1], pixels.shape[0]))
    pipe.write(np.ascontiguousarray(pixels).data)


def _picture(frame: np.ndarray) -> Picture:
    return Picture(frame, None, "PPM")
