"""The state of the online optimisers: sizes, skipped steps, types, programs, storage, chains."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from trajectories import assert_near, gradients, make_loss, make_params, rates_like, run

from mirrax.online import OnlineState, online_adagrad, online_sgd


@pytest.mark.parametrize("per", ["element", "leaf"])
def test_rates_may_be_a_prefix(per):
    params = make_params()
    state = online_sgd({"dense": 0.5, "scales": [0.25]}, 1e-3, per=per).init(params)
    shapes = jax.tree.map(lambda x: x.shape if per == "element" else (), params)
    assert jax.tree.map(jnp.shape, state.rates) == shapes
    assert np.all(state.rates["dense"]["weight"] == 0.5)
    assert np.all(state.rates["dense"]["bias"] == 0.5)
    assert np.all(state.rates["scales"][0] == 0.25)


def test_the_state_is_two_copies_and_scalars():
    params = make_params()
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    for per, rates in (("element", size), ("leaf", 3), ("all", 1)):
        state = online_sgd(0.1, 1e-3, per=per).init(params)
        assert isinstance(state, OnlineState)
        leaves = jax.tree.leaves(state)
        assert all(isinstance(leaf, jax.Array) for leaf in leaves)
        assert sum(leaf.size for leaf in leaves) == 2 + rates + size


# what is not finite


def broken(kind, grads):
    """The gradient with one bad entry."""
    bad = {"nan": jnp.nan, "inf": -jnp.inf, "large": 1e160}[kind]
    return {**grads, "scales": [grads["scales"][0].at[1].set(bad)]}


def same_bits(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert a.dtype == b.dtype and np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.mark.parametrize("per", ["element", "leaf", "all"])
@pytest.mark.parametrize("optimistic", [False, True])
def test_what_is_not_finite_is_no_step(per, optimistic):
    """Bad gradients at any place, the first call too, leave no trace but their number."""
    params, loss = make_params(), make_loss()
    optimiser = online_sgd(0.1, 1e-3, per=per, optimistic=optimistic)
    update, gradient = jax.jit(optimiser.update), jax.jit(jax.grad(loss))
    points, _, plain = run(optimiser, params, loss, 4)
    for kind in ("nan", "inf", "large"):
        state, here = optimiser.init(params), params
        for bad in (True, False, False, True, True, False, False):
            grads = gradient(here)
            updates, following = update(broken(kind, grads) if bad else grads, state, here)
            if bad:
                assert all(not np.any(leaf) for leaf in jax.tree.leaves(updates))
                same_bits(following._replace(skipped=state.skipped), state)
                assert following.skipped == state.skipped + 1
            here, state = optax.apply_updates(here, updates), following
        jax.tree.map(lambda a, b: assert_near(a, b[-1]), here, points)
        assert (int(state.count), int(state.skipped)) == (4, 3)
        jax.tree.map(assert_near, state.rates, plain.rates)


@pytest.mark.parametrize("place", [0, 777_777, 999_999])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_one_bad_entry_of_a_million_is_found(place, bad):
    optimiser = online_sgd(0.1, 1e-3)
    params = {"w": jnp.ones((1000, 1000), jnp.float32)}
    grads = {"w": params["w"].ravel().at[place].set(bad).reshape(1000, 1000)}
    updates, state = jax.jit(optimiser.update)(grads, optimiser.init(params), params)
    assert state.skipped == 1 and not np.any(updates["w"]) and not np.any(state.previous["w"])


@pytest.mark.parametrize("per", ["element", "leaf", "all"])
def test_products_that_overflow_over_leaves_are_no_step(per):
    """Each leaf's squared norm is a number; sums of products over both would be `inf - inf`."""
    optimiser = online_sgd(0.1, 1e-3, per=per, optimistic=True)
    params = {"a": jnp.ones(1, jnp.float32), "b": jnp.ones(1, jnp.float32)}
    large, state = jnp.float32(1.5e19), optimiser.init(params)
    for sign in (1, -1, 1):
        grads = {"a": params["a"] * large * sign, "b": -params["b"] * large}
        updates, state = jax.jit(optimiser.update)(grads, state, params)
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(updates))
    assert state.skipped == 3
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.rates))


@pytest.mark.parametrize("clipping", ["greedy", "lazy"])
def test_a_rate_that_overflows_stays_a_number(clipping):
    optimiser = online_sgd(0.1, 1e300, clipping=clipping, lower=-jnp.inf)
    params = jnp.ones(2)
    state = optimiser.init(params)
    for grads in ([1e5, 1e5], [1e5, -1e5], [0.0, 0.0]):
        updates, state = optimiser.update(jnp.array(grads), state, params)
    largest = jnp.finfo(jnp.float64).max
    assert state.rates.tolist() == [largest, -largest] and not jnp.any(updates)
    assert state.skipped == 0


