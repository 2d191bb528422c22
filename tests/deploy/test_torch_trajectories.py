"""The PyTorch optimiser makes the steps of `to_optax`: every geometry, three networks."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from deployed import BY_ROLES, ROLES, STEPPED, assert_close, cast, make_loss, make_params, run
from torch.nn import functional
from torch_models import DTYPES, MODELS, batch, diagonal, named, saved, start

from mirrax.deploy import save, to_optax
from mirrax.deploy.torch import MirrorDescent
from repeats import slow

MAPS = STEPPED | {name: BY_ROLES[name] for name in ("convex", "blockiaf", "blockiaf-official")}
RATES = {"convex": 0.05, "blockiaf": 0.02, "blockiaf-official": 0.02}
SINGLE = ("diagonal", "max", "kronecker", "convex")
SINGLE_TOO = ("euclidean", "simplex", "pnorm", "transformed", "scaled", "blockwise", "blockiaf")


def as_torch(tree, dtype):
    """The small parameters with dense weights as PyTorch has them."""
    found = {
        "dense_0.weight": np.asarray(tree["dense_0"]["weight"]).T.copy(),
        "dense_0.bias": np.asarray(tree["dense_0"]["bias"]),
        "mixture.0": np.asarray(tree["mixture"][0]),
    }
    return {name: torch.tensor(array, dtype=DTYPES[dtype]) for name, array in found.items()}


def written(path, geometry, dtype="float64"):
    save(path, geometry, rate=0.1, params_like=make_params(dtype), roles=ROLES)
    return path


def run_torch(optimiser, params, dtype, steps, *, before=None):
    """All points of the quadratic of `make_loss`, whose gradient is `c (x − goal)`."""
    rng = np.random.default_rng(5)
    whole = make_params(dtype)
    pull = as_torch(jax.tree.map(lambda x: rng.uniform(0.5, 2.0, x.shape), whole), dtype)
    goal = as_torch(jax.tree.map(lambda x: jnp.flip(x, -1), whole), dtype)
    points = []
    for _ in range(steps):
        for name, param in params.items():
            param.grad = pull[name] * (param.detach() - goal[name])
        optimiser.step()
        points.append({name: param.detach().clone().numpy() for name, param in params.items()})
    return points


def tensors(dtype):
    return {
        name: torch.nn.Parameter(tensor)
        for name, tensor in as_torch(make_params(dtype), dtype).items()
    }


def assert_same(points, expected, dtype, tolerance):
    for number, point in enumerate(points):
        wanted = as_torch(jax.tree.map(lambda leaf: leaf[number], expected), dtype)  # noqa: B023
        for name, array in point.items():
            size = np.abs(wanted[name].numpy()).max()
            np.testing.assert_allclose(
                array, wanted[name].numpy(), rtol=tolerance, atol=tolerance * size, err_msg=name
            )


# The runs converge, so rounding does not grow: the largest differences seen, over the largest entry
# of an array, were 3e-15 and 5e-7.
@pytest.mark.parametrize(
    ("name", "dtype"),
    [(name, "float64") for name in MAPS]
    + [(name, "float32") for name in SINGLE]
    + [slow(name, "float32") for name in SINGLE_TOO],
)
def test_every_geometry(tmp_path, name, dtype):
    geometry, rate = cast(MAPS[name], dtype), RATES.get(name, 0.1)
    path, params = written(tmp_path / "g.safetensors", geometry, dtype), tensors(dtype)
    points = run_torch(MirrorDescent(params.items(), path, rate, verbose=False), params, dtype, 200)
    expected = run(to_optax(geometry, rate), make_params(dtype), make_loss(dtype), 200)[2]
    assert_same(points, expected, dtype, 1e-13 if dtype == "float64" else 4e-6)


@pytest.mark.parametrize(("nesterov", "decay"), [(False, 0.0), (True, 0.5)])
@pytest.mark.parametrize("name", ["blockwise-linear", "kronecker", "max", "blockwise", "convex"])
def test_momentum(tmp_path, name, nesterov, decay):
    path, params = written(tmp_path / "g.safetensors", MAPS[name]), tensors("float64")
    options = {"momentum": 0.8, "nesterov": nesterov, "weight_decay": decay}
    optimiser = MirrorDescent(params.items(), path, 0.02, verbose=False, **options)
    points = run_torch(optimiser, params, "float64", 100)
    ours = to_optax(MAPS[name], 0.02, **options)
    expected = run(ours, make_params(), make_loss(), 100)[2]
    assert_same(points, expected, "float64", 1e-10)


@pytest.mark.parametrize(
    "name", ["diagonal", "kronecker", "pnorm", "max", "orthant", "convex", "scaled-blockwise"]
)
def test_weights_decay_before_the_step(tmp_path, name):
    path, params = written(tmp_path / "g.safetensors", MAPS[name]), tensors("float64")
    optimiser = MirrorDescent(params.items(), path, 0.05, weight_decay=0.3, verbose=False)
    points = run_torch(optimiser, params, "float64", 40)
    geometry, loss = MAPS[name], make_loss()
    keeps_dual = name == "max"  # on a tie the parameters alone do not tell the next step

    @jax.jit
    def step(here, dual):
        shrunk = jax.tree.map(lambda x: (1 - 0.05 * 0.3) * x, (here, dual))
        dual = shrunk[1] if keeps_dual else geometry.to_dual(shrunk[0])
        dual = jax.tree.map(lambda z, g: z - 0.05 * g, dual, jax.grad(loss)(here))
        return geometry.to_primal(dual), dual

    here, found = make_params(), []
    dual = geometry.to_dual(here)
    for _ in range(40):
        here, dual = step(here, dual)
        found.append(here)
    expected = jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)
    assert_same(points, expected, "float64", 1e-10)
    ours = run(to_optax(geometry, 0.05, weight_decay=0.3), make_params(), loss, 40)[2]
    assert_close(ours, expected, 1e-10)


def test_decay_does_nothing_on_a_simplex(tmp_path):
    path = written(tmp_path / "g.safetensors", MAPS["simplex"])
    points = []
    for decay in (0.0, 0.5):
        params = tensors("float64")
        optimiser = MirrorDescent(params.items(), path, weight_decay=decay, verbose=False)
        points.append(run_torch(optimiser, params, "float64", 20)[-1])
    for name in points[0]:
        np.testing.assert_allclose(points[0][name], points[1][name], rtol=1e-12)
    ours = run(to_optax(MAPS["simplex"], 0.1, weight_decay=0.5), make_params(), make_loss(), 20)[2]
    assert_same(points[1:], jax.tree.map(lambda x: x[-1:], ours), "float64", 1e-12)


def test_maximize_climbs(tmp_path):
    path, points = written(tmp_path / "g.safetensors", MAPS["blockwise"]), []
    for sign in (1.0, -1.0):
        params = tensors("float64")
        optimiser = MirrorDescent(
            params.items(), path, momentum=0.5, maximize=sign < 0, verbose=False
        )
        for _ in range(5):
            for param in params.values():
                param.grad = sign * torch.cos(torch.arange(param.numel()).to(param)).reshape(
                    param.shape
                )
            optimiser.step()
        points.append([param.detach().numpy() for param in params.values()])
    for left, right in zip(*points, strict=True):
        np.testing.assert_array_equal(left, right)


def network(name, geometry, rate, dtype, steps, **options):
    """The last point of the library's model with `to_optax`, and the gradients on the way."""
    model, params = MODELS[name][0], start(name, dtype)[0]
    images, labels = (jnp.asarray(array) for array in batch(name, dtype))
    optimiser = to_optax(geometry, rate, **options)

    def loss(point):
        logits = jax.nn.log_softmax(model.apply(point, images))
        return -jnp.mean(jnp.take_along_axis(logits, labels[:, None], axis=1))

    @jax.jit
    def whole(point):
        def step(carry, _):
            value, grads = jax.value_and_grad(loss)(carry[0])
            updates, state = optimiser.update(grads, carry[1], carry[0])
            return (optax.apply_updates(carry[0], updates), state), (value, grads)

        carry, seen = jax.lax.scan(step, (point, optimiser.init(point)), None, length=steps)
        return carry[0], *seen

    return whole(params)


