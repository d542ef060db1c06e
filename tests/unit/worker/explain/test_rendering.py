from io import BytesIO

import cv2
import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image

from tests.clips import hopper
from worker.explain.rendering import MAX_BYTES, colour_map, encode_webp, overlay

RAMP = np.linspace(0.0, 1.0, 256, dtype=np.float32)[None]
NOISE = np.random.default_rng(0).integers(0, 256, (320, 320, 3), np.uint8)


def test_colours_are_those_of_viridis_and_grow_lighter_throughout():
    colours = colour_map(RAMP)
    published = 255.0 * colormaps["viridis"](RAMP[0])[:, :3]
    # Eleven of its 256 colours are kept, and the others lie on straight lines between them.
    assert np.abs(colours[0] - published).max() < 16.0
    assert np.abs(colours[0] - published).mean() < 3.0
    lightness = cv2.cvtColor(colours.astype(np.float32) / 255.0, cv2.COLOR_RGB2LAB)[0, :, 0]
    assert np.all(np.diff(lightness[::4]) > 0.0)


def test_an_overlay_leaves_the_grey_face_where_the_map_is_zero():
    grey = overlay(hopper(), np.zeros((280, 280), np.float32))
    assert np.array_equal(grey, np.repeat(cv2.cvtColor(hopper(), cv2.COLOR_RGB2GRAY)[:, :, None], 3, axis=2))
    hot = overlay(hopper(), np.ones((280, 280), np.float32))
    assert hot[..., 2].mean() < hot[..., 0].mean()


@pytest.mark.parametrize("picture", [hopper(), NOISE, colour_map(RAMP)], ids=["face", "noise", "ramp"])
def test_pictures_are_small_the_same_every_time_and_without_metadata(picture):
    data = encode_webp(picture)
    assert data == encode_webp(picture)
    assert len(data) <= MAX_BYTES
    opened = Image.open(BytesIO(data))
    assert (opened.format, opened.size) == ("WEBP", picture.shape[1::-1])
    assert not opened.getexif()
    assert "icc_profile" not in opened.info


def test_a_picture_that_cannot_be_small_is_refused():
    with pytest.raises(ValueError, match="does not fit"):
        encode_webp(np.tile(NOISE, (2, 1, 1)))