# types, programs, storage


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("per", ["element", "all"])
def test_half_precision_keeps_full_rates(dtype, per):
    """Increments of a rate are far below what half precision can add to it."""
    params = jax.tree.map(lambda x: x.astype(dtype), make_params())
    optimiser = online_sgd(0.1, 1e-5, per=per, optimistic=True)
    state = optimiser.init(params)
    grads = [
        jax.tree.map(lambda x, s=s: (s * x).astype(dtype), make_params()) for s in (1, 1.1, 1.2)
    ]
    for g in grads:
        updates, state = optimiser.update(g, state, params)
    assert {leaf.dtype.name for leaf in jax.tree.leaves((updates, state.previous))} == {dtype}
    assert {leaf.dtype.name for leaf in jax.tree.leaves(state.rates)} == {"float32"}
    a, b, c = (jax.tree.map(lambda x: x.astype(jnp.float64), g) for g in grads)
    moved = jax.tree.map(lambda a, b, c: 1e-5 * (a * b + b * c + c * c - a * a), a, b, c)
    if per == "all":
        moved = sum(jnp.sum(leaf) for leaf in jax.tree.leaves(moved))
    # An increment of 1e-5 to a rate of 0.1 is known to 1e-8 in float32.
    jax.tree.map(
        lambda w, m: np.testing.assert_allclose(np.float64(w) - 0.1, m, rtol=0, atol=3e-8),
        state.rates,
        moved,
    )


def test_hints_are_taken_back_exactly_where_gradients_are_finer_than_parameters():
    """Gradients in float32 of bfloat16 parameters are read as they will be remembered."""
    params, grads = jnp.ones(1, jnp.bfloat16), jnp.full(1, 1.001, jnp.float32)
    optimiser = online_sgd(0.5, 1.0, optimistic=True)
    state = optimiser.init(params)
    for step in range(20):
        updates, state = optimiser.update(grads, state, params)
        assert state.rates[0] == 0.5 + step
    assert updates.dtype == jnp.float32


def test_leaves_of_several_types_and_sizes():
    params = {
        "half": jnp.ones(2, jnp.bfloat16),
        "single": jnp.ones(3, jnp.float32),
        "double": jnp.ones((2, 2)),
        "empty": jnp.ones((0, 3)),
        "scalar": jnp.ones(()),
    }
    # The meta rate is a float32: a rate of 0.1 and ten of it are known to 5e-9 (found: 4.3e-9).
    known = 1e-8
    for per in ("element", "leaf", "all"):
        optimiser = online_sgd(0.1, jnp.float32(1e-3), per=per)
        state = optimiser.init(params)
        for _ in range(2):
            updates, state = optimiser.update(params, state, params)
        assert jax.tree.map(lambda x: x.dtype, updates) == jax.tree.map(lambda x: x.dtype, params)
        assert jax.tree.structure(updates) == jax.tree.structure(params)
        if per == "all":
            np.testing.assert_allclose(state.rates, 0.1 + 1e-3 * 10, rtol=known)
        else:
            size = 4 if per == "leaf" else 1
            np.testing.assert_allclose(state.rates["double"], 0.1 + 1e-3 * size, rtol=known)


@pytest.mark.parametrize("optimistic", [False, True])
def test_one_program_serves_every_step(optimistic):
    optimiser, params = online_sgd(0.1, 1e-3, optimistic=optimistic), make_params()
    traces = []

    @jax.jit
    def step(grads, state):
        traces.append(1)
        return optimiser.update(grads, state)

    state = optimiser.init(params)
    for bad in (True, False, False, True, False):
        _, state = step(broken("nan", params) if bad else params, state)
    assert len(traces) == 1 and state.count == 3


def test_states_keep_their_rates_through_numpy_and_jit():
    params, loss = make_params(), make_loss()
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), online_sgd(0.1, 1e-3, optimistic=True))
    _, _, state = run(optimiser, params, loss, 5)
    leaves, structure = jax.tree.flatten(state)
    stored = [np.asarray(leaf) for leaf in leaves]  # what any checkpoint keeps
    restored = jax.tree.unflatten(structure, stored)
    grads = jax.grad(loss)(params)
    update = jax.jit(optimiser.update)
    same_bits(update(grads, restored, params), update(grads, state, params))
    assert jax.tree.structure(jax.eval_shape(optimiser.init, params)) == structure


def test_donated_buffers_are_the_states_own():
    params, rates = make_params(), rates_like("element", make_params())
    optimiser = online_sgd(rates, 1e-3)

    def step(state, params):
        updates, state = optimiser.update(params, state, params)
        return state, optax.apply_updates(params, updates)

    step = jax.jit(step, donate_argnums=(0, 1))
    state = optimiser.init(params)
    for _ in range(2):
        state, params = step(state, params)
    optimiser.init(make_params())  # the rates given were not deleted


def test_a_step_copies_nothing():
    """Donated parameters and state are overwritten in place, so the step needs no other memory."""
    params = {"w": jnp.ones((256, 256), jnp.float32)}
    for optimistic in (False, True):
        optimiser = online_sgd(0.1, 1e-3, optimistic=optimistic)

        def step(params, state, grads, optimiser=optimiser):
            updates, state = optimiser.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        compiled = jax.jit(step, donate_argnums=(0, 1))
        plan = compiled.lower(params, optimiser.init(params), params).compile().memory_analysis()
        assert plan.temp_size_in_bytes < params["w"].nbytes / 2


