"""Cross-entropy and accuracy against closed forms and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mirrax.models import accuracy, cross_entropy

LOGITS = np.random.default_rng(0).standard_normal((6, 4)) * 3
LABELS = jnp.array([0, 3, 1, 2, 2, 0])


def test_cross_entropy_is_the_mean_of_negative_log_probabilities():
    probabilities = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
    expected = -np.mean(np.log(probabilities[np.arange(6), np.asarray(LABELS)]))
    np.testing.assert_allclose(cross_entropy(jnp.asarray(LOGITS), LABELS), expected, rtol=1e-14)


def test_gradient_is_probabilities_less_labels():
    logits = jnp.asarray(LOGITS)
    expected = (jax.nn.softmax(logits) - jax.nn.one_hot(LABELS, 4)) / 6
    np.testing.assert_allclose(
        jax.grad(cross_entropy)(logits, LABELS), expected, rtol=0, atol=1e-16
    )


def test_second_derivative_is_the_softmax_covariance():
    logits = jnp.asarray(LOGITS[:1])
    p = jax.nn.softmax(logits[0])
    hessian = jax.hessian(cross_entropy)(logits, LABELS[:1])[0, :, 0, :]
    np.testing.assert_allclose(hessian, jnp.diag(p) - jnp.outer(p, p), rtol=0, atol=1e-16)


def test_large_logits_stay_finite():
    logits = jnp.array([[1e4, 0.0], [0.0, -1e4]])
    labels = jnp.array([1, 0])
    assert cross_entropy(logits, labels) == 5e3
    assert np.isfinite(jax.grad(cross_entropy)(logits, labels)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_results_have_the_logits_type(dtype):
    logits = jnp.asarray(LOGITS, dtype)
    assert cross_entropy(logits, LABELS).dtype == dtype
    assert accuracy(logits, LABELS).dtype == dtype


def test_accuracy_counts_the_largest():
    best = jnp.asarray(LOGITS.argmax(1))
    assert accuracy(jnp.asarray(LOGITS), best) == 1.0
    assert accuracy(jnp.asarray(LOGITS), best.at[:3].set((best[:3] + 1) % 4)) == 0.5
    assert accuracy(jnp.zeros((2, 4)), jnp.array([0, 1])) == 0.5


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.uint32, np.int64])
def test_labels_of_few_bits_are_not_those_of_other_classes(kind):
    logits = jnp.zeros((2, 300)).at[:, jnp.array([256, 7])].set(jnp.eye(2))
    assert accuracy(logits, jnp.asarray([0, 7], kind)) == 0.5
    assert accuracy(logits, jnp.asarray([-1, 7]).astype(kind)) == 0.5


def test_labels_of_many_bits_are_not_those_of_other_classes():
    assert accuracy(jnp.eye(4)[:2], jnp.asarray([2**32, 1])) == 0.5


@pytest.mark.parametrize("score", [cross_entropy, accuracy])
def test_shapes_and_types_that_do_not_fit_are_named(score):
    with pytest.raises(ValueError, match=rf"{score.__name__}: expected .*\(6, 4\) and \(5,\)"):
        score(jnp.asarray(LOGITS), LABELS[:5])
    with pytest.raises(ValueError, match=f"{score.__name__}.labels: .*float64"):
        score(jnp.asarray(LOGITS), LABELS.astype(float))
