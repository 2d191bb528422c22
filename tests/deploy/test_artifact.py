"""The artifact: every geometry to the bit; other architectures, versions and damage refused."""

import errno
import json
import os
import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from deployed import (
    BY_ROLES,
    GEOMETRIES,
    ROLES,
    assert_close,
    assert_same_bits,
    cast,
    make_params,
)

import mirrax
from mirrax import geometry as geometries
from mirrax._errors import ArtifactError, MirraxError, NumericalError
from mirrax.deploy import (
    Artifact,
    _artifact,
    _encoding,
    check_fits,
    load,
    register,
    save,
    storable,
    to_optax,
)
from mirrax.deploy._archive import read_archive, write_archive
from mirrax.deploy._encoding import REGISTRY
from mirrax.geometry import (
    AbstractGeometry,
    AbstractMirrorMap,
    Blockwise,
    Diagonal,
    Euclidean,
    PNorm,
    Scaled,
)

STORED = GEOMETRIES | BY_ROLES


@pytest.fixture
def path(tmp_path):
    return tmp_path / "geometry.safetensors"


def refused(call, *words):
    with pytest.raises(ArtifactError) as caught:
        call()
    for word in words:
        assert word in str(caught.value)
    return str(caught.value)


def test_every_public_geometry_is_in_the_registry_and_tested():
    public = {
        name
        for name, value in vars(geometries).items()
        if isinstance(value, type) and not name.startswith("Abstract")
    }
    public -= {"Factors"}  # the parts of a Kronecker
    assert public == set(REGISTRY)
    assert public == {type(geometry).__name__ for geometry in STORED.values()}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", STORED)
def test_every_geometry_comes_back_to_the_bit(name, dtype, path):
    geometry = cast(STORED[name], dtype)
    params = make_params(dtype)
    save(path, geometry, rate=1 / 3, params_like=params, roles=ROLES, record={"seed": 3})
    artifact = load(path)
    assert_same_bits(artifact.geometry, geometry)
    assert artifact.rate == 1 / 3 and artifact.record == {"seed": 3}
    names = ("dense_0/bias", "dense_0/weight", "mixture/0")
    assert artifact.names == names
    assert artifact.shapes == dict(zip(names, [(2,), (3, 2), (4,)], strict=True))
    assert artifact.roles["dense_0/weight"] == ("in", "out")
    assert {leaf.dtype for leaf in artifact.leaves or ()} == {dtype}
    check_fits(artifact, params)
    check_fits(artifact, jax.eval_shape(lambda: params))


@pytest.mark.parametrize(
    "name",
    ["diagonal", "max", "kronecker", "transformed-kronecker", "scaled", "blockwise-linear"],
)
def test_a_geometry_with_arrays_knows_its_table(name, path):
    save(path, STORED[name], rate=0.1)
    found = load(path)
    if name == "blockwise-linear":  # its Euclidean block takes anything below dense_0
        assert found.leaves is None
    else:
        assert found.shapes == {
            "dense_0/bias": (2,),
            "dense_0/weight": (3, 2),
            "mixture/0": (4,),
        }
    check_fits(found, make_params())
    refused(lambda: check_fits(found, {"other": jnp.zeros(2)}), "absent")


@pytest.mark.parametrize(
    "name", ["kronecker", "transformed-kronecker", "convex", "blockiaf", "mode-products"]
)
def test_what_comes_back_acts_as_before(name, path):
    params, stored = make_params(), STORED[name]
    save(path, stored, rate=0.1, params_like=params)
    act = type(stored).apply if name == "mode-products" else type(stored).to_primal
    assert_same_bits(act(load(path).geometry, params), act(stored, params))


@pytest.mark.parametrize("name", ["convex", "blockiaf"])
def test_what_mixes_arrays_steps_under_optax(name, path):
    params, mirror_map = make_params(), BY_ROLES[name]
    save(path, mirror_map, rate=0.1, params_like=params)
    slope = jax.tree.map(jnp.cos, params)
    optimiser = to_optax(path)
    updates, _ = optimiser.update(slope, optimiser.init(params), params)
    dual = jax.tree.map(lambda z, g: z - 0.1 * g, mirror_map.to_dual(params), slope)
    expected = jax.tree.map(jnp.subtract, mirror_map.to_primal(dual), params)
    # The step is a difference of numbers ten times its size.
    assert_close(updates, expected, 1e-13)