def test_states_lie_where_the_parameters_do():
    mesh = jax.make_mesh((1,), ("devices",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("devices"))
    params = jax.device_put(jnp.ones(4), sharding)
    for rates in (0.1, jnp.full(4, 0.1)):
        state = online_sgd(rates, 1e-3).init(params)
        assert state.rates.sharding == sharding and state.previous.sharding == sharding


def test_vmap_over_rates_and_meta_rates():
    """Traced hyperparameters: a sweep is one program."""
    params, loss = make_params(), make_loss()

    def last(rate, beta):
        return run(online_sgd(rate, beta, per="all"), params, loss, 5)[2].rates

    rates, betas = jnp.array([0.05, 0.1]), jnp.array([1e-3, 2e-3])
    together = jax.jit(jax.vmap(last))(rates, betas)
    assert_near(together, [last(r, b) for r, b in zip(rates, betas, strict=True)])


# in chains


def test_the_hypergradient_sees_what_comes_in():
    """Weight decay before it belongs to the loss; a schedule after it scales the step alone."""
    params, loss = make_params(), make_loss()
    plain = online_sgd(0.1, 1e-3, optimistic=True)

    def with_decay(point):
        return loss(point) + 0.15 * sum(jnp.sum(x**2) for x in jax.tree.leaves(point))

    decayed = optax.chain(optax.add_decayed_weights(0.3), plain)
    left, right = run(decayed, params, loss, 20), run(plain, params, with_decay, 20)
    jax.tree.map(assert_near, left[:2], right[:2])

    scaled = optax.chain(plain, optax.scale(0.5))
    points, rates, _ = run(scaled, params, loss, 20)
    g = gradients(loss, points)
    steps = jax.tree.map(lambda w, g: -0.5 * w * g[:-1], rates, g)
    jax.tree.map(lambda x, s: assert_near(np.diff(x, axis=0), s), points, steps)
    second = jax.tree.map(lambda g: 0.1 + 1e-3 * (g[1] * (g[0] + g[1]) - g[0] ** 2), g)
    jax.tree.map(lambda w, s: assert_near(w[1], s), rates, second)


def test_masked_and_absent_parts():
    params, loss = make_params(), make_loss()
    alone = run(online_sgd(0.1, 1e-3), {"dense": params["dense"]}, part_of(loss, params), 5)
    mask = {"dense": True, "scales": [False]}
    for rates in (0.1, {"dense": 0.1, "scales": [0.3]}):
        masked = optax.chain(
            optax.masked(online_sgd(rates, 1e-3), mask),
            optax.masked(optax.set_to_zero(), {"dense": False, "scales": [True]}),
        )
        found = run(masked, params, loss, 5)[0]
        jax.tree.map(assert_near, found["dense"], alone[0]["dense"])
    absent = {"dense": params["dense"], "scales": None}
    optimiser = online_sgd({"dense": 0.1, "scales": None}, 1e-3)
    updates, state = optimiser.update(absent, optimiser.init(absent))
    assert updates["scales"] is None and state.rates["scales"] is None
    assert len(jax.tree.leaves(state)) == 6


def part_of(loss, params):
    return lambda point: loss({**params, **point})


def test_multi_transform_gives_each_part_its_own():
    params, loss = make_params(), make_loss()
    kinds = {
        "slow": online_sgd(0.05, 1e-3, per="all"),
        "fast": online_adagrad(4.0, 1e-3),
    }
    labels = {"dense": "slow", "scales": "fast"}
    _, state, _ = step_once(optax.multi_transform(kinds, labels), params, loss)
    found = dict(optax.tree_utils.tree_get_all_with_path(state, "rates"))
    assert sorted(len(jax.tree.leaves(rates)) for rates in found.values()) == [1, 1]
    g = jax.grad(loss)(params)
    updates = step_once(optax.multi_transform(kinds, labels), params, loss)[0]
    jax.tree.map(lambda u, g: assert_near(u, -0.05 * g), updates["dense"], g["dense"])
    jax.tree.map(lambda u, g: assert_near(u, -g / 2), updates["scales"], g["scales"])


def step_once(optimiser, params, loss):
    updates, state = optimiser.update(jax.grad(loss)(params), optimiser.init(params), params)
    return updates, state, params


def test_injected_hyperparameters():
    with jax.numpy_dtype_promotion("standard"):  # optax mixes types itself
        make = optax.inject_hyperparams(
            online_sgd, static_args=("optimistic", "lower", "upper", "learning_rate")
        )
        params, loss = make_params(), make_loss()
        left = run(make(0.1, meta_rate=1e-3), params, loss, 5)
        right = run(online_sgd(0.1, 1e-3), params, loss, 5)
        jax.tree.map(assert_near, left[0], right[0])
        assert set(left[2].hyperparams) == {"meta_rate"}
