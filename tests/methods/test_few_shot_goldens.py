"""Few-shot methods against the outputs of their published codes, and of independent ones."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_networks import (
    RTOL,
    assert_close,
    compiled,
    flattened,
    golden_name,
    network,
    problem,
    read,
)

from mirrax._tree import select
from mirrax.geometry import Diagonal, Euclidean, KroneckerUpdate, ModeProducts
from mirrax.geometry._mask import Mask, straight_through
from mirrax.hypergradient import Reverse
from mirrax.hypergradient._pathwise import along, leap
from mirrax.hypergradient._reverse import linearised
from mirrax.inner import (
    LearnedUpdate,
    MirrorDescent,
    PreconditionedDescent,
    Prior,
    Problem,
    Repeat,
    Trajectory,
    fold,
)
from mirrax.models import cross_entropy
from mirrax.objective import ValidationLoss
from repeats import slow

KEY = jax.random.key(0)


def run(reference, model, inner, prior, wrt, orders=(False,)):
    """Support losses, the last state, and value and hypergradient by order, in one program."""
    task, steps = problem(reference, model), int(reference["K"])

    blank = jnp.zeros(steps + 1, jnp.result_type(*jax.tree.leaves(prior.start)))

    def note(losses, step, count):
        return losses.at[count].set(step.loss)

    @compiled
    def everything(prior):
        end, losses = fold(inner, prior, task, steps, note, blank, key=KEY)
        last = task.loss(end.primal, prior.shared, task.batches.data)
        found = []
        for first_order in orders:
            estimator = Reverse(steps, wrt=wrt, first_order=first_order)
            begin = estimator.init(inner, prior)
            found += [estimator.estimate(ValidationLoss(), inner, prior, task, begin, key=KEY)[:2]]
        return losses.at[-1].set(last), end, found

    return everything(prior)


def check_run(reference, prefix, model, losses, end):
    """Support losses and adapted parameters of a golden."""
    np.testing.assert_allclose(losses, reference[f"{prefix}support_losses"], rtol=RTOL)
    expected = read(reference, f"{prefix}adapted", model)
    assert_close(end.primal, {layer: expected[layer] for layer in end.primal})


@pytest.mark.parametrize("name", [slow("a"), slow("c")])
def test_maml(golden, name):
    reference = golden(f"c02_conv4_{name}")
    model = network(reference)
    inner = MirrorDescent(float(reference["alpha"]))
    prior = Prior(Euclidean(), read(reference, "init", model))
    losses, end, found = run(reference, model, inner, prior, ("start",), (False, True))
    check_run(reference, "", model, losses, end)
    keys = ("meta_grad", "meta_grad_first_order")
    for (value, grad), key in zip(found, keys, strict=True):
        np.testing.assert_allclose(value, reference["query_loss"], rtol=RTOL)
        assert_close(grad.start, read(reference, key, model))


def regression_loss(params, shared, batch):
    del shared
    x, y = batch
    return jnp.sum((x @ params - y) ** 2) / (2 * len(x))


@pytest.mark.parametrize("position", range(1, 5))
def test_regression_in_closed_form(golden, position):
    """`φ_K = θ − [I − (I − αH)^K] H⁻¹ ∇L`, hypergradients of both orders; position 0 is K = 0."""
    reference = golden("c01_linreg_closed_form")
    steps, rate = int(reference["K"][position]), float(reference["alpha"])
    theta, rates = jnp.asarray(reference["theta"]), jnp.asarray(reference["rates"])
    diagonal = Diagonal((jnp.log(rate) - jnp.log(rates)) / 2)
    sets = tuple(jnp.asarray(reference[name]) for name in ("Xs", "ys", "Xq", "yq"))

    def one(geometry, first_order, xs, ys, xq, yq):
        task = Problem(regression_loss, Repeat((xs, ys)), query=(xq, yq))
        rule, prior = PreconditionedDescent(rate), Prior(geometry, theta)
        wrt = ("start",) if isinstance(geometry, Euclidean) else ("geometry", "start")
        estimator = Reverse(steps, wrt=wrt, first_order=first_order)
        begin = estimator.init(rule, prior)
        value, grad, _ = estimator.estimate(ValidationLoss(), rule, prior, task, begin, key=KEY)
        end, _ = fold(rule, prior, task, steps, lambda none, *_: none, None, key=KEY)
        return value, grad, end.primal

    for geometry, prefix in ((Euclidean(), ""), (diagonal, "sgd_")):
        for first_order, order in ((False, "mg"), (True, "fo")):
            function = functools.partial(one, geometry, first_order)
            values, grads, ends = compiled(jax.vmap(function))(*sets)
            expected = {
                name: reference[f"{prefix}{name}"][position] for name in ("adapted", "qloss")
            }
            np.testing.assert_allclose(ends, expected["adapted"], rtol=RTOL)
            np.testing.assert_allclose(values, expected["qloss"], rtol=RTOL)
            name = f"sgd_{order}_theta" if prefix else order
            assert_close(grads.start, reference[name][position])
            if prefix:
                in_rates = -grads.geometry.log_diagonal / 2
                assert_close(in_rates, reference[f"sgd_{order}_lograte"][position])


@pytest.mark.slow
def test_maml_in_single_precision(golden):
    """Float32 with its 6e-8 roundings, through five steps: 4e-6 was measured for other codes."""
    reference = {
        key: value.astype(np.float32) if value.dtype == np.float64 else value
        for key, value in golden("c02_conv4_a").items()
    }
    model = network(reference)
    prior = Prior(Euclidean(), read(reference, "init", model))
    inner = MirrorDescent(jnp.asarray(reference["alpha"]))
    _, end, [(value, grad)] = run(reference, model, inner, prior, ("start",))
    assert value.dtype == np.float32
    np.testing.assert_allclose(value, reference["query_loss"], rtol=1e-4)
    assert_close(end.primal, read(reference, "adapted", model), rtol=1e-4)
    assert_close(grad.start, read(reference, "meta_grad", model), rtol=1e-4)


@pytest.mark.slow
def test_meta_sgd(golden):
    reference = golden("c02_conv4_a")
    model, rate = network(reference), float(reference["alpha"])
    rates = read(reference, "metasgd_log_rate", model)
    # α/m² = e^l.
    geometry = Diagonal(jax.tree.map(lambda l: (np.log(rate) - l) / 2, rates))  # noqa: E741
    inner = PreconditionedDescent(rate)
    prior = Prior(geometry, read(reference, "init", model))
    wrt = ("geometry", "start")
    losses, end, found = run(reference, model, inner, prior, wrt, (False, True))
    check_run(reference, "metasgd_", model, losses, end)
    for (value, grad), tail in zip(found, ("", "_first_order"), strict=True):
        np.testing.assert_allclose(value, reference["metasgd_query_loss"], rtol=RTOL)
        assert_close(grad.start, read(reference, f"metasgd_grad_init{tail}", model))
        in_rates = jax.tree.map(lambda g: -g / 2, grad.geometry.log_diagonal)
        assert_close(in_rates, read(reference, f"metasgd_grad_log_rate{tail}", model))


def factors(reference, prefix, model, modes):
    """The factors of every parameter, inputs of the head flattened as ours."""
    found = {}
    for name in (name for block in model.blocks for name in block):
        keys = [f"{prefix}__{golden_name(name)}__{mode}" for mode in modes(name, model)]
        arrays = [jnp.asarray(reference[key]) for key in keys]
        if name == "dense_0/weight":
            right = flattened(flattened(arrays[1], model).T, model)
            arrays[1] = right.T
        found[name] = tuple(arrays)
    return found


def curvature_modes(name, model):
    return {1: ("m",), 2: ("M_out", "M_in"), 4: ("M_out", "M_in", "M_k")}[
        len(model.leaf_shapes[name])
    ]


def test_meta_curvature(golden):
    reference = golden("c04_metacurvature_adapt")
    model = network(reference)
    start = read(reference, "init", model)
    axes = ModeProducts.identity(start, model.roles).axes
    geometry = ModeProducts(factors(reference, "factor", model, curvature_modes), axes)
    inner, prior = PreconditionedDescent(float(reference["alpha"])), Prior(geometry, start)
    losses, end, [(value, grad)] = run(reference, model, inner, prior, ("geometry", "start"))
    check_run(reference, "", model, losses, end)
    np.testing.assert_allclose(value, reference["query_loss"], rtol=RTOL)
    assert_close(grad.start, read(reference, "meta_grad", model))
    expected = factors(reference, "meta_grad_factor", model, curvature_modes)
    assert_close(grad.geometry.factors, expected)


@pytest.mark.slow
def test_meta_kfo(golden):
    reference = golden("c04_kfo_adapt")
    model = network(reference)
    start = read(reference, "init", model)
    axes = KroneckerUpdate.identity(start, model.roles).axes
    both = functools.partial(factors, reference, model=model, modes=lambda *_: ("L", "R"))
    prior = Prior(KroneckerUpdate(both(prefix="xi"), axes), start)
    rate, wrt = float(reference["alpha"]), ("geometry", "start")
    losses, end, [(value, grad)] = run(reference, model, LearnedUpdate(rate), prior, wrt)
    check_run(reference, "", model, losses, end)
    # The last update network is the one the last step was made with.
    assert_close(end.memory[0].factors, both(prefix="xi_adapted"))
    np.testing.assert_allclose(value, reference["query_loss"], rtol=RTOL)
    assert_close(grad.start, read(reference, "meta_grad", model))
    assert_close(grad.geometry.factors, both(prefix="meta_grad_xi"))

    _, end, [] = run(reference, model, PreconditionedDescent(rate), prior, wrt, ())
    assert_close(end.primal, read(reference, "frozen_xi_adapted", model))


def warps(reference, prefix, model, head):
    """The warp layers of a golden, as ours."""
    found = {}
    for i in range(2):
        kernel = jnp.asarray(reference[f"{prefix}__conv{i + 1}"])
        found[f"warp_{i}"] = {"weight": kernel.transpose(2, 3, 1, 0)}
    if head:
        found["head_warp"] = {"weight": jnp.asarray(reference[f"{prefix}__lin"]).T}
    return found


def warped(reference, prefix, kind, head, adapted):
    """Model and prior of a golden with warps."""
    model = network(reference, warp=kind, head_warp=head)
    start, shared = select(read(reference, "init", model), adapted)
    layers = warps(reference, prefix, model, head)
    return model, start, shared | layers


def no_norm(name):
    return not name.startswith("norm_")


REPEATS = ("tnet", "tnet_bn_adapted", "warp1x1", "warp3x3")
"""Cases whose parts MT-net and the other one have between them."""

CASES = {
    "tnet": ("T", "pointwise", True, no_norm),
    "tnet_bn_adapted": ("T", "pointwise", True, lambda name: True),
    "warp1x1": ("T", "pointwise", False, lambda name: True),
    "warp3x3": ("W3", "spatial", False, lambda name: True),
    "warp3x3_bn_frozen": ("W3", "spatial", False, no_norm),
}


@pytest.mark.parametrize("case", ["warp3x3_bn_frozen", *map(slow, REPEATS)])
def test_t_net_and_warps(golden, case):
    reference = golden("c05_tnet_mtnet_warp")
    prefix, kind, head, adapted = CASES[case]
    model, start, shared = warped(reference, prefix, kind, head, adapted)
    inner = MirrorDescent(float(reference["alpha"]))
    prior = Prior(Euclidean(), start, shared)
    losses, end, [(value, grad)] = run(reference, model, inner, prior, ("start", "shared"))
    check_run(reference, f"{case}__", model, losses, end)
    np.testing.assert_allclose(value, reference[f"{case}__query_loss"], rtol=RTOL)
    network_grad, warp_grad = select({**grad.shared, **grad.start}, lambda name: "warp" not in name)
    assert_close(network_grad, read(reference, f"{case}__meta_grad", model))
    assert_close(warp_grad, warps(reference, f"{case}__meta_grad_T", model, head))


@pytest.mark.slow
def test_mt_net(golden):
    reference = golden("c05_tnet_mtnet_warp")
    model, start, shared = warped(reference, "T", "pointwise", True, no_norm)
    names = {"conv_0": "conv1", "conv_1": "conv2", "dense_0": "lin"}

    def of(prefix):
        return {layer: jnp.asarray(reference[f"{prefix}__{name}"]) for layer, name in names.items()}

    noise = jax.tree.map(lambda g: g[:, 0] - g[:, 1], of("gumbel"))
    inner = PreconditionedDescent(float(reference["alpha"]))

    def prior(logits):
        return Prior(Mask(jax.tree.map(straight_through, logits, noise)), start, shared)

    logits = of("mask_logit")
    assert_close(prior(logits).geometry.mask, of("mask"))
    wrt = ("geometry", "start", "shared")
    losses, end, [(value, grad)] = run(reference, model, inner, prior(logits), wrt)
    check_run(reference, "mtnet__", model, losses, end)
    np.testing.assert_allclose(value, reference["mtnet__query_loss"], rtol=RTOL)
    assert_close(grad.geometry.mask, of("mtnet__grad_mask"))
    _, pull = jax.vjp(lambda logits: prior(logits).geometry, logits)
    assert_close(pull(grad.geometry)[0], of("mtnet__grad_mask_logit"))
    network_grad, warp_grad = select({**grad.shared, **grad.start}, lambda name: "warp" not in name)
    assert_close(network_grad, read(reference, "mtnet__meta_grad", model))
    assert_close(warp_grad, warps(reference, "mtnet__meta_grad_T", model, True))


@pytest.mark.parametrize("masked", [False, True])
def test_a_t_net_preconditions_a_linear_layer(golden, masked):
    """`T W⁺ = T W − α T M Tᵀ ∂L/∂A` for `A = T W`."""
    reference = {
        name: jnp.asarray(array) for name, array in golden("c05_tnet_linear_identity").items()
    }

    def loss(params, shared, batch):
        x, y = batch
        layer = params["dense"]
        away = (x @ layer["weight"] + layer["bias"]) @ shared.T - y
        return jnp.sum(away**2) / (2 * len(x))

    mask = reference["mask"] if masked else jnp.ones(5)
    start = {"dense": {"weight": reference["W"].T, "bias": reference["b"]}}
    prior = Prior(Mask({"dense": mask}), start, reference["T"])
    task = Problem(loss, Repeat((reference["x"], reference["y"])))
    rule = PreconditionedDescent(float(reference["alpha"]))
    state, _ = rule.step(prior, task, rule.init(prior), key=KEY)
    weight = reference["T"] @ state.primal["dense"]["weight"].T
    np.testing.assert_allclose(
        weight, reference["A_new" if masked else "A_new_unmasked"], rtol=1e-12
    )


# --- WarpGrad ---------------------------------------------------------------------------------

WARPED = ("l1", "l2", "l3")


def perceptron_loss(params, shared, batch):
    x, y = batch
    hidden = x
    for number, layer in enumerate(WARPED, start=1):
        hidden = hidden @ params[f"{layer}_weight"].T + params[f"{layer}_bias"]
        if number < 3:
            hidden = jnp.tanh(hidden @ shared[f"w{number}"].T)
    return cross_entropy(hidden, y)


def warpgrad(reference):
    """The stored iterates of each task with its two batches, and the warps."""
    names = [f"{layer}_{leaf}" for layer in WARPED for leaf in ("weight", "bias")]
    points = {name: jnp.asarray(reference[f"traj__{name}"]) for name in names}
    x, y = jnp.asarray(reference["x"]), jnp.asarray(reference["y"])
    omega = {name: jnp.asarray(reference[f"omega__{name}"]) for name in ("w1", "w2")}
    return points, x, y, omega


@pytest.mark.parametrize(
    "mode, ahead, first_order", [("exact", 1, False), ("approx", 0, False), ("detached", 1, True)]
)
def test_warpgrad_along_a_path(golden, mode, ahead, first_order):
    reference = golden("c05_warpgrad_trajectory")
    points, x, y, omega = warpgrad(reference)
    inner = MirrorDescent(float(reference["alpha"]))

    def one(path, x, y):
        # Without a step ahead, the iterate is judged on the batch that would have been stepped on.
        judged = 1 if ahead else 0
        task = Problem(perceptron_loss, Repeat((x[0], y[0])), query=(x[judged], y[judged]))
        task = linearised(task) if first_order else task
        prior = Prior(Euclidean(), jax.tree.map(lambda leaf: leaf[0], path), omega)
        return along(ValidationLoss(), inner, prior, task, path, ahead, ("shared",), key=KEY)

    values, grads = compiled(jax.vmap(one))(points, x, y)
    expected = reference[f"{mode}_values"].mean(axis=1)
    np.testing.assert_allclose(values, expected, rtol=RTOL)
    mean = jax.tree.map(lambda leaf: leaf.mean(axis=0), grads.shared)
    assert_close(mean, {n: reference[f"{mode}_grad_mean__{n}"] for n in omega})


def test_the_published_warpgrad_holds_the_inner_gradient(golden):
    """What the code returned, in the mode it calls exact, when it was run."""
    reference = golden("c05_warpgrad_trajectory")
    for name, least in (("w1", 0.08), ("w2", 0.13)):
        official = reference[f"official_exact_bsz1__{name}"]
        detached, exact = (reference[f"{kind}_grad_mean__{name}"] for kind in ("detached", "exact"))
        np.testing.assert_allclose(official, detached, rtol=0, atol=1e-15 * np.abs(exact).max())
        assert np.linalg.norm(official - exact) > least * np.linalg.norm(exact)


@pytest.mark.slow
def test_leap(golden):
    reference = golden("c05_warpgrad_trajectory")
    points, *_ = warpgrad(reference)
    steps = jax.vmap(lambda path: leap(Trajectory(path, None, None)))(points)
    mean = jax.tree.map(lambda leaf: leaf.mean(axis=0), steps)
    # The published code adds 1e-8 or so to a norm of about one.
    assert_close(mean, {n: reference[f"leap_init_grad__{n}"] for n in mean}, rtol=1e-8)