def test_a_preconditioner_is_no_mirror_map(path):
    save(path, BY_ROLES["mode-products"], rate=0.1)
    with pytest.raises(ValueError, match="to_optax.source: .* got ModeProducts"):
        to_optax(path)


def test_a_convex_potential_knows_its_table(path):
    save(path, BY_ROLES["convex"], rate=0.1)
    assert load(path).shapes == {"dense_0/bias": (2,), "dense_0/weight": (3, 2), "mixture/0": (4,)}


def test_a_geometry_without_arrays_fits_anything_unless_told(path):
    save(path, Euclidean(), rate=0.1)
    assert load(path).names is None
    check_fits(load(path), {"anything": jnp.zeros(3)})
    save(path, Euclidean(), rate=0.1, params_like=make_params())
    refused(lambda: check_fits(load(path), {"anything": jnp.zeros(3)}), "anything", "absent")


def test_bare_arrays_and_odd_names(path):
    for params in (
        jnp.ones(3),
        (jnp.ones(3), [jnp.ones(())]),
        {"mlp/~/linear": {"w": jnp.ones(2)}},
    ):
        save(path, Diagonal.like(params), rate=0.1)
        assert_same_bits(load(path).geometry, Diagonal.like(params))
        check_fits(load(path), params)


def test_modules_are_kept_by_name(path):
    model = eqx.nn.MLP(2, 3, 4, 1, key=jax.random.key(0))
    params = eqx.filter(model, eqx.is_inexact_array)
    save(path, Diagonal.like(params, 2.0), rate=0.1)
    artifact = load(path)
    assert artifact.shapes is not None and artifact.shapes["layers/0/weight"] == (4, 2)
    check_fits(artifact, params)


def test_names_that_collide_are_refused(path):
    params = {"a/b": jnp.ones(2), "a": {"b": jnp.ones(2)}}
    with pytest.raises(ValueError, match="a/b"):
        save(path, Diagonal.like(params), rate=0.1)
    assert not path.exists()


def test_both_tables_are_shown(path):
    save(path, GEOMETRIES["diagonal"], rate=0.1)
    other = make_params()
    other["dense_0"]["weight"] = jnp.zeros((5, 2))
    other["dense_1"] = {"bias": jnp.zeros(7)}
    other["mixture"] = [jnp.zeros(4), jnp.zeros(())]
    del other["dense_0"]["bias"]
    message = refused(lambda: check_fits(load(path), other))
    assert message.splitlines()[1:] == [
        "    parameter       geometry  here",
        "  ! dense_0/bias    (2,)      absent",
        "  ! dense_0/weight  (3, 2)    (5, 2)",
        "    mixture/0       (4,)      (4,)",
        "  ! dense_1/bias    absent    (7,)",
        "  ! mixture/1       absent    ()",
    ]


def test_saving_for_other_parameters_is_refused(path):
    call = lambda: save(path, GEOMETRIES["max"], rate=0.1, params_like={"w": jnp.zeros(2)})  # noqa: E731
    refused(call, "absent")
    blocks = Blockwise({"a": Euclidean(), "b": PNorm(1.5)})
    call = lambda: save(path, blocks, rate=0.1, params_like={"a": jnp.zeros(2)})  # noqa: E731
    refused(call, "any", "absent")
    assert not path.exists()


@pytest.mark.parametrize("rate", [0, -0.1, float("nan"), float("inf"), None, "fast"])
def test_rates_are_checked(rate, path):
    with pytest.raises(ValueError, match=r"save.rate: expected a positive finite number, got"):
        save(path, Euclidean(), rate=rate)


@pytest.mark.parametrize(
    ("roles", "match"),
    [
        ({"dense_0": {"wieght": ("in", "out")}}, "Did you mean 'dense_0/weight'"),
        ({"dense_0": {"weight": ("in",)}}, "expected 2 strings"),
        ({"dense_0": {"weight": 3}}, "expected 2 strings"),
    ],
)
def test_roles_are_checked(roles, match, path):
    with pytest.raises(ValueError, match=match):
        save(path, GEOMETRIES["diagonal"], rate=0.1, roles=roles)
    with pytest.raises(ValueError, match="params_like"):
        save(path, Euclidean(), rate=0.1, roles=ROLES)


def test_a_diverged_geometry_is_not_saved(path):
    with pytest.raises(NumericalError, match=r"log_diagonal/w holds .* not finite"):
        save(path, Diagonal({"w": jnp.array([0.0, jnp.nan])}), rate=0.1)
    assert not path.exists()


