"""What users put around an optimiser: schedules, clipping, decay, masks, accumulation, guards."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from deployed import GEOMETRIES, KINDS, assert_close, assert_same_bits, make_loss, make_params, run

from mirrax.deploy import averaged, to_optax
from mirrax.geometry import Diagonal, Euclidean, NegativeEntropy


@pytest.fixture(autouse=True)
def ordinary_promotion():
    """Optax itself mixes types in its schedules and accumulators."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def test_euclidean_is_sgd_in_a_whole_chain():
    schedule = optax.warmup_cosine_decay_schedule(0.0, 0.3, 5, 40)

    def chain(last):
        return optax.chain(
            optax.clip_by_global_norm(0.2), optax.add_decayed_weights(1e-2), last(schedule)
        )

    ours = run(chain(lambda rate: to_optax(Euclidean(), rate)), make_params(), make_loss(), 40)
    theirs = run(chain(optax.sgd), make_params(), make_loss(), 40)
    assert_close(ours[2], theirs[2], 1e-12)


@pytest.mark.parametrize("name", KINDS)
def test_clipping_and_decay_before_change_the_gradient_only(name):
    geometry, params = GEOMETRIES[name], make_params()
    loss, plain = make_loss(), to_optax(geometry, 0.1)
    decayed = optax.chain(optax.add_decayed_weights(0.3), plain)

    def with_decay(point):
        return loss(point) + 0.15 * sum(jnp.sum(x**2) for x in jax.tree.leaves(point))

    assert_close(run(decayed, params, loss, 30)[2], run(plain, params, with_decay, 30)[2], 1e-12)
    clipped = optax.chain(optax.clip_by_global_norm(1e9), plain)
    assert_close(run(clipped, params, loss, 30)[2], run(plain, params, loss, 30)[2], 1e-12)


@pytest.mark.parametrize("name", KINDS)
def test_decay_after_the_step_is_seen(name):
    """Decoupled decay moves the parameters, so the next step starts from where they are."""
    geometry, params, loss = GEOMETRIES[name], make_params(), make_loss()
    optimiser = optax.chain(to_optax(geometry, 0.1), optax.add_decayed_weights(-0.05))
    found = run(optimiser, params, loss, 10)[2]

    def step(point, _):
        grads = jax.grad(loss)(point)
        dual = jax.tree.map(lambda z, g: z - 0.1 * g, geometry.to_dual(point), grads)
        moved = geometry.to_primal(dual)
        decayed = jax.tree.map(lambda new, move: new - 0.05 * move, moved, point)
        return decayed, decayed

    assert_close(found, jax.lax.scan(step, params, None, length=10)[1], 1e-11)


@pytest.mark.parametrize("name", KINDS)
def test_multi_steps_accumulates(name):
    params, loss = make_params(), make_loss()
    many = optax.MultiSteps(to_optax(GEOMETRIES[name], 0.1), every_k_schedule=4)
    state = many.init(params)
    update, here = jax.jit(many.update), params
    for step in range(8):
        updates, state = update(jax.grad(loss)(here), state, here)
        moves = any(bool(jnp.any(leaf != 0)) for leaf in jax.tree.leaves(updates))
        assert moves == (step % 4 == 3)
        here = optax.apply_updates(here, updates)
    # MultiSteps accumulates in float32.
    assert_close(here, run(to_optax(GEOMETRIES[name], 0.1), params, loss, 2)[0], 1e-7)


@pytest.mark.parametrize("name", KINDS)
def test_apply_if_finite_skips_a_broken_gradient(name):
    params, loss = make_params(), make_loss()
    guarded = optax.apply_if_finite(to_optax(GEOMETRIES[name], 0.1, momentum=0.5), 3)
    update, state, here = jax.jit(guarded.update), guarded.init(params), params
    for step in range(6):
        grads = jax.grad(loss)(here)
        if step in (1, 4):
            grads = jax.tree.map(lambda g: g * jnp.nan, grads)
        updates, state = update(grads, state, here)
        here = optax.apply_updates(here, updates)
    plain = run(to_optax(GEOMETRIES[name], 0.1, momentum=0.5), params, loss, 4)[0]
    assert_close(here, plain, 1e-12)


def test_multi_transform_gives_each_part_its_own():
    params, loss = make_params(), make_loss()
    geometry = {"dense_0": GEOMETRIES["diagonal"].log_diagonal["dense_0"]}
    labels = {"dense_0": "learned", "mixture": "entropy"}
    optimiser = optax.multi_transform(
        {
            "learned": to_optax(Diagonal(geometry), 0.1),
            "entropy": to_optax(NegativeEntropy(), 0.2),
        },
        labels,
    )
    found = run(optimiser, params, loss, 30)[2]

    def part(key, rest):
        return lambda point: loss({key: point[key], rest: params[rest]})

    for key, rest, alone in (
        ("dense_0", "mixture", to_optax(Diagonal(geometry), 0.1)),
        ("mixture", "dense_0", to_optax(NegativeEntropy(), 0.2)),
    ):
        # The loss is a sum over leaves, so either part runs as if the other were not there.
        expected = run(alone, {key: params[key]}, part(key, rest), 30)[2]
        assert_close(found[key], expected[key], 1e-12)


