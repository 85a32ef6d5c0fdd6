"""Images inside a page: encoded, cut and coloured."""

from __future__ import annotations

import base64
from typing import NamedTuple

import cv2
import numpy as np

from kd_plugins.data.pictures import Image, in_colour, squared_error, worst_window
from kd_plugins.report.measure import Example
from kd_plugins.tables import SHOWN

_LONGEST = 960  # of a whole image in the page; crops are shown pixel by pixel
_CROP = 64
_QUALITY = 92


class Picture(NamedTuple):
    """An image of a page.

    Attributes:
        role: what it shows.
        uri: the image itself, as a data URI.
        score: in words, nothing where there is none.
    """

    role: str
    uri: str
    score: str = ""


class Figure(NamedTuple):
    """What the page shows of one validation image.

    Attributes:
        name: of the image.
        note: how student and teacher differ on it.
        width, height: of the whole images, in pixels.
        whole: the whole images, by role.
        crops: where the student is furthest below its teacher.
        box: that place: left, top, width and height in percent of the image.
        errors: error maps of student and teacher.
        full_scale: the error in steps of 1/255 that is shown brightest.
        sides: the roles left and right of the slider at first.
    """

    name: str
    note: str
    width: int
    height: int
    whole: list[Picture]
    crops: list[Picture]
    box: tuple[float, float, float, float]
    errors: list[Picture]
    full_scale: int
    sides: tuple[str, str]


def figure(example: Example, metric: str, reference: str, note: str) -> Figure:
    """Encode the images of an example.

    Args:
        example: the images and scores.
        metric: the score that is shown under each image.
        reference: the role that errors are differences from.
        note: see `Figure`.
    """
    images = {role: in_colour(example.images[role]) for role in SHOWN if role in example.images}
    scores = {role: f"{own[metric]:.2f} dB" for role, own in example.scores.items() if metric in own}
    compared = [role for role in ("student", "teacher") if role in images and reference in images and role != reference]
    errors = {role: squared_error(images[role], images[reference]) for role in compared}
    excess = errors.get("student", np.zeros(images["student"].shape[:2], np.float32))
    top, left, height, width = worst_window(excess - errors["teacher"] if "teacher" in errors else excess, _CROP, _CROP)
    window = (slice(top, top + height), slice(left, left + width))  # the browser enlarges it, pixel by pixel
    rows, columns = images["student"].shape[:2]
    brightest = max((float(np.quantile(error, 0.995)) for error in errors.values()), default=0.0) ** 0.5
    full_scale = max(round(255 * brightest), 1)
    shown = [Picture(role, encode(_fitted(image)), scores.get(role, "")) for role, image in images.items()]
    fitted = _fitted(images["student"])
    return Figure(
        example.name,
        note,
        fitted.shape[1],
        fitted.shape[0],
        shown,
        [Picture(role, encode(image[window], lossless=True), scores.get(role, "")) for role, image in images.items()],
        (100 * left / columns, 100 * top / rows, 100 * width / columns, 100 * height / rows),
        [Picture(role, encode(_fitted(_heat(error, full_scale))), scores.get(role, "")) for role, error in errors.items()],
        full_scale,
        ("student", next(role for role in ("teacher", "clean", "input", "student") if role in images)),
    )


def encode(image: Image, lossless: bool = False) -> str:
    """An image (H, W, 3), BGR, as a data URI: a JPEG without loss of colour resolution, or a PNG."""
    options = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    _, data = cv2.imencode(".png" if lossless else ".jpg", image, [] if lossless else options)
    return f"data:image/{'png' if lossless else 'jpeg'};base64,{base64.b64encode(data.tobytes()).decode()}"


def _fitted(image: Image) -> Image:
    height, width = image.shape[:2]
    factor = _LONGEST / max(height, width)
    if factor >= 1:
        return image
    return cv2.resize(image, (round(width * factor), round(height * factor)), interpolation=cv2.INTER_AREA)


def _heat(error: np.ndarray, full_scale: int) -> Image:
    shade = np.clip(np.sqrt(error) * 255 / full_scale, 0, 1)
    return cv2.applyColorMap((shade * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
