"""Panels for TensorBoard: images side by side, each with its name and score, and a crop of each below."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np

from kd_plugins.data.pictures import Image, in_colour, squared_error, worst_window
from kd_plugins.tables import SHOWN

_ZOOM = 4
_BAR = 22  # height of a caption
_SIZE, _SMALLEST = 0.5, 0.25  # of its letters
_GAP = 2
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw_panel(images: Mapping[str, Image], captions: Mapping[str, str]) -> Image:
    """Put images side by side, with captions, and below each the part where the student is furthest from what it should be.

    Args:
        images: by role, of one size: at least `student`. It is compared with `clean`, or `teacher`, if there is one of them.
        captions: what stands above an image; by default its role.

    Returns:
        (H, W, 3) uint8, BGR.
    """
    order = [role for role in SHOWN if role in images]
    shown = {role: in_colour(images[role]).copy() for role in order}
    student = shown["student"]
    reference = next((shown[role] for role in ("clean", "teacher") if role in shown), student)
    height, width = (max(side // _ZOOM, 1) for side in student.shape[:2])
    top, left, height, width = worst_window(squared_error(student, reference), height, width)
    columns = []
    for role, image in shown.items():
        crop = image[top : top + height, left : left + width].repeat(_ZOOM, axis=0).repeat(_ZOOM, axis=1)
        zoomed = np.zeros_like(image)
        zoomed[: crop.shape[0], : crop.shape[1]] = crop[: image.shape[0], : image.shape[1]]
        cv2.rectangle(image, (left, top), (left + width - 1, top + height - 1), (255, 255, 255), 1)
        gap = np.zeros((_GAP, image.shape[1], 3), np.uint8)
        columns += [np.concatenate([_caption(captions.get(role, role), image.shape[1]), image, gap, zoomed])]
    line = np.zeros((columns[0].shape[0], _GAP, 3), np.uint8)
    return np.concatenate([part for column in columns for part in (line, column)][1:], axis=1)


def _caption(text: str, width: int) -> Image:
    """A bar with a text that fits, if letters that can be read do."""
    bar, size = np.zeros((_BAR, width, 3), np.uint8), _SIZE
    while size > _SMALLEST and cv2.getTextSize(text, _FONT, size, 1)[0][0] > width - 8:
        size -= 0.05
    cv2.putText(bar, text, (4, 16), _FONT, size, (255, 255, 255), 1, cv2.LINE_AA)
    return bar
