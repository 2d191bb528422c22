"""A geometry learned on the library's models steps those of Flax NNX and Equinox alike."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from deployed import assert_close
from flax import nnx
from other_models import MODELS_OF, FlaxMlp, equinox_mlp, start_of, written_as
from test_torch_trajectories import network
from torch_models import batch, diagonal, named, saved, start

from mirrax._errors import ArtifactError
from mirrax.deploy import layer_roles, save, to_optax
from mirrax.deploy.torch import MirrorDescent
from mirrax.geometry import Diagonal, Kronecker, MaxOfDiagonals
from repeats import slow

LIBRARIES = ("flax", "equinox")
OPTIONS = {"momentum": 0.5, "weight_decay": 0.01}


@pytest.fixture(autouse=True)
def ordinary_promotion():
    """Flax and Equinox mix types in their layers."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def geometry_of(kind, params):
    if kind == "diagonal":
        return diagonal(params)
    rng = np.random.default_rng(4)
    like = (
        Kronecker.like(params)
        if kind == "kronecker"
        else MaxOfDiagonals.like(params, 2, spread=0.3, key=jax.random.key(3))
    )
    return jax.tree.map(lambda x: x + jnp.asarray(rng.normal(0, 0.1, x.shape)), like)


def trained(library, name, path, rate, steps, **options):
    """The last point of another library's network."""
    like, logits = MODELS_OF[library](name)
    images, labels = (jnp.asarray(array) for array in batch(name, "float64"))
    optimiser = to_optax(path, rate, verbose=False, **options)

    def loss(point):
        found = jax.nn.log_softmax(logits(point, images))
        return -jnp.mean(jnp.take_along_axis(found, labels[:, None], axis=1))

    @jax.jit
    def whole(point):
        def step(carry, _):
            updates, state = optimiser.update(jax.grad(loss)(carry[0]), carry[1], carry[0])
            return (optax.apply_updates(carry[0], updates), state), None

        return jax.lax.scan(step, (point, optimiser.init(point)), None, length=steps)[0][0]

    return whole(written_as(library, name, start_of(name), like))


# Where the runs differ they do by the order of sums; found at most 2e-15 of the largest entry.
@pytest.mark.parametrize(
    ("name", "kind", "rate"),
    [
        ("mlp", "diagonal", 0.05),
        ("mlp", "kronecker", 0.02),
        slow("mlp", "max", 0.02),
        slow("lenet", "diagonal", 0.01),
    ],
)
def test_networks_over_200_steps(tmp_path, name, kind, rate):
    params = start_of(name)
    geometry = geometry_of(kind, params)
    path = saved(tmp_path / "g.safetensors", name, geometry, params)
    last, losses, _ = network(name, geometry, rate, "float64", 200, **OPTIONS)
    assert losses[-1] < 0.7 * losses[0]  # it learns
    for library in LIBRARIES:
        like = MODELS_OF[library](name)[0]
        found = trained(library, name, path, rate, 200, **OPTIONS)
        assert_close(found, written_as(library, name, last, like), 1e-12)


@pytest.mark.parametrize(
    ("library", "name"),
    [
        *(("flax", "mlp"), ("equinox", "mlp"), slow("flax", "lenet"), slow("equinox", "lenet")),
        *(slow("flax", "conv4"), slow("equinox", "conv4")),
    ],
)
def test_rates_go_where_they_belong(tmp_path, capsys, library, name):
    params = start_of(name)
    geometry, (like, _) = diagonal(params), MODELS_OF[library](name)
    path = saved(tmp_path / "g.safetensors", name, geometry, params)
    state = to_optax(path).init(like)
    rates = jax.tree.map(lambda log: jnp.exp(-2 * log), geometry.log_diagonal)
    assert_close(state.rates, written_as(library, name, rates, like), 2e-15)
    table = capsys.readouterr().out
    assert table.splitlines()[0].split() == "geometry shape model shape axes matched by".split()
    assert len(table.splitlines()) == 1 + len(jax.tree.leaves(like))
    assert ("channels in front" in table) == (library == "equinox" and name != "mlp")


def test_the_loop_of_flax(tmp_path):
    """`nnx.Optimizer`; `multi_transform` gives a head that the geometry does not know to Adam."""
    params = start_of("mlp")
    path = saved(tmp_path / "g.safetensors", "mlp", diagonal(params), params)
    model = FlaxMlp(nnx.Rngs(0))
    model.extra = nnx.Linear(5, 2, rngs=nnx.Rngs(1))

    def labels(state):
        own = lambda path, _: "new" if path[0].key == "extra" else "learned"  # noqa: E731
        return jax.tree_util.tree_map_with_path(own, state)

    parts = {"learned": to_optax(path, verbose=False, weight_decay=0.1), "new": optax.adam(0.01)}
    chain = optax.apply_if_finite(optax.multi_transform(parts, labels), 3)
    optimiser = nnx.Optimizer(model, optax.MultiSteps(chain, 2), wrt=nnx.Param)
    images = jnp.asarray(batch("mlp", "float64")[0])

    @nnx.jit
    def step(model, optimiser):
        loss = lambda model: jnp.mean(model.extra(model(images)) ** 2)  # noqa: E731
        value, grads = nnx.value_and_grad(loss)(model)
        optimiser.update(model, grads)
        return value

    losses = [float(step(model, optimiser)) for _ in range(20)]
    assert losses[0] == losses[1] and losses[-1] < 0.7 * losses[0]


