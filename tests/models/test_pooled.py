"""A few images at a time: pooling, moments and derivatives as of all at once."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mirrax.models import _pooled, spread_batches
from mirrax.models._planes import entries_between
from mirrax.models._pooled import _at_once, _together, convolve_and_pool

FEW, MANY = 3, 8  # inputs: by patches, and by Winograd's tiles


def draw(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


@pytest.fixture
def room(monkeypatch):
    """Gives the cache room for so many images of 5×4."""

    def give(inputs, images=2):
        size = images * 8 * entries_between((5, 4, inputs), 4)
        monkeypatch.setattr(_pooled, "_CACHE", size)

    return give


def arguments(inputs, batch=12):
    return draw(0, batch, 5, 4, inputs), draw(1, 3, 3, inputs, 4)


def loops(function, *given):
    return "stablehlo.while" in jax.jit(function).lower(*given).as_text()


@pytest.mark.parametrize("inputs", [FEW, MANY])
def test_groups_equal_the_whole(inputs, room):
    room(inputs)
    given = arguments(inputs)
    assert _together(given[0], 4) == 2 and loops(convolve_and_pool, *given)
    found, expected = (jax.jit(f)(*given) for f in (convolve_and_pool, _at_once))
    # Sums of 72 products, up to 25 in size.
    np.testing.assert_allclose(found[0], expected[0], rtol=0, atol=2e-14)
    for one, other in zip(found[1], expected[1], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-14)  # means of 240, some near zero


@pytest.mark.parametrize("inputs", [FEW, MANY])
def test_every_derivative_equals_that_of_the_whole(inputs, room):
    """Reverse, forward, reverse of reverse, forward of reverse; each under vmap over tasks."""
    room(inputs)
    weights = draw(2, 12, 2, 2, 4)

    def derivatives(function):
        def energy(images, kernel):
            pooled, (mean, variance) = function(images, kernel)
            return jnp.sum(weights * jnp.sin(pooled)) + jnp.sum(mean**3) + jnp.sum(variance**2)

        slope = jax.grad(energy, (0, 1))

        def all_of(*point):
            first, back = jax.vjp(slope, *point)
            return first, back(first), jax.jvp(slope, point, first), jax.jvp(energy, point, first)

        return jax.jit(jax.vmap(all_of))

    given = [jnp.stack([leaf, leaf[::-1]]) for leaf in arguments(inputs)]
    found, expected = (derivatives(f)(*given) for f in (convolve_and_pool, _at_once))
    scale = jax.tree.map(lambda leaf: np.abs(leaf).max(), expected)
    jax.tree.map(
        lambda a, b, size: np.testing.assert_allclose(a, b, rtol=0, atol=4e-15 * size),
        found,
        expected,
        scale,
    )


def test_what_was_computed_by_tiles_is_derived_at_once(room):
    """Their products would be made anew; those of patches are cheap."""

    def slope(images, kernel):
        return jax.grad(lambda kernel: convolve_and_pool(images, kernel)[0].sum())(kernel)

    for inputs in (FEW, MANY):
        room(inputs)
        assert loops(slope, *arguments(inputs)) == (inputs == FEW)


def test_images_that_do_not_change_cost_no_product_of_their_changes(room):
    """In forward mode: one product of the value and one of the kernel's change."""
    room(FEW)
    images, kernel = arguments(FEW)
    function = jax.jit(lambda k: jax.jvp(lambda k: convolve_and_pool(images, k)[0], (k,), (k,)))
    assert function.lower(kernel).as_text().count("dot_general") == 2


@pytest.mark.parametrize("inputs", [FEW, MANY])
def test_no_loop_over_rows_of_several_devices(inputs, room):
    room(inputs)
    given, function = arguments(inputs), jax.jit(convolve_and_pool)
    assert "stablehlo.while" in function.lower(*given).as_text()
    with spread_batches(True):  # also of a function that has been traced before
        assert "stablehlo.while" not in function.lower(*given).as_text()


def test_moments_of_the_first_images_are_taken_at_once(room):
    room(MANY)
    given = arguments(MANY)
    function = functools.partial(convolve_and_pool, reference=3)
    assert not loops(function, *given)
    pooled, by = function(*given)
    expected = _at_once(*given), _at_once(given[0][:3], given[1])
    np.testing.assert_array_equal(pooled, expected[0][0])
    np.testing.assert_allclose(by.variance, expected[1][1].variance, rtol=1e-15)  # one order


def test_a_variance_loses_no_digits_to_a_large_mean(room):
    """One at a mean of a million: the difference of two sums of squares would keep four digits."""
    room(FEW)
    images, kernel = arguments(FEW)
    images, kernel = images + 1e6, jnp.zeros_like(kernel).at[1, 1, 0].set(1.0)
    found, expected = convolve_and_pool(images, kernel)[1], images[..., 0]
    np.testing.assert_allclose(found.mean, np.mean(expected), rtol=1e-15)  # a few roundings
    # Entries less a mean of a million are off by 1e-10 each, and average out.
    np.testing.assert_allclose(found.variance, np.var(expected - 1e6), rtol=2e-11)


@pytest.mark.parametrize(
    ("batch", "together"),
    [(8, 8), (9, 1), (12, 2), (15, 1), (16, 2), (3001, 1)],
)
def test_groups_are_of_one_size(batch, together, room):
    """At most two, where there are more than four times as many."""
    room(MANY)
    assert _together(jnp.zeros((batch, 5, 4, MANY)), 4) == together


def test_where_no_number_divides_all_are_taken_at_once(room):
    """Groups of one image, where twenty fit, would wait for each other more than for memory."""
    room(MANY, 20)
    together = {n: _together(jnp.zeros((n, 5, 4, MANY)), 4) for n in (80, 81, 83, 85, 100)}
    assert together == {80: 80, 81: 9, 83: 83, 85: 17, 100: 20}
