"""`to_optax` makes mirror steps: the library's own trajectories, optax's own momentum."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from deployed import (
    GEOMETRIES,
    KINDS,
    SINGLE,
    STEPPED,
    assert_close,
    assert_same_bits,
    cast,
    check_frozen_stay,
    make_loss,
    make_params,
    run,
)
from jax.experimental import checkify

from mirrax._errors import ArtifactError
from mirrax.deploy import Artifact, load, save, to_optax
from mirrax.geometry import (
    Blockwise,
    Diagonal,
    Euclidean,
    Kronecker,
    MaxOfDiagonals,
    NegativeEntropy,
    PNorm,
    Scaled,
    Transformed,
)
from mirrax.inner import MirrorDescent, Prior, Problem, Repeat, unroll
from repeats import slow

STEPS = 200


def reference(geometry, rate, loss, params, steps):
    problem = Problem(lambda point, shared, batch: loss(point), Repeat(None))
    rule, prior = MirrorDescent(rate), Prior(geometry, params)
    return jax.jit(lambda: unroll(rule, prior, problem, steps, key=jax.random.key(0)))().primal


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(name, "float64") for name in STEPPED] + [(name, "float32") for name in SINGLE],
)
def test_trajectories_are_those_of_mirror_descent(name, dtype):
    geometry, params, loss = cast(STEPPED[name], dtype), make_params(dtype), make_loss(dtype)
    points = run(to_optax(geometry, 0.1), params, loss, STEPS)[2]
    expected = reference(geometry, 0.1, loss, params, STEPS)
    tolerance = 1e-12 if dtype == "float64" else 1e-5
    assert_close(points, jax.tree.map(lambda leaf: leaf[1:], expected), tolerance)
    last = jax.tree.map(lambda leaf: leaf[-1], points)
    assert loss(last) < loss(params)


def test_schedules_count_steps_as_mirror_descent_does():
    def schedule(count):
        return 0.2 * 0.97 ** count.astype(jnp.float64)

    params, loss = make_params(), make_loss()
    for name in ("diagonal", "kronecker", "simplex"):
        points = run(to_optax(GEOMETRIES[name], schedule), params, loss, 50)[2]
        expected = reference(GEOMETRIES[name], schedule, loss, params, 50)
        assert_close(points, jax.tree.map(lambda leaf: leaf[1:], expected), 1e-12)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("name", ["euclidean", "blockwise-linear"])
def test_momentum_of_diagonal_geometries_is_sgd_with_rates(name, nesterov):
    geometry, params, loss = GEOMETRIES[name], make_params(), make_loss()
    zeros = jax.tree.map(jnp.zeros_like, params)
    # ∇ψ* is linear here, so its diagonal is its value at ones.
    rates = geometry.to_primal(jax.tree.map(jnp.ones_like, zeros))
    by_hand = optax.chain(
        optax.trace(decay=0.9, nesterov=nesterov),
        optax.stateless(lambda g, _: jax.tree.map(lambda r, x: -0.02 * (r * x), rates, g)),
    )
    ours = to_optax(geometry, 0.02, momentum=0.9, nesterov=nesterov)
    assert_close(run(ours, params, loss, 100)[2], run(by_hand, params, loss, 100)[2], 1e-12)
    if name == "euclidean":
        sgd = optax.sgd(0.02, momentum=0.9, nesterov=nesterov)
        assert_close(run(ours, params, loss, 100)[2], run(sgd, params, loss, 100)[2], 1e-12)


def test_a_quadratic_p_norm_is_linear_in_effect():
    params, loss = make_params(), make_loss()
    for momentum in (None, 0.5):
        left = run(to_optax(PNorm(2.0), 0.1, momentum=momentum), params, loss, 100)[2]
        right = run(to_optax(Euclidean(), 0.1, momentum=momentum), params, loss, 100)[2]
        assert_close(left, right, 1e-12)


def test_momentum_acts_in_the_dual():
    params, loss = make_params(), make_loss()
    ours = run(to_optax(NegativeEntropy(), 0.05, momentum=0.9), params, loss, 60)[2]

    def step(carry, _):
        dual, trace = carry
        point = jax.tree.map(jax.nn.softmax, dual)
        trace = jax.tree.map(lambda g, v: g + 0.9 * v, jax.grad(loss)(point), trace)
        dual = jax.tree.map(lambda z, v: z - 0.05 * v, dual, trace)
        return (dual, trace), jax.tree.map(jax.nn.softmax, dual)

    start = jax.tree.map(jnp.log, params), jax.tree.map(jnp.zeros_like, params)
    assert_close(ours, jax.lax.scan(step, start, None, length=60)[1], 1e-12)


def test_the_three_lines(tmp_path):
    params, geometry = make_params(), GEOMETRIES["blockwise"]
    save(tmp_path / "geometry.safetensors", geometry, rate=0.1)
    grads = jax.grad(make_loss())(params)
    optimiser = to_optax(tmp_path / "geometry.safetensors")
    state = optimiser.init(params)
    updates, state = optimiser.update(grads, state, params)
    params = optax.apply_updates(params, updates)
    dual = jax.tree.map(lambda z, g: z - 0.1 * g, geometry.to_dual(make_params()), grads)
    assert_close(params, geometry.to_primal(dual), 1e-12)
    same = to_optax(load(str(tmp_path / "geometry.safetensors")))
    assert_same_bits(same.update(grads, same.init(make_params()), make_params())[0], updates)


def test_a_tie_needs_the_dual():
    """On a ridge the parameters alone do not determine the next step; the state does."""
    geometry = MaxOfDiagonals({"w": jnp.log(jnp.array([[1.0, 2.0], [2.0, 1.0]]))})
    params = {"w": jnp.array([1.0, 1.0])}

    def loss(point):
        return jnp.sum((point["w"] - jnp.array([2.0, 1.9])) ** 2) / 2

    points = run(to_optax(geometry, 0.2), params, loss, 60)[2]
    expected = reference(geometry, 0.2, loss, params, 60)["w"]
    gaps = np.abs(np.diff(jax.vmap(geometry.component_potentials)({"w": expected}), axis=1))
    assert np.sum(gaps < 1e-9) > 5  # the run does slide along the ridge
    np.testing.assert_allclose(points["w"], expected[1:], rtol=1e-10)


@pytest.mark.parametrize(
    "name", ["simplex", slow("pnorm"), "max", slow("kronecker"), slow("scaled-blockwise")]
)
def test_moved_parameters_restart_from_where_they_are(name):
    geometry, loss = GEOMETRIES[name], make_loss()
    optimiser = to_optax(geometry, 0.1)
    update = jax.jit(optimiser.update)
    params = make_params()
    state = optimiser.init(params)
    for _ in range(3):
        updates, state = update(jax.grad(loss)(params), state, params)
        params = optax.apply_updates(params, updates)
    params = jax.tree.map(lambda x: 0.9 * jnp.flip(x, -1) + 0.02, params)
    grads = jax.grad(loss)(params)
    updates, state = update(grads, state, params)
    afresh, _ = update(grads, optimiser.init(params), params)
    assert_close(updates, afresh, 1e-12)


def test_an_edit_of_one_block_leaves_the_others_alone():
    blocks = Blockwise({"a": NegativeEntropy(), "b": NegativeEntropy()})
    optimiser = to_optax(blocks, 0.1)
    params = {"a": jnp.full(3, 1 / 3), "b": jnp.full(3, 1 / 3)}
    state = optimiser.init(params)
    grads = jax.tree.map(jnp.ones_like, params)
    updates, state = optimiser.update(grads, state, params)
    params = optax.apply_updates(params, updates)
    kept = state.dual["a"]
    params["b"] = jnp.array([0.2, 0.2, 0.6])
    _, state = optimiser.update(grads, state, params)
    np.testing.assert_allclose(state.dual["a"], kept - 0.1, rtol=1e-14)
    np.testing.assert_allclose(state.dual["b"], jnp.log(params["b"]) - 0.1, rtol=1e-14)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rounding_is_not_taken_for_an_edit(dtype):
    """An entropy far into a corner keeps log-weights that the parameters cannot represent."""
    optimiser = to_optax(NegativeEntropy(), 1.0)
    params = {"w": jnp.full(3, 1 / 3, dtype)}
    grads = {"w": jnp.array([1.0, 0.0, 0.5], dtype)}
    update = jax.jit(optimiser.update)
    state = optimiser.init(params)
    for _ in range(900):
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)  # eager: compiled apart from the update
    gaps = state.dual["w"] - state.dual["w"][1]
    np.testing.assert_allclose(gaps, [-900, 0, -450], rtol=1e-3 if dtype == "float32" else 1e-9)
    assert params["w"].dtype == dtype and bool(jnp.isfinite(params["w"]).all())


@pytest.mark.parametrize("name", ["diagonal", "kronecker", "pnorm"])
def test_vmap_over_runs(name):
    optimiser, loss = to_optax(GEOMETRIES[name], 0.1, momentum=0.5), make_loss()
    scales = jnp.array([1.0, 0.8, 1.3])
    starts = jax.tree.map(lambda x: jnp.stack([s * x for s in scales]), make_params())

    def last(params):
        state = optimiser.init(params)
        for _ in range(4):
            updates, state = optimiser.update(jax.grad(loss)(params), state, params)
            params = optax.apply_updates(params, updates)
        return params

    together = jax.jit(jax.vmap(last))(starts)
    one = jax.jit(last)
    for i in range(3):
        alone = one(jax.tree.map(lambda x, i=i: x[i], starts))
        assert_close(jax.tree.map(lambda x, i=i: x[i], together), alone, 1e-12)


@pytest.mark.parametrize("name", KINDS)
def test_state_is_arrays_and_survives_a_checkpoint(name):
    optimiser, loss = to_optax(GEOMETRIES[name], 0.1, momentum=0.9), make_loss()
    params, state, _ = run(optimiser, make_params(), loss, 5)
    leaves = jax.tree.leaves(state)
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)
    stored = [np.asarray(leaf) for leaf in leaves]  # what any checkpoint keeps
    structure = jax.tree.structure(optimiser.init(params))
    restored = jax.tree.unflatten(structure, [jnp.asarray(leaf) for leaf in stored])
    grads = jax.grad(loss)(params)
    assert_same_bits(
        optimiser.update(grads, restored, params)[0], optimiser.update(grads, state, params)[0]
    )


@pytest.mark.parametrize("name", ["euclidean", *KINDS])
def test_donated_buffers_are_the_states_own(name):
    geometry = cast(GEOMETRIES[name], jnp.float32)
    optimiser, params = to_optax(geometry, 0.1, momentum=0.9), make_params(jnp.float32)

    def step(state, params):
        updates, state = optimiser.update(params, state, params)
        return state, optax.apply_updates(params, updates)

    step = jax.jit(step, donate_argnums=(0, 1))
    state, params = step(optimiser.init(params), params)
    state, params = step(state, params)
    optimiser.init(params)
    geometry.to_dual(params)  # nothing of the geometry was deleted


def test_a_linear_step_holds_no_dual_and_a_scalar_where_rates_are_equal():
    params = make_params()
    state = to_optax(GEOMETRIES["diagonal"], 0.1).init(params)
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) == 1 + 12
    state = to_optax(Euclidean(), 0.1).init(params)
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) == 1 + 3


def test_geometry_is_not_a_constant_of_the_program():
    """Constants would be copied into the program, folded at compile time, and never sharded.

    The numbers are random: one number repeated is a short constant whatever its shape.
    """
    rng = np.random.default_rng(0)
    params = {"w": jnp.zeros((64, 64))}
    largest = MaxOfDiagonals({"w": jnp.zeros((2, 64, 64))})
    kinds = Diagonal.like(params), Kronecker.like(params), largest
    for kind in kinds:
        geometry = jax.tree.map(lambda leaf: leaf + 0.1 * rng.normal(size=leaf.shape), kind)
        optimiser = to_optax(geometry, 0.1)
        text = jax.jit(optimiser.update).lower(params, optimiser.init(params), params).as_text()
        assert len(text) < 60_000


@pytest.mark.parametrize(
    ("name", "error"), [("diagonal", 0.05), ("kronecker", 0.05), ("pnorm", 0.003)]
)
@pytest.mark.parametrize("dtype", ["bfloat16"])
def test_half_precision_parameters_keep_a_full_dual(name, error, dtype):
    """The dual is kept in 32 bits, so small steps add up that the parameters cannot show.

    A linear step keeps none, and its steps are lost where they are below half a last digit. Found:
    0.04 for either linear one, 0.0013 for the dual.
    """
    geometry, params = GEOMETRIES[name], make_params(dtype)
    points = run(to_optax(geometry, 0.1), params, make_loss(dtype), 100)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(points[0])} == {dtype}
    full = run(to_optax(geometry, 0.1), make_params(), make_loss(), 100)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=error),
        *[cast(run_[0], "float64") for run_ in (points, full)],
    )
    if name == "pnorm":
        assert {leaf.dtype.name for leaf in jax.tree.leaves(points[1].dual)} == {"float32"}


def test_mixed_precision_geometry_follows_the_parameters():
    params = make_params(jnp.float32)
    # Stored in 64 bits, as under jax_enable_x64.
    for name in ("scaled", "kronecker", "scaled-blockwise"):
        updates, _ = (optimiser := to_optax(GEOMETRIES[name], 0.1)).update(
            params, optimiser.init(params), params
        )
        assert {leaf.dtype.name for leaf in jax.tree.leaves(updates)} == {"float32"}


def test_names_matter_and_containers_do_not():
    geometry = GEOMETRIES["scaled-blockwise"]
    params, loss = make_params(), make_loss()
    expected = run(to_optax(geometry, 0.1), params, loss, 20)[0]
    tupled = {"dense_0": params["dense_0"], "mixture": tuple(params["mixture"])}

    def tupled_loss(point):
        return loss({"dense_0": point["dense_0"], "mixture": list(point["mixture"])})

    found = run(to_optax(geometry, 0.1), tupled, tupled_loss, 20)[0]
    assert isinstance(found["mixture"], tuple)
    assert_close({**found, "mixture": list(found["mixture"])}, expected, 1e-12)


def test_keys_with_slashes_find_their_block():
    blocks = Blockwise({"mlp": NegativeEntropy(), "mlp/~/linear": Euclidean()})
    params = {"mlp": {"w": jnp.full(2, 0.5)}, "mlp/~/linear": {"w": jnp.array([1.0, -1.0])}}
    optimiser = to_optax(blocks, 0.5)
    grads = jax.tree.map(jnp.ones_like, params)
    updates, _ = optimiser.update(grads, optimiser.init(params), params)
    np.testing.assert_allclose(updates["mlp/~/linear"]["w"], -0.5)
    # A rounding or two of one half.
    np.testing.assert_allclose(updates["mlp"]["w"], 0, rtol=0, atol=2e-16)


@pytest.mark.parametrize("name", ["diagonal", "max", "kronecker", "blockwise"])
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit])
def test_other_parameters_are_refused_at_init(name, wrap):
    other = make_params()
    other["dense_0"]["weight"] = jnp.zeros((5, 2))
    other["extra"] = jnp.zeros(2)
    with pytest.raises(ArtifactError) as caught:
        wrap(to_optax(GEOMETRIES[name], 0.1).init)(other)
    lines = [" ".join(line.split()) for line in str(caught.value).splitlines()]
    free = name == "blockwise"  # some of its blocks fit any parameters
    shapes = "(3, 2) (5, 2)" if free else "(3, 2) dense_0/weight (5, 2)"
    assert f"! dense_0/weight {shapes}" in lines
    assert ("! extra absent (2,)" if free else "! absent - extra (2,)") in lines
    with pytest.raises(ArtifactError, match="absent"):
        to_optax(GEOMETRIES[name], 0.1, momentum=0.9).init({"dense_0": other["dense_0"]})


def test_the_artifacts_table_is_used_even_where_the_geometry_has_none(tmp_path):
    save(tmp_path / "g", PNorm(1.5), rate=0.1, params_like=make_params())
    optimiser = to_optax(tmp_path / "g")
    optimiser.init(make_params())
    with pytest.raises(ArtifactError, match="absent"):
        optimiser.init({"w": jnp.ones(2)})


@pytest.mark.parametrize(
    "rate", [0, 0.0, -1e-3, float("nan"), float("inf"), "fast", jnp.array(-1.0)]
)
def test_learning_rates_are_checked(rate):
    with pytest.raises(ValueError, match=r"to_optax.learning_rate: expected .*got"):
        to_optax(Euclidean(), rate)


def test_other_misuse():
    with pytest.raises(ValueError, match=r"to_optax.learning_rate: a geometry has no rate"):
        to_optax(Euclidean())
    for momentum in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match=r"to_optax.momentum: expected .* got"):
            to_optax(Euclidean(), 0.1, momentum=momentum)
    with pytest.raises(ValueError, match=r"to_optax.nesterov"):
        to_optax(Euclidean(), 0.1, nesterov=True)
    with pytest.raises(ValueError, match=r"to_optax.nesterov: expected a momentum .*=0.0"):
        to_optax(Euclidean(), 0.1, momentum=0.0, nesterov=True)
    for decay in (-0.1, float("inf"), "much"):
        with pytest.raises(ValueError, match=r"to_optax.weight_decay: expected .* got"):
            to_optax(Euclidean(), 0.1, weight_decay=decay)
    with pytest.raises(ValueError, match=r"more than all of the weights, got 11.0 with"):
        to_optax(Euclidean(), 0.1, weight_decay=11.0)
    with pytest.raises(ValueError, match=r"to_optax.source: .* got dict"):
        to_optax({"w": 1.0}, 0.1)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ArtifactError, match="no such file"):
        to_optax("absent.safetensors")
    with pytest.raises(ValueError, match="'steps' of type int"):
        to_optax(Euclidean(), 0.1).init({"steps": jnp.arange(3)})
    for name in KINDS:
        optimiser = to_optax(GEOMETRIES[name], 0.1)
        with pytest.raises(ValueError, match="needs the parameters"):
            optimiser.update(make_params(), optimiser.init(make_params()))


@pytest.mark.parametrize("options", [{}, {"momentum": 0.5, "nesterov": True, "weight_decay": 0.1}])
def test_frozen_parameters_stay(options):
    """The others step, and theirs lie still, as if there were none."""
    _, state, _ = check_frozen_stay(lambda geometry: to_optax(geometry, 0.1, **options))
    if options:
        assert not np.any(state[0].trace["v"])


@pytest.mark.parametrize("name", ["kronecker", "max"])
def test_frozen_parameters_of_other_geometries_are_refused(name):
    params = make_params()
    optimiser = to_optax(GEOMETRIES[name], 0.1)
    with pytest.raises(ValueError, match="there is no gradient of 'mixture/0'; give zeros, or"):
        optimiser.update(params | {"mixture": [None]}, optimiser.init(params), params)


def test_a_schedule_that_would_take_all_of_the_weights_is_an_error():
    """The dual of an entropy would be the logarithm of a negative number."""
    params = {"w": jnp.ones(2)}
    optimiser = to_optax(
        NegativeEntropy("orthant"),
        lambda count: 1.0 + count.astype(float),
        weight_decay=jnp.asarray(0.6),
    )
    updates, state = optimiser.update(params, optimiser.init(params), params)
    expected = 0.4 * np.exp(-1.0)  # log x⁺ = log x + log 0.4 − g
    np.testing.assert_allclose(1 + updates["w"], expected)
    with pytest.raises(RuntimeError, match="would take away all of the weights or more; lower"):
        jax.block_until_ready(optimiser.update(params, state, params))


def matrices(params):
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


@pytest.mark.parametrize(
    ("form", "momentum"),
    [
        *(("rates", None), ("rates", 0.5), ("linear", None), ("blocks", 0.5), ("entropy", None)),
        *(("coordinates", None), slow("square", None), slow("power", None)),
        *(slow(form, 0.5) for form in ("linear", "entropy", "coordinates", "square", "power")),
    ],
)
def test_masked_parameters_do_not_decay(form, momentum):
    """Each as if it were alone, with its own decay: the geometry mixes none with another."""
    params = {"a": jnp.ones((2, 3)), "b": jnp.linspace(1, 2, 4)}
    logs = jax.tree.map(lambda x: jnp.linspace(0, 1, x.size).reshape(x.shape), params)
    factors = jax.tree.map(lambda x: 0.3 + x / 2, Kronecker.like(params)).factors
    makes = {
        "rates": lambda names: Diagonal({name: logs[name] for name in names}),
        "linear": lambda names: Kronecker({name: factors[name] for name in names}),
        "blocks": lambda names: Scaled(
            Blockwise({name: NegativeEntropy("orthant") for name in names}), 2.0
        ),
        "entropy": lambda names: NegativeEntropy("orthant"),
        "square": lambda names: PNorm(2.0, separable=True),
        "power": lambda names: PNorm(3.0, separable=True),
        "coordinates": lambda names: turned({name: params[name] for name in names}),
    }
    options = {"momentum": momentum, "weight_decay": 0.5}
    whole = to_optax(makes[form]("ab"), 0.1, decay_mask=matrices, **options)
    found = run(whole, params, quadratic, 5)[2]
    for name, decay in (("a", 0.5), ("b", None)):
        alone = to_optax(makes[form](name), 0.1, momentum=momentum, weight_decay=decay)
        expected = run(alone, {name: params[name]}, quadratic, 5)[2]
        assert_close({name: found[name]}, expected, 4e-15)  # a few roundings in five steps
    for mask in (matrices(params), jax.tree.map(np.bool_, matrices(params))):
        same = to_optax(makes[form]("ab"), 0.1, decay_mask=mask, **options)
        one, other = (o.update(params, o.init(params), params)[0] for o in (whole, same))
        assert_same_bits(one, other)


@pytest.mark.parametrize("kind", ["euclidean", "diagonal", "kronecker"])
def test_a_mask_divides_a_linear_block_beside_one_that_is_not(kind):
    """The dual that is kept goes where the step without a dual goes."""
    params = {"mine": {"a": jnp.ones((2, 3)), "b": jnp.linspace(1, 2, 4)}, "other": jnp.ones(2)}
    linear = {
        "euclidean": Euclidean(),
        "diagonal": Diagonal.like(params["mine"], 0.5),
        "kronecker": Kronecker.like(params["mine"], 0.5),
    }[kind]
    both = Blockwise({"mine": linear, "other": NegativeEntropy("orthant")})
    options = {"weight_decay": 0.5, "decay_mask": matrices}
    found = run(to_optax(both, 0.1, **options), params, quadratic, 5)[2]
    expected = run(to_optax(linear, 0.1, **options), params["mine"], quadratic, 5)[2]
    assert_close(found["mine"], expected, 4e-15)  # a few roundings in five steps


def turned(params):
    """Powers in coordinates that mix the rows and the columns of each matrix."""
    roles = {name: ("in", "out")[-leaf.ndim :] for name, leaf in params.items()}
    made = Transformed.like(PNorm(3.0, separable=True), params, roles)
    return eqx.tree_at(
        lambda g: g.raw_factors, made, jax.tree.map(lambda raw: raw + 0.2, made.raw_factors)
    )


def quadratic(params):
    return sum(jnp.sum((leaf - 3) ** 2) for leaf in jax.tree.leaves(params))


def test_a_mask_of_branches_and_of_a_callable_tree():
    model = eqx.nn.Linear(2, 3, key=jax.random.key(0))
    params, grads = {"head": model, "body": [model]}, jax.tree.map(jnp.zeros_like, model)
    for head in (False, jax.tree.map(lambda _: False, model)):
        optimiser = to_optax(
            Euclidean(), 0.5, weight_decay=1.0, decay_mask={"head": head, "body": True}
        )
        moves, _ = optimiser.update(
            {"head": grads, "body": [grads]}, optimiser.init(params), params
        )
        assert not np.any(moves["head"].weight)
        np.testing.assert_array_equal(moves["body"][0].weight, -0.5 * model.weight)
    mask = eqx.tree_at(lambda tree: tree.bias, jax.tree.map(lambda _: True, model), False)
    optimiser = to_optax(Euclidean(), 0.5, weight_decay=1.0, decay_mask=mask)
    moves, _ = optimiser.update(grads, optimiser.init(model), model)
    assert np.all(moves.weight == -0.5 * model.weight) and not np.any(moves.bias)


def test_masks_that_do_not_fit():
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}

    def step(geometry, mask):
        optimiser = to_optax(geometry, 0.1, weight_decay=0.1, decay_mask=mask)
        return optimiser.update(params, optimiser.init(params), params)

    with pytest.raises(
        ValueError, match="to_optax.decay_mask: nothing decays; pass a weight_decay"
    ):
        to_optax(Euclidean(), 0.1, decay_mask=True)
    with pytest.raises(ValueError, match="to_optax.decay_mask: expected True .*, got 0.5 for 'a'"):
        step(Euclidean(), {"a": 0.5, "b": True})
    with pytest.raises(ValueError, match="branch of them, 'a', 'b'; got one for 'a', 'c'"):
        step(Euclidean(), {"a": True, "c": True})
    with pytest.raises(ValueError, match="expected True or False for .* of them, got 0.5.$"):
        step(Euclidean(), 0.5)
    mixing = PNorm(3.0)
    with pytest.raises(ValueError, match="mixes parameters of which 'a' shall decay and 'b' shall"):
        step(mixing, {"a": True, "b": False})
    for mask in (True, False):
        step(mixing, mask)
    with pytest.raises(ValueError, match="got one for 'a'"):  # before the first step
        to_optax(Euclidean(), 0.1, weight_decay=0.1, decay_mask={"a": True}).init(params)
    with pytest.raises(ValueError, match="got one for none"):
        step(Euclidean(), {})
    divided = to_optax(mixing, 0.1, weight_decay=0.1, decay_mask={"a": True, "b": False})
    with pytest.raises(ValueError, match="'a' shall decay and 'b' shall not"):  # another's state
        divided.update(params, to_optax(mixing, 0.1).init(params), params)


def test_a_mask_that_divides_one_block():
    params = {"x": {"a": jnp.ones(2), "b": jnp.ones(2)}, "y": {"c": jnp.ones(2), "d": jnp.ones(2)}}
    geometry = Blockwise({"x": PNorm(3.0), "y": NegativeEntropy("orthant")})

    def init(mask):
        optimiser = to_optax(geometry, 0.1, weight_decay=0.1, decay_mask=mask)
        return optimiser.update(params, optimiser.init(params), params)

    init({"x": True, "y": {"c": True, "d": False}})
    with pytest.raises(ValueError, match="of which 'x/a' shall decay and 'x/b' shall not"):
        init({"x": {"a": True, "b": False}, "y": True})


def test_a_mask_in_other_containers():
    params = [jnp.ones(2), jnp.ones(2)]
    optimiser = to_optax(Euclidean(), 0.5, weight_decay=1.0, decay_mask={"0": True, "1": False})
    moves, _ = optimiser.update(params, optimiser.init(params), params)
    assert [leaf.tolist() for leaf in moves] == [[-1.0, -1.0], [-0.5, -0.5]]


def test_non_finite_parameters_spread_and_do_not_hang():
    params = make_params()
    for name in ("max", "pnorm", "transformed-blockwise"):
        optimiser = to_optax(STEPPED[name], 0.1)
        broken = jax.tree.map(lambda x: x * jnp.nan, params)
        step = jax.jit(lambda x, y, o=optimiser: o.update(x, o.init(x), y)[0])
        updates = step(params, broken)
        assert any(bool(jnp.isnan(leaf).any()) for leaf in jax.tree.leaves(updates))


def test_checkify_and_grad_pass_through():
    """A learned learning rate: the step is differentiable in it."""
    params, loss = make_params(), make_loss()

    def after(rate):
        optimiser = to_optax(GEOMETRIES["blockwise"], rate)
        updates, _ = optimiser.update(jax.grad(loss)(params), optimiser.init(params), params)
        return loss(optax.apply_updates(params, updates))

    slope, after = jax.jit(jax.grad(after))(0.1), jax.jit(after)
    np.testing.assert_allclose(slope, (after(0.1 + 1e-6) - after(0.1 - 1e-6)) / 2e-6, rtol=1e-6)
    error, _ = checkify.checkify(after, errors=checkify.float_checks)(0.1)
    assert error.get() is None


def test_artifacts_may_be_made_by_hand():
    artifact = Artifact(GEOMETRIES["diagonal"], 0.25)
    params = make_params()
    left, right = to_optax(artifact), to_optax(artifact.geometry, 0.25)
    updates = [o.update(params, o.init(params), params)[0] for o in (left, right)]
    assert_same_bits(*updates)