def test_an_unknown_class_is_refused_at_both_ends(path):
    class Stranger(Diagonal):
        pass

    with pytest.raises(ValueError, match="class Stranger"):
        save(path, Stranger({"w": jnp.zeros(2)}), rate=0.1)
    with pytest.raises(ValueError, match="class Stranger"):
        save(path, Scaled(Stranger({"w": jnp.zeros(2)}), jnp.zeros(())), rate=0.1)
    assert issubclass(Stranger, AbstractGeometry) and not path.exists()


def test_a_checkpoint_is_not_a_geometry(path):
    write_archive(path, {}, {"kind": "checkpoint"})
    refused(lambda: load(path), "holds a checkpoint, not a geometry", str(path))
    write_archive(path, {}, {})
    refused(lambda: load(path), "something else")


def test_a_newer_version_asks_for_an_upgrade(path, monkeypatch):
    monkeypatch.setattr(_artifact, "VERSION", 2)
    save(path, Euclidean(), rate=0.1)
    monkeypatch.undo()
    refused(lambda: load(path), "version 2", mirrax.__version__, "upgrade mirrax", str(path))


@pytest.mark.parametrize(
    "edit",
    [
        {"geometry": {"class": "Neural", "static": {}, "fields": {}}},
        {"geometry": {"class": "BlockIAF", "static": {}, "fields": {}}},
        {"geometry": {"class": "ModeProducts", "static": {"axes": 3}, "fields": {}}},
        {"geometry": {"class": "ModeLinear", "static": {}, "fields": {"factors": {"tuple": []}}}},
        {"geometry": {"class": "PNorm", "static": {"p": 1.5, "gauge": 1}, "fields": {}}},
        {"geometry": {"class": "PNorm", "static": {"p": -1}, "fields": {}}},
        {"geometry": {"class": "PNorm", "static": [], "fields": {}}},
        {"geometry": {"class": "PNorm", "static": {"p": 2.0}, "fields": []}},
        {"geometry": {"dict": {}}},
        {"geometry": {"class": [], "static": {}, "fields": {}}},
        {"geometry": {"class": "Diagonal", "static": {}, "fields": {"log_diagonal": 3}}},
        {
            "geometry": {
                "class": "Diagonal",
                "static": {},
                "fields": {"log_diagonal": {"array": "absent"}},
            }
        },
        {"parameters": [{"name": "w"}]},
        {"parameters": 3},
        {"rate": -1},
        {"version": "1"},
    ],
)
def test_content_that_cannot_be_rebuilt(edit, path):
    save(path, PNorm(1.5), rate=0.1)
    arrays, metadata = read_archive(path)
    write_archive(path, arrays, {**metadata, **edit})
    line = refused(lambda: load(path), str(path), "upgrade mirrax")
    assert "\n" not in line