def network_torch(name, path, rate, dtype, steps, **options):
    module = start(name, dtype)[1]
    images, labels = batch(name, dtype)
    images, labels = torch.tensor(images).permute(0, 3, 1, 2), torch.tensor(labels)
    optimiser = MirrorDescent(module.named_parameters(), path, rate, verbose=False, **options)
    losses = []
    for _ in range(steps):
        optimiser.zero_grad()
        loss = functional.cross_entropy(module(images), labels)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return dict(module.named_parameters()), losses


NETWORKS = {
    "mlp": (0.05, {"momentum": 0.9, "nesterov": True}),
    "lenet": (0.01, {}),
    "conv4": (0.01, {"momentum": 0.5}),
}


def assert_near(name, found, wanted, tolerance):
    for key, tensor in named(name, wanted).items():
        gap = (found[key].detach() - tensor).abs().max()
        assert gap <= tolerance * tensor.abs().max(), (key, float(gap))


@pytest.mark.parametrize("name", ["mlp", "lenet", slow("conv4")])
def test_networks_over_200_steps_in_64_bits(tmp_path, name):
    rate, options = NETWORKS[name]
    params = start(name, "float64")[0]
    path = saved(tmp_path / "g.safetensors", name, diagonal(params), params)
    last, losses, _ = network(name, diagonal(params), rate, "float64", 200, **options)
    found, values = network_torch(name, path, rate, "float64", 200, **options)
    assert values[-1] < 0.7 * values[0]  # it learns
    np.testing.assert_allclose(values, losses, rtol=1e-9)
    assert_near(name, found, last, 1e-10)


@pytest.mark.parametrize("name", ["mlp", "lenet", slow("conv4")])
def test_networks_over_200_steps_in_32_bits(tmp_path, name):
    """With JAX's gradients: those of two frameworks round apart, which a run with rectifiers and
    maxima carries on until its own two precisions are 2e-3 apart (LeNet and Conv4 in JAX)."""
    rate, options = NETWORKS[name]
    params, module = start(name, "float32")
    path = saved(tmp_path / "g.safetensors", name, diagonal(params), params)
    last, _, grads = network(name, diagonal(params), rate, "float32", 200, **options)
    optimiser = MirrorDescent(module.named_parameters(), path, rate, verbose=False, **options)
    found = dict(module.named_parameters())
    for step in range(200):
        for key, tensor in named(name, jax.tree.map(lambda g: g[step], grads)).items():  # noqa: B023
            found[key].grad = tensor
        optimiser.step()
    assert_near(name, found, last, 4e-6)


def test_a_network_with_its_own_gradients_in_32_bits(tmp_path):
    rate, options = NETWORKS["mlp"]
    params = start("mlp", "float32")[0]
    path = saved(tmp_path / "g.safetensors", "mlp", diagonal(params), params)
    last, _, _ = network("mlp", diagonal(params), rate, "float32", 200, **options)
    found, _ = network_torch("mlp", path, rate, "float32", 200, **options)
    assert_near("mlp", found, last, 2e-5)
