"""Rounds over grids of devices: the curve of one device, and as many bytes sent as modelled."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from benchmarks import scaling

ROOT = Path(__file__).parents[2]

TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
"""The curves are asked to agree to 1e-5 in float32; they do to 2e-7, a rounding or two of a sum."""

LEARNED = 16 * 6 + 6 + 6 * 3 + 3
"""A rate for each parameter of the perceptron."""


def rounds(model, dtype, *grids):
    """What `grid_program` finds on 8 devices."""
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    program = Path(__file__).with_name("grid_program.py")
    done = subprocess.run(
        [sys.executable, str(program), model, dtype, *grids],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def agree(found, one, dtype):
    for key in ("curve", "learned"):
        np.testing.assert_allclose(found[key], one[key], rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.slow
def test_eight_devices_make_the_curve_of_one():
    """And twice the same bits; a run that changes between them differs by rounding alone."""
    one, eight, again, changing = rounds("mlp-6", "float32", "1x1", "8x1", "8x1", "1x1,8x1")
    assert np.ptp(one["curve"]) > 0.01  # something is learned
    assert eight["curve"] == again["curve"] and eight["learned"] == again["learned"]
    agree(eight, one, "float32")
    agree(changing, one, "float32")
    # Besides the sum of hypergradients, the record's three numbers a run are gathered.
    found = scaling.collectives(eight["programs"]["8x1"])
    summed = sum(entry["bytes"] for entry in found if entry["kind"] == "all-reduce")
    assert summed == scaling.payload(LEARNED)
    assert sum(entry["bytes"] for entry in found) - summed == 3 * 8 * 4
    assert not scaling.collectives(one["programs"]["1x1"])


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mlp-6", "conv4-2"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_any_grid_makes_the_curve_of_one(model, dtype):
    """Batches too are split, whose statistics normalise the convolutional network."""
    grids = ("2x1", "2x4", "1x8", "2x1:turn", "1x2:turn", "1x1,2x1,8x1,1x1")
    one, *others = rounds(model, dtype, "1x1", *grids)
    for other in others:
        agree(other, one, dtype)
    # The images themselves are never moved, only sums over them.
    for other, grid in ((others[2], "1x8"), (others[4], "1x2:turn")):
        found = scaling.collectives(other["programs"][grid])
        assert {entry["kind"] for entry in found} == {"all-reduce"}


def test_the_page_has_the_table_of_the_model():
    assert scaling.modelled() in (ROOT / "docs" / "scaling.md").read_text()