def test_masked_freezes_a_part():
    params, loss = make_params(), make_loss()
    mask = {"dense_0": False, "mixture": True}
    optimiser = optax.chain(
        to_optax(GEOMETRIES["pnorm"], 0.1), optax.masked(optax.set_to_zero(), mask)
    )
    last = run(optimiser, params, loss, 20)[0]
    assert_same_bits(last["mixture"], params["mixture"])
    assert float(loss(last)) < float(loss(params))


def test_injected_hyperparameters():
    params, loss = make_params(), make_loss()
    schedule = optax.linear_schedule(0.2, 0.05, 20)
    make = optax.inject_hyperparams(to_optax, static_args=("source", "nesterov"))
    for name in ("diagonal", "kronecker", "pnorm"):
        injected = make(GEOMETRIES[name], learning_rate=schedule, momentum=0.9, nesterov=True)
        plain = to_optax(GEOMETRIES[name], schedule, momentum=0.9, nesterov=True)
        left, state, _ = run(injected, params, loss, 20)
        assert_close(left, run(plain, params, loss, 20)[0], 1e-12)
        assert set(state.hyperparams) == {"learning_rate", "momentum"}


def test_an_injected_decay_with_a_mask():
    params, loss = make_params(), make_loss()
    options = {"decay_mask": lambda tree: jax.tree.map(lambda x: x.ndim > 1, tree)}
    make = optax.inject_hyperparams(to_optax, static_args=("source", "decay_mask"))
    injected = make(GEOMETRIES["diagonal"], learning_rate=0.1, weight_decay=0.3, **options)
    left, state, _ = run(injected, params, loss, 5)
    plain = to_optax(GEOMETRIES["diagonal"], 0.1, weight_decay=0.3, **options)
    assert_close(left, run(plain, params, loss, 5)[0], 1e-12)
    assert set(state.hyperparams) >= {"learning_rate", "weight_decay"}


def test_an_equinox_model():
    model = eqx.nn.MLP(3, 2, 4, 1, key=jax.random.key(0), dtype=jnp.float64)
    params, static = eqx.partition(model, eqx.is_inexact_array)
    rng = np.random.default_rng(0)
    inputs, targets = jnp.asarray(rng.normal(size=(8, 3))), jnp.asarray(rng.normal(size=(8, 2)))

    def loss(point):
        return jnp.mean((jax.vmap(eqx.combine(point, static))(inputs) - targets) ** 2)

    by_name = {
        "layers": [
            {"weight": jnp.full(layer.weight.shape, 0.3), "bias": jnp.full(layer.bias.shape, -0.2)}
            for layer in model.layers
        ]
    }
    optimiser = to_optax(Diagonal(by_name), 0.1)
    last, state, _ = run(optimiser, params, loss, 30)
    assert float(loss(last)) < float(loss(params))
    assert jax.tree.structure(state.rates) == jax.tree.structure(params)
    np.testing.assert_allclose(state.rates.layers[0].weight, np.exp(-0.6))


@pytest.mark.parametrize("name", KINDS)
def test_extra_arguments_pass(name):
    params = make_params()
    for momentum in (None, 0.9):
        chained = optax.chain(to_optax(GEOMETRIES[name], 0.1, momentum=momentum), optax.scale(1.0))
        chained.update(params, chained.init(params), params, value=jnp.zeros(()), anything=1)


def test_lookahead_moves_the_parameters_back():
    """A wrapper that replaces the parameters itself: the dual follows."""
    params, loss = make_params(), make_loss()
    optimiser = to_optax(GEOMETRIES["blockwise"], 0.1)
    slow, fast, state = params, params, optimiser.init(params)
    for step in range(12):
        updates, state = optimiser.update(jax.grad(loss)(fast), state, fast)
        fast = optax.apply_updates(fast, updates)
        if step % 4 == 3:
            slow = jax.tree.map(lambda s, f: s + 0.5 * (f - s), slow, fast)
            fast = slow
            # As an optimiser that begins there.
            grads, anew = jax.grad(loss)(fast), optimiser.init(fast)
            found = optimiser.update(grads, state, fast)[0]
            assert_close(found, optimiser.update(grads, anew, fast)[0], 1e-12)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("wrap", [lambda optimiser: optimiser, averaged])
def test_what_of_a_state_is_like_parameters(name, wrap):
    """As those ask who lay a state on devices, leaf by leaf, as its parameters lie."""
    params = make_params()
    optimiser = wrap(to_optax(GEOMETRIES[name], 0.1, momentum=0.9))
    state = optimiser.init(params)
    seen = optax.tree_map_params(optimiser, lambda leaf: -jnp.ones(()), state)
    assert jax.tree.structure(seen) == jax.tree.structure(state)
    told = [leaf for leaf in jax.tree.leaves(seen) if leaf.shape == () and leaf == -1]
    trees = optax.tree_map_params(
        optimiser, lambda leaf: 1, state, transform_non_params=lambda leaf: 0
    )
    assert len(told) == sum(jax.tree.leaves(trees)) >= len(jax.tree.leaves(params))
    assert len(told) % len(jax.tree.leaves(params)) == 0


def test_sharded_parameters_keep_their_sharding():
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    params = {"w": jax.device_put(jnp.ones((4, 2)), sharding)}
    optimiser = to_optax(Diagonal.like(params), 0.1)
    state = jax.jit(optimiser.init)(params)
    updates, state = jax.jit(optimiser.update)(params, state, params)
    assert updates["w"].sharding.is_equivalent_to(sharding, 2)
