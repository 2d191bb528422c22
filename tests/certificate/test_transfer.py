"""Theorem 4.1, corrected for one diagonal: it holds against an adversarial choice of geometry."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from mirrax.certificate import transfer_bound
from mirrax.geometry import Diagonal, MaxOfDiagonals

OPTIONS = {"rate": 0.5, "steps": 10, "lipschitz": 2.0, "radius": 1.0, "size": 2.0}


def test_the_terms():
    displacements = jnp.array([[0.6, 0.0], [0.0, 0.8], [0.6, 0.8]])
    geometry = Diagonal(jnp.log(jnp.array([1.0, 1.5])))
    bound = transfer_bound(geometry, displacements, failure=0.1, **OPTIONS)
    divergences = np.array([0.36, 2.25 * 0.64, 0.36 + 2.25 * 0.64]) / 2
    assert bound.divergence == pytest.approx(divergences.mean() / 0.5)
    assert bound.complexity == pytest.approx(4 / np.sqrt(3) / 0.5)
    assert bound.confidence == pytest.approx(2 * np.sqrt(np.log(10) / 6) / 0.5)
    assert bound.steps_term == pytest.approx(0.5 * 10 * 4 / 2)
    parts = (bound.divergence, bound.complexity, bound.confidence, bound.steps_term)
    assert bound.value == pytest.approx(sum(parts))


@pytest.mark.parametrize("count", [5, 50])
def test_it_holds_for_the_worst_geometry_chosen_on_the_tasks(count):
    """The largest gap `E D_m − mean D_m` over `‖m‖₂ ≤ C` is at the most misleading coordinate."""
    rng, size, trials, failure = np.random.default_rng(3), 2.0, 2000, 0.1
    # One rare, large displacement a coordinate: the hardest family of this kind.
    axis = rng.integers(0, 6, (trials, count))
    lengths = rng.random((trials, count)) < 0.3
    squares = np.eye(6)[axis] * lengths[..., None]
    expected = np.full(6, 0.3 / 6)
    gap = size**2 / 2 * np.maximum(0, (expected - squares.mean(1)).max(1))
    displacements = jnp.asarray(np.sqrt(squares[0]))
    bound = transfer_bound(
        Diagonal.like(jnp.zeros(6), 0.5),
        displacements,
        rate=1.0,
        steps=1,
        lipschitz=1.0,
        radius=1.0,
        size=size,
        failure=failure,
    )
    assert np.mean(gap > bound.complexity + bound.confidence) <= failure


def test_it_scales_like_the_divergence():
    displacements = jnp.array([[0.6, 0.0], [0.0, 0.8]])
    one = transfer_bound(Diagonal.like(jnp.zeros(2)), displacements, **OPTIONS)
    more = transfer_bound(
        Diagonal.like(jnp.zeros(2), 3.0),
        5 * displacements,
        **(OPTIONS | {"radius": 5.0, "size": 6.0}),
    )
    for term in ("divergence", "complexity", "confidence"):
        assert getattr(more, term) == pytest.approx(225 * getattr(one, term))


@pytest.mark.parametrize(
    ("geometry", "options", "message"),
    [
        (MaxOfDiagonals(jnp.zeros((2, 2))), {}, "got MaxOfDiagonals.*Theorem 4.1"),
        (Diagonal.like(jnp.zeros(2), 3.0), {}, r"\.size: 2\.0 is exceeded by a geometry"),
        (Diagonal.like(jnp.zeros(2)), {"radius": 0.5}, r"\.radius: 0\.5 is exceeded"),
        (Diagonal.like(jnp.zeros(2)), {"rate": 0.0}, r"transfer_bound\.rate"),
        (Diagonal.like(jnp.zeros(2)), {"failure": 1.0}, r"transfer_bound\.failure"),
    ],
)
def test_misuse_is_refused(geometry, options, message):
    with pytest.raises(ValueError, match=message):
        transfer_bound(geometry, jnp.array([[0.6, 0.0], [0.0, 0.8]]), **(OPTIONS | options))


def test_a_sum_does_not_bound_a_maximum_under_every_sign():
    """S000 eq. 15, `N = 2`, `C = 1`: false for the signs (+, +, −), right on the average of all.

    The tasks are `Δ² = (1, 0), (0, 1), (1, 1)`. By hand: `m_1² = (1, 0)`, `m_2² = (0, 1)` make
    `1 + 1 − 1 = 1` of the maxima, while the sum `Σ_j ⟨m_j², (1, 0) + (0, 1) − (1, 1)⟩` is zero for
    all. A grid over both weights looks for the suprema.
    """
    squares = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    ticks = np.linspace(0, 1, 11)
    weights = np.array([(a, b) for a in ticks for b in ticks if a + b <= 1 + 1e-12])
    single = weights @ squares.T
    larger = np.maximum(single[:, None], single[None])
    signs = np.array(list(itertools.product([1, -1], repeat=3)))
    maxima = (larger @ signs.T).max((0, 1))
    sums = 2 * (single @ signs.T).max(0)
    at = signs.tolist().index([1, 1, -1])
    # Exactly: the suprema are taken at corners, whose weights are 0 and 1.
    assert (maxima[at], sums[at]) == (1, 0)
    assert (maxima.mean(), sums.mean()) == (1, 1.5)