def test_the_loop_of_equinox(tmp_path):
    """One step by hand: `x − η λ x − η r g`, weights transposed."""
    params = start_of("mlp")
    geometry = diagonal(params)
    path = saved(tmp_path / "g.safetensors", "mlp", geometry, params, rate=0.5)
    model = equinox_mlp(jax.random.key(0))
    chain = optax.MultiSteps(optax.apply_if_finite(to_optax(path, weight_decay=0.2), 3), 1)
    state = chain.init(eqx.filter(model, eqx.is_array))
    grads = eqx.filter_grad(lambda model: jnp.sum(model(jnp.ones(36)) ** 2))(model)
    updates, state = chain.update(grads, state, eqx.filter(model, eqx.is_array))
    moved = eqx.apply_updates(model, updates)
    rates = np.exp(-2 * np.asarray(geometry.log_diagonal["dense_0"]["weight"])).T
    old, slope = model.layers[0].weight, grads.layers[0].weight
    wanted = 0.9 * old - 0.5 * rates * slope
    # A rounding of numbers up to 0.8: found 1.1e-16.
    np.testing.assert_allclose(moved.layers[0].weight, wanted, rtol=0, atol=4e-16)


@pytest.mark.slow
def test_a_geometry_of_an_equinox_model_steps_the_others(tmp_path):
    """Learned with channels first, used with channels last: the other way round, images too."""
    like, _ = MODELS_OF["equinox"]("lenet")
    learned = Diagonal(jax.tree.map(jnp.log, written_as("equinox", "lenet", positive(), like)))
    save(tmp_path / "g", learned, rate=1.0, roles=layer_roles(like, "first"))
    rates = jax.tree.map(lambda m: m**-2, positive())
    flax, _ = MODELS_OF["flax"]("lenet")
    found = to_optax(tmp_path / "g", verbose=False).init(flax).rates
    assert_close(found, written_as("flax", "lenet", rates, flax), 1e-15)  # found 3.5e-16
    module = start("lenet", "float64")[1]
    optimiser = MirrorDescent(module.named_parameters(), tmp_path / "g", verbose=False)
    for param in module.parameters():
        param.grad = -torch.ones_like(param)
        torch.nn.init.zeros_(param)
    optimiser.step()
    for name, rate in named("lenet", rates).items():
        # A power and a square root apart: found 3.4e-16.
        np.testing.assert_allclose(module.get_parameter(name).detach(), rate, rtol=1e-15)


def positive():
    rng = np.random.default_rng(7)
    return jax.tree.map(lambda x: jnp.asarray(rng.uniform(0.5, 2, x.shape)), start_of("lenet"))


def squares(tmp_path, roles=True):
    """Two square layers: nothing in their shapes tells inputs from outputs."""
    rng = np.random.default_rng(0)
    layers = ("dense_0", "dense_1")
    logs = {name: {"weight": jnp.asarray(rng.normal(size=(3, 3)))} for name in layers}
    named = {name: {"weight": ("in", "out")} for name in layers} if roles else None
    save(tmp_path / "g", Diagonal(logs), rate=1.0, roles=named)
    return tmp_path / "g", logs


def test_square_weights_are_asked_about(tmp_path):
    path, logs = squares(tmp_path)
    params = {"layers": [{"weight": jnp.ones((3, 3))}, {"weight": jnp.ones((3, 3))}]}
    with pytest.raises(ValueError, match="'dense_0/weight' cannot be told apart by shape; pass"):
        to_optax(path).init(params)
    axes = {"dense_0/weight": (1, 0), "dense_1/weight": (0, 1)}
    state = to_optax(path, axes=axes, verbose=False).init(params)
    rates = [np.exp(-2 * np.asarray(logs[name]["weight"])) for name in logs]
    np.testing.assert_allclose(state.rates["layers"][0]["weight"], rates[0].T)
    np.testing.assert_allclose(state.rates["layers"][1]["weight"], rates[1])
    kernels = {"layers": [{"kernel": leaf["weight"]} for leaf in params["layers"]]}
    state = to_optax(path, verbose=False).init(kernels)  # Flax's word
    np.testing.assert_allclose(state.rates["layers"][1]["kernel"], rates[1])


