"""Rotation against SciPy, resizing and grey against Pillow."""

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mirrax.tasks._resample import resize, rotate, to_bytes, to_grey


def scipy_rotated(images, angle):
    return scipy.ndimage.rotate(images, angle, axes=(2, 1), reshape=False, order=1)


@pytest.mark.parametrize("angle", [0, 15, 30, 45, 60, 75, 90, 180, 270, -30, 33.3, 400])
@pytest.mark.parametrize("shape", [(28, 28, 1), (8, 8, 1), (7, 12, 3)])
def test_rotation_is_scipys(rng, angle, shape):
    images = rng.integers(0, 256, (5, *shape), dtype=np.uint8)
    ours, exact = rotate(images, angle), scipy_rotated(images.astype(np.float64), angle)
    # Fixed-point weights are exact to 4 · 255 · 2⁻²³, so only near-ties may round otherwise.
    assert np.abs(ours - exact).max() <= 0.5002


def test_quarter_turns_move_pixels_exactly(rng):
    images = rng.integers(0, 256, (3, 9, 9, 2), dtype=np.uint8)
    np.testing.assert_array_equal(rotate(images, 90), np.rot90(images, axes=(1, 2)))
    np.testing.assert_array_equal(rotate(images, 0), images)


def test_rotation_does_not_depend_on_how_images_are_grouped(rng):
    images = rng.integers(0, 256, (2500, 6, 6, 1), dtype=np.uint8)
    together = rotate(images, 20)
    for index in (0, 1023, 1024, 2047, 2048, 2499):
        np.testing.assert_array_equal(together[index : index + 1], rotate(images[index][None], 20))


def test_rotation_refuses_floats():
    with pytest.raises(ValueError, match="rotate: images is float64; uint8"):
        rotate(np.zeros((1, 2, 2, 1)), 10)


@given(st.floats(-720, 720), st.integers(1, 9), st.integers(1, 9))
@settings(max_examples=50, deadline=None)
def test_rotation_never_exceeds_the_range(angle, height, width):
    images = np.full((1, height, width, 1), 255, np.uint8)
    assert rotate(images, angle).max() <= 255
    assert not rotate(np.zeros_like(images), angle).any()


@pytest.mark.parametrize("sides", [(16, 28), (32, 28), (28, 28), (64, 28), (5, 3), (3, 11)])
def test_resizing_is_pillows_bilinear(rng, sides):
    old, new = sides
    images = rng.uniform(0, 1, (3, old, old, 1)).astype(np.float32)
    ours = resize(images, new, new)
    for image, resized in zip(images[..., 0], ours[..., 0], strict=True):
        theirs = Image.fromarray(image).resize((new, new), Image.Resampling.BILINEAR)
        np.testing.assert_allclose(resized, np.asarray(theirs), rtol=0, atol=1e-5)


def test_resizing_keeps_constants_and_treats_axes_apart(rng):
    assert np.allclose(resize(np.full((1, 5, 9, 2), 7.0), 13, 4), 7.0)
    image = rng.uniform(size=(1, 6, 10, 3))
    resized = resize(image, 12, 7)
    assert resized.shape == (1, 12, 7, 3)
    np.testing.assert_allclose(resized[..., 1:2], resize(image[..., 1:2], 12, 7))


def test_grey_is_pillows_luma(rng):
    images = rng.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    theirs = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in images])
    np.testing.assert_array_equal(to_grey(images)[..., 0], theirs)


def test_bytes_survive_scaling():
    every = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(to_bytes(every * np.float32(1 / 255)), every)
