"""The learned start: to the bit through the file, into any model, and a new task from there."""

import pickle

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from deployed import GEOMETRIES, ROLES, assert_same_bits, make_params
from flax import nnx
from other_models import FlaxMlp, equinox_mlp
from torch.nn import functional
from torch_models import MODELS, batch, diagonal, named, start

import mirrax
from mirrax._errors import ArtifactError, NumericalError
from mirrax.deploy import learned_start, load, save, to_optax
from mirrax.deploy._archive import read_archive, write_archive
from mirrax.deploy.torch import MirrorDescent
from mirrax.geometry import ConvexPotential, Euclidean, Transformed
from mirrax.inner import MirrorDescent as Inner
from mirrax.inner import Prior, Problem, Repeat, unroll
from mirrax.models import cross_entropy
from mirrax.study._use import lines_to_use
from repeats import slow


@pytest.fixture
def path(tmp_path):
    return tmp_path / "geometry.safetensors"


def kept(path, name="mlp", geometry=None, dtype="float64", rate=0.05, seed=1):
    """A file with a start, that start, and a PyTorch model that is elsewhere."""
    params, _ = start(name, dtype, seed)
    geometry = diagonal(params) if geometry is None else geometry(params)
    save(path, geometry, rate=rate, roles=MODELS[name][0].roles, start=params)
    return geometry, params, start(name, dtype, seed=2)[1]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_it_comes_back_to_the_bit(path, dtype):
    params = make_params(dtype)
    save(path, GEOMETRIES["max"], rate=0.1, roles=ROLES, start=params)
    artifact = load(path)
    assert_same_bits(artifact.geometry, GEOMETRIES["max"])
    assert_same_bits(learned_start(path, params), params)
    assert_same_bits(learned_start(artifact, jax.tree.map(jnp.zeros_like, params)), params)
    assert set(artifact.start or ()) == set(artifact.names or ())


def test_into_models_of_flax_and_equinox(path):
    _, params, _ = kept(path)
    flax = learned_start(path, nnx.state(FlaxMlp(nnx.Rngs(0)), nnx.Param))
    np.testing.assert_array_equal(flax["hidden"]["kernel"].get_value(), params["dense_0"]["weight"])
    module = eqx.filter(equinox_mlp(jax.random.key(0)), eqx.is_array)
    single = jax.tree.map(lambda x: x.astype(jnp.float32), module)
    found = learned_start(path, single).layers[1].weight
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, params["dense_1"]["weight"].T.astype(np.float32))


@pytest.mark.parametrize("name", MODELS)
def test_into_models_of_pytorch(path, name):
    _, params, module = kept(path, name)
    optimiser = MirrorDescent(module.named_parameters(), path, verbose=False)
    before = module.state_dict()
    optimiser = pickle.loads(pickle.dumps(optimiser))
    assert before.keys() == module.state_dict().keys()
    MirrorDescent(module.named_parameters(), path, verbose=False).restart()
    for key, wanted in named(name, params).items():
        torch.testing.assert_close(module.state_dict()[key], wanted, rtol=0, atol=0)
    optimiser.restart()  # a copy moves its own parameters
    for param, found in zip(optimiser.param_groups[0]["params"], module.parameters(), strict=True):
        torch.testing.assert_close(param, found, rtol=0, atol=0)


