import numpy as np

from kd_plugins.training.panels import draw_panel


def test_a_panel_shows_each_image_with_a_caption_and_the_worst_part_enlarged():
    clean = np.full((64, 96, 3), 90, np.uint8)
    student = clean.copy()
    student[40:44, 60:64] = 250
    panel = draw_panel({"input": clean[..., 0], "student": student, "clean": clean}, {"student": "student 31.20 dB"})
    assert panel.dtype == np.uint8 and panel.shape == (22 + 64 + 2 + 64, 3 * 96 + 2 * 2, 3)
    captions = [panel[:22, start : start + 96] for start in (0, 98, 196)]
    assert all(each.any() for each in captions) and not np.array_equal(captions[0], captions[1])
    zoomed = panel[22 + 64 + 2 :, 98 : 98 + 96]
    assert (zoomed == 250).all(axis=2).sum() == 16 * 16  # each wrong pixel four times as large
    assert not (panel[22 + 64 + 2 :, 196:] == 250).any()


def test_without_anything_to_compare_with_a_panel_is_drawn():
    image = np.zeros((5, 7, 3), np.uint8)
    assert draw_panel({"student": image}, {}).shape == (22 + 5 + 2 + 5, 7, 3)
