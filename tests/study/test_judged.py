"""Networks with batch statistics are judged image by image, in chunks of any size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mirrax.models import build
from mirrax.models._conv4 import blocks_then_head
from mirrax.study import _judged
from mirrax.study._judged import judged_logits

SHAPE = (6, 5, 2)
MODEL = blocks_then_head("two", SHAPE, (3, 4), 3)


@pytest.fixture(autouse=True)
def as_studies_run(as_in_life):
    del as_in_life


def stored(rows, seed):
    return np.random.default_rng(seed).integers(0, 256, (rows, *SHAPE), dtype=np.uint8)


def alone(params, image, first):
    """The moments of the training images, then one image, in an order of its own."""
    both = jnp.concatenate([first, image[None]]) / np.float32(255)
    return MODEL.apply(params, both, reference=len(first))[-1]


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [4, 1024])
def test_no_image_depends_on_another_or_on_its_chunk(chunk, monkeypatch):
    monkeypatch.setattr(_judged, "_CHUNK", chunk)
    params, images, first = MODEL.init(jax.random.key(0)), stored(9, 0), stored(6, 1)
    judge = jax.jit(lambda images: judged_logits(MODEL, params, images, first, 1 / 255))
    logits = judge(images)
    one = jax.jit(lambda image: alone(params, image, first))
    expected = [one(image) for image in images]
    np.testing.assert_allclose(logits, np.stack(expected), rtol=1e-4, atol=1e-5)
    changed = np.concatenate([images[:1], stored(8, 2)])
    np.testing.assert_allclose(judge(changed)[0], logits[0], rtol=1e-5, atol=1e-6)
    assert np.abs(MODEL.apply(params, jnp.asarray(images / np.float32(255))) - logits).max() > 1e-2


def test_other_networks_are_judged_as_they_are():
    model = build("mlp-4", SHAPE, 3)
    params, images = model.init(jax.random.key(0)), stored(5, 0)
    logits = judged_logits(model, params, jnp.asarray(images), stored(2, 1), 1 / 255)
    expected = model.apply(params, jnp.asarray(images, jnp.float32) * (1 / 255))
    np.testing.assert_array_equal(logits, expected)


def test_models_say_whether_they_have_batch_statistics():
    found = {name: build(name, (16, 16, 1), 3).normalises for name in ("mlp-4", "lenet5", "linear")}
    assert not any(found.values())
    assert build("conv4-2", (16, 16, 1), 3).normalises
    assert build("resnet18-2-bf16", (16, 16, 1), 3).normalises