def test_an_array_without_roles_lets_nothing_be_guessed(tmp_path):
    """A table, or the kernel of a volume, beside a square layer."""
    rng = np.random.default_rng(0)
    for name, shape in {"table": (7, 3), "volume": (2, 2, 2, 3, 3)}.items():
        params = {"dense_0": {"weight": rng.normal(size=(3, 3))}, name: rng.normal(size=shape)}
        roles = layer_roles({"dense_0": params["dense_0"]})
        logs = jax.tree.map(jnp.asarray, params)
        save(tmp_path / name, Diagonal(logs), rate=1.0, roles=roles)
        other = {"fc": {"w": jnp.ones((3, 3))}, name: jnp.ones(shape)}
        with pytest.raises(ValueError, match="'dense_0/weight' cannot be told apart by shape"):
            to_optax(tmp_path / name).init(other)
        axes = {"dense_0/weight": (0, 1)}
        rates = to_optax(tmp_path / name, axes=axes, verbose=False).init(other).rates
        np.testing.assert_allclose(rates["fc"]["w"], np.exp(-2 * params["dense_0"]["weight"]))


class Layer(eqx.Module):
    weight: jax.Array


class Named(eqx.Module):
    dense_0: Layer
    dense_1: Layer


def test_equal_names_do_not_tell_the_axes_of_square_weights(tmp_path):
    """An Equinox module has its outputs first; one that was learned on is taken as it is."""
    path, logs = squares(tmp_path)
    model = Named(Layer(jnp.ones((3, 3))), Layer(jnp.ones((3, 3))))
    with pytest.raises(ValueError, match="'dense_0/weight' cannot be told apart by shape; pass"):
        to_optax(path).init(model)
    rates = np.exp(-2 * np.asarray(logs["dense_1"]["weight"]))
    axes = {"dense_0/weight": (1, 0), "dense_1/weight": (1, 0)}
    found = to_optax(path, axes=axes, verbose=False).init(model).rates
    np.testing.assert_allclose(found.dense_1.weight, rates.T)
    learned = Diagonal(Named(*(Layer(logs[name]["weight"]) for name in logs)))
    save(tmp_path / "own", learned, rate=1.0, roles=layer_roles(model, "first"))
    found = to_optax(tmp_path / "own").init(model).rates
    np.testing.assert_allclose(found.dense_1.weight, rates)


class Unordered(nnx.Module):
    """Its attributes are sorted by their names: `hidden` comes before `input`."""

    def __init__(self, rngs):
        self.input, self.hidden = nnx.Linear(4, 4, rngs=rngs), nnx.Linear(4, 4, rngs=rngs)
        self.out = nnx.Linear(4, 2, rngs=rngs)


def test_the_order_of_a_flax_module_is_not_its_models(tmp_path):
    sizes = {"dense_0": (4, 4), "dense_1": (4, 4), "dense_2": (4, 2)}
    logs = {k: {"weight": jnp.zeros(v), "bias": jnp.zeros(v[1])} for k, v in sizes.items()}
    save(tmp_path / "g", Diagonal(logs), rate=1.0, roles=layer_roles(logs))
    model = Unordered(nnx.Rngs(0))
    for params in (model, nnx.state(model)):
        with pytest.raises(ValueError, match="have equal shapes and stand in no sure order"):
            to_optax(tmp_path / "g").init(params)


def test_an_explicit_map_and_its_refusals(tmp_path):
    path, logs = squares(tmp_path)
    params = {"first": {"kernel": jnp.ones((3, 3))}, "second": {"kernel": jnp.ones((3, 3))}}
    with pytest.raises(ValueError, match="'first' and 'second' have equal shapes and stand in no"):
        to_optax(path).init(params)
    names = {"dense_0/weight": "second/kernel", "dense_1/weight": "first/kernel"}
    state = to_optax(path, names=names).init(params)
    found = np.exp(-2 * np.asarray(logs["dense_0"]["weight"]))
    np.testing.assert_allclose(state.rates["second"]["kernel"], found)
    with pytest.raises(ValueError, match="the model has no parameter 'secnd/kernel'. Did you mean"):
        to_optax(path, names={"dense_0/weight": "secnd/kernel"}).init(params)
    with pytest.raises(ArtifactError, match="! +absent +- +third/kernel +\\(3, 3\\)"):
        to_optax(path, names=names).init(params | {"third": params["first"]})


def test_layers_behind_the_ninth_keep_their_order(tmp_path):
    """Dictionaries are sorted by their keys, `layer_10` before `layer_9`."""
    logs = {f"dense_{i}": {"weight": jnp.full((2, 3), float(i))} for i in range(12)}
    roles = {name: {"weight": ("in", "out")} for name in logs}
    save(tmp_path / "g", Diagonal(logs), rate=1.0, roles=roles)
    params = {f"layer_{i}": {"kernel": jnp.ones((2, 3))} for i in range(12)}
    rates = to_optax(tmp_path / "g", verbose=False).init(params).rates
    for i in range(12):
        np.testing.assert_allclose(rates[f"layer_{i}"]["kernel"], np.exp(-2 * i))