def potential(params):
    roles = MODELS["mlp"][0].roles
    made = ConvexPotential.like(params, roles, key=jax.random.key(3))
    return jax.tree.map(
        lambda x: x.astype(jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x,
        Transformed.like(made, params, roles),
    )


@pytest.mark.parametrize(
    ("name", "geometry"), [("mlp", None), slow("mlp", potential), slow("lenet", None)]
)
def test_each_task_is_learned_as_in_meta_training(path, name, geometry):
    """Five steps from the start on one task, then on another: the inner rule's own points."""
    geometry, params, module = kept(path, name, geometry)
    model, optimiser = (
        MODELS[name][0],
        MirrorDescent(module.named_parameters(), path, verbose=False),
    )
    images, labels = batch(name, "float64")
    tasks = [(images, labels), (images[::-1].copy(), labels)]

    def loss(point, shared, task):
        return cross_entropy(model.apply(point, task[0]), task[1])

    for task in tasks:
        problem = Problem(loss, Repeat(jax.tree.map(jnp.asarray, task)))
        prior, key = Prior(geometry, params), jax.random.key(0)
        wanted = unroll(Inner(0.05), prior, problem, 5, key=key).last
        optimiser.restart()
        for _ in range(5):
            optimiser.zero_grad()
            shown = module(torch.tensor(task[0]).permute(0, 3, 1, 2))
            functional.cross_entropy(shown, torch.tensor(task[1])).backward()
            optimiser.step()
        for key, tensor in named(name, wanted).items():
            torch.testing.assert_close(module.state_dict()[key], tensor, rtol=1e-9, atol=1e-12)
        step = to_optax(path)
        point = learned_start(path, params)
        state = step.init(point)
        for _ in range(5):
            grads = jax.grad(loss)(point, None, jax.tree.map(jnp.asarray, task))
            updates, state = step.update(grads, state, point)
            point = optax.apply_updates(point, updates)
        for found, expected in zip(jax.tree.leaves(point), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_donated_parameters_leave_the_start_alone(path):
    params = make_params()
    save(path, Euclidean(), rate=0.1, start=params)
    artifact = load(path)
    step = jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)
    for _ in range(2):
        step(learned_start(artifact, params))
    assert_same_bits(learned_start(artifact, params), params)


def test_restarting_forgets_momentum(path):
    _, _, module = kept(path)
    params = list(module.parameters())
    optimiser = MirrorDescent(module.named_parameters(), path, momentum=0.9, verbose=False)
    ends = []
    for _ in range(2):
        optimiser.restart()
        for _ in range(3):
            for param in params:
                param.grad = torch.cos(param.detach())
            optimiser.step()
        ends.append([param.detach().clone() for param in params])
    for one, other in zip(*ends, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_a_file_without_a_start(path):
    params, module = start("mlp", "float64")
    save(path, diagonal(params), rate=0.1, roles=MODELS["mlp"][0].roles)
    assert load(path).start is None
    with pytest.raises(ArtifactError, match=r"geometry.safetensors holds no start; start where"):
        learned_start(path, params)
    optimiser = MirrorDescent(module.named_parameters(), path, verbose=False)
    with pytest.raises(ArtifactError, match="restart: the geometry was saved without a start;"):
        optimiser.restart()


def test_starts_that_cannot_be_saved(path):
    params = make_params()
    with pytest.raises(ValueError, match="save.params_like: the start says it already"):
        save(path, Euclidean(), rate=0.1, params_like=params, start=params)
    broken = params | {"mixture": [params["mixture"][0] * jnp.nan]}
    with pytest.raises(NumericalError, match="the start is not saved: start/mixture/0 holds"):
        save(path, Euclidean(), rate=0.1, start=broken)
    with pytest.raises(ValueError, match="save.start: 'start/steps' is of type int64"):
        save(path, Euclidean(), rate=0.1, start={"steps": jnp.arange(3)})
    with pytest.raises(ArtifactError, match="not those the geometry was learned for"):
        save(path, GEOMETRIES["max"], rate=0.1, start={"w": jnp.ones(2)})
    assert not path.exists()


def test_starts_of_other_parameters_are_refused(path):
    """The right checksum, and a start that is not that of the table."""
    save(path, Euclidean(), rate=0.1, start={"a": jnp.ones(2), "b": jnp.ones(3)})
    arrays, record = read_archive(path)
    for changed in (
        {name: array for name, array in arrays.items() if name != "start/a"},
        arrays | {"start/a": np.ones(3)},
        arrays | {"start/a": np.ones(2, int)},
    ):
        write_archive(path, changed, record)
        with pytest.raises(ArtifactError, match=r"holds a geometry that this mirrax cannot .*a"):
            load(path)
    write_archive(path, arrays, record | {"parameters": None})
    with pytest.raises(ArtifactError, match="a start and no table of parameters"):
        load(path)
    write_archive(path, arrays, record | {"start": False})
    with pytest.raises(ArtifactError, match="'start/a' is the start of no parameter"):
        load(path)
    write_archive(path, arrays | {"start/c": np.ones(2)}, record)
    with pytest.raises(ArtifactError, match="'start/c' is the start of no parameter"):
        load(path)
    write_archive(path, arrays, record | {"start": 1})
    with pytest.raises(ArtifactError, match="its word on a start is '1'"):
        load(path)


def test_types_that_do_not_reach_the_start(path):
    _, params, module = kept(path)
    far = jax.tree.map(lambda x: jnp.full_like(x, 1e5), params)
    save(path, Euclidean(), rate=0.1, start=far)
    half = jax.tree.map(lambda x: x.astype(jnp.float16), params)
    with pytest.raises(ArtifactError, match="start of 'dense_0/bias' has numbers .* in float16;"):
        learned_start(path, half)
    wide = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(learned_start(path, wide)))
    pairs = [(str(number), param) for number, param in enumerate(module.half().parameters())]
    far = {number: np.full(param.shape, 1e5) for number, param in pairs}
    save(path, Euclidean(), rate=0.1, start=far)
    before = [param.detach().clone() for _, param in pairs]
    optimiser = MirrorDescent(pairs, path, verbose=False)
    with pytest.raises(ArtifactError, match="start of '0' has numbers .* in float16;"):
        optimiser.restart()
    for (_, param), expected in zip(pairs, before, strict=True):
        torch.testing.assert_close(param, expected, rtol=0, atol=0)


def test_parameters_with_more_digits_than_the_start(path):
    params = make_params("float32")
    save(path, Euclidean(), rate=0.1, start=params)
    wide = jax.tree.map(lambda x: x.astype(jnp.float64), params)
    assert_same_bits(learned_start(path, wide), wide)
    _, single, module = kept(path, dtype="float32")
    MirrorDescent(module.double().named_parameters(), path, verbose=False).restart()
    for key, wanted in named("mlp", single).items():
        torch.testing.assert_close(module.state_dict()[key], wanted.double(), rtol=0, atol=0)


def test_restarting_in_another_type(path):
    """The start keeps its digits, though the parameters had fewer when the optimiser was made."""
    _, params, module = kept(path)
    optimiser = MirrorDescent(module.float().named_parameters(), path, verbose=False)
    module.double()
    optimiser.restart()
    for key, wanted in named("mlp", params).items():
        torch.testing.assert_close(module.state_dict()[key], wanted, rtol=0, atol=0)


def test_a_start_within_a_program(path):
    params = make_params()
    save(path, Euclidean(), rate=0.1, start=params)
    for source in (path, load(path)):
        assert_same_bits(jax.jit(lambda tree, s=source: learned_start(s, tree))(params), params)


def test_what_has_no_start(path):
    params = make_params()
    save(path, Euclidean(), rate=0.1, start=params)
    with pytest.raises(ValueError, match="learned_start.source: expected .* got Euclidean"):
        learned_start(Euclidean(), params)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="learned_start: .* got 'steps' of type int64; leave it"):
        learned_start(path, params | {"steps": jnp.arange(3)})
    whole = eqx.nn.MLP(2, 2, 2, 1, key=jax.random.key(0))
    with pytest.raises(ValueError, match="'activation' of type .*; leave it out with .*filter"):
        learned_start(path, whole)


def test_the_lines_that_a_run_prints(path):
    """They are run as they are, on a loop of somebody's own."""
    params = make_params()
    save(path, Euclidean(), rate=0.5, start=params)
    lines = lines_to_use(path, {})
    assert lines[0].endswith("# for each new task")
    given = {"mirrax": mirrax, "optax": optax, "gradients": jax.tree.map(jnp.ones_like, params)}
    here = given | {"params": jax.tree.map(jnp.zeros_like, params)}
    exec("\n".join(lines), here)  # noqa: S102
    assert_same_bits(here["params"], jax.tree.map(lambda x: x - 0.5, params))
    save(path, Euclidean(), rate=0.5, params_like=params)
    assert lines_to_use(path, {}) == lines[1:]
    # A comparison's row is met by its rate and momentum: 0.5 · 1.4 · (1 − 0.8).
    row = {"optimiser": "MetaMD", "hyperparameters": {"rate_scale": 1.4, "momentum": 0.8}}
    (line, *_) = lines_to_use(path, {"comparison": [{"optimiser": "SGD"}, row]})
    assert line.endswith('geometry.safetensors", 0.14, momentum=0.8, nesterov=True)')