def test_full_disk_leaves_the_old_artifact(path, monkeypatch):
    save(path, PNorm(1.5), rate=0.1)

    def full(descriptor, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(MirraxError, match="disk is full"):
        save(path, PNorm(3.0), rate=0.2)
    monkeypatch.undo()
    assert load(path).rate == 0.1 and list(path.parent.iterdir()) == [path]


def test_damage_is_refused(path):
    save(path, GEOMETRIES["diagonal"], rate=0.1)
    whole = bytearray(path.read_bytes())
    whole[-3] ^= 1
    path.write_bytes(whole)
    refused(lambda: load(path), "damaged", "checksum")


def test_numpy_alone_reads_what_it_needs(path):
    """The layout that readers without JAX rely on."""
    save(path, GEOMETRIES["scaled"], rate=0.1, roles=ROLES)
    code = f"""
import json, sys
from mirrax.deploy._archive import read_archive
from mirrax.deploy._layout import Leaf
arrays, metadata = read_archive({str(path)!r})
assert "jax" not in sys.modules and "torch" not in sys.modules
leaves = [Leaf.from_json(row) for row in metadata["parameters"]]
print(json.dumps([metadata["geometry"]["class"], sorted(arrays), [leaf.roles for leaf in leaves]]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    name, arrays, roles = json.loads(done.stdout)
    assert name == "Scaled" and roles[1] == ["in", "out"]
    assert arrays == [
        "geometry/log_diagonal/dense_0/bias",
        "geometry/log_diagonal/dense_0/weight",
        "geometry/log_diagonal/mixture/0",
        "log_scale",
    ]


def test_without_64_bits_numbers_become_32(path):
    save(path, Diagonal({"w": jnp.array([0.1, 0.2])}), rate=0.1)
    jax.config.update("jax_enable_x64", False)
    try:
        geometry = load(path).geometry
    finally:
        jax.config.update("jax_enable_x64", True)
    assert isinstance(geometry, Diagonal)
    np.testing.assert_array_equal(geometry.log_diagonal["w"], np.array([0.1, 0.2], np.float32))


def test_public_names():
    from mirrax import deploy

    names = {"Artifact", "AveragedState", "averaged", "averaged_params"}
    names |= {"check_fits", "layer_roles", "learned_start", "load", "register", "save", "storable"}
    names |= {"to_optax"}
    assert deploy.__all__ == sorted(names)
    assert set(deploy.__all__) <= set(dir(deploy))
    assert Artifact is deploy.Artifact
    with pytest.raises(AttributeError, match="no attribute 'train'"):
        deploy.train  # noqa: B018


# --- classes of others --------------------------------------------------------------------------


class Tilted(AbstractMirrorMap):
    """`x = s ⊙ z + tilt`, with a field of each kind."""

    scales: jax.Array
    tilt: float = eqx.field(static=True)

    def to_dual(self, primal):
        return {"w": (primal["w"] - self.tilt) / self.scales}

    def to_primal(self, dual):
        return {"w": self.scales * dual["w"] + self.tilt}


def test_a_registered_class_comes_back_to_the_bit(path, monkeypatch):
    monkeypatch.setattr(_encoding, "_OWN", {})
    geometry = Tilted(jnp.array([0.1, 0.2]), 0.25)
    with pytest.raises(ValueError, match="class Tilted; .* deploy.register adds one of your own"):
        save(path, geometry, rate=0.1)
    assert register(Tilted) is Tilted and storable(geometry)
    save(path, geometry, rate=0.1, params_like={"w": jnp.zeros(2)})
    artifact = load(path)
    assert eqx.tree_equal(artifact.geometry, geometry)
    params = {"w": jnp.ones(2)}
    optimiser = to_optax(path)
    updates, _ = optimiser.update(params, optimiser.init(params), params)
    # The difference of two points near one: a rounding of each, 1.1e-16; found 1.04e-16.
    np.testing.assert_allclose(updates["w"], -0.1 * geometry.scales, rtol=0, atol=2.3e-16)

    register(type("Tilted", (Tilted,), {"__module__": __name__, "__qualname__": "Tilted"}))
    assert not storable(geometry)  # a notebook's cell, run again
    monkeypatch.setattr(_encoding, "_OWN", {})
    refused(lambda: load(path), "unknown class 'Tilted'", "by deploy.register")


def test_classes_that_cannot_be_registered():
    with pytest.raises(ValueError, match="register: expected a class of mirror maps .* got dict"):
        register(dict)
    for taken in ("Diagonal", "Factors"):
        with pytest.raises(ValueError, match=f"'{taken}' is the name of mirrax.geometry"):
            register(type(taken, (Tilted,), {}))


class Longer(Diagonal):
    """What a class of this library is taken for would be its base."""

    def to_primal(self, dual):
        return jax.tree.map(lambda leaf: 100 * leaf, super().to_primal(dual))


class Begun(Tilted):
    start: jax.Array


@pytest.mark.parametrize("wrap", [lambda inner: inner, lambda inner: Scaled(inner, jnp.zeros(()))])
def test_what_is_derived_from_a_final_class_is_not_taken_for_it(wrap):
    with pytest.raises(ValueError, match="register: Longer is derived from Diagonal, which is fin"):
        register(Longer)
    with pytest.raises(ValueError, match="Longer is derived from Diagonal, whose steps it would"):
        to_optax(wrap(Longer({"w": jnp.zeros(2)})), 0.1)


def test_a_field_that_files_have_a_name_for_is_refused():
    with pytest.raises(ValueError, match="register: Begun has a field 'start'"):
        register(Begun)


def test_types_that_no_file_holds_are_refused(path):
    with pytest.raises(ValueError, match="save.geometry: 'log_diagonal/w' is of type bfloat16"):
        save(path, Diagonal({"w": jnp.zeros(2, jnp.bfloat16)}), rate=0.1)
    assert not path.exists()
