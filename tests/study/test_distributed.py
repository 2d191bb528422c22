"""Several processes make one run: the same bits as one with as many devices, whoever is lost."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import jax
import pytest

from mirrax.cli import main

WORDS = (
    "train few-shot-glyphs --budget smoke --method maml --baselines anil --model mlp-8 --tasks 2 "
    "--steps 1 --curve-steps 1 --stride 1 --meta-steps 60 --validate-every 5 --validation-tasks 2 "
    "--test-tasks 2 --json"
).split()
BOUND = 120
"""Seconds within which the rest must end; it takes one, were it not for a busy machine."""

LOST = "mirrax: another process of this run was lost"


def start(folder, words, process=None, *, count=2, devices=1, port=None, **more):
    """A command in a process of its own, one of several if it has a number."""
    environment = os.environ | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_PLATFORMS": "cpu",
        **more,
    }
    if process is not None:
        words = [*words, "--distributed"]
        environment |= {
            "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
            "JAX_NUM_PROCESSES": str(count),
            "JAX_PROCESS_ID": str(process),
            "MIRRAX_JOIN_SECONDS": environment.get("MIRRAX_JOIN_SECONDS", str(BOUND)),
        }
    command = [sys.executable, "-m", "mirrax.cli", *words, "--out", str(folder)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True)


def pair(folder, words, other=None):
    """Two processes; the second one's folder is never made."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    first = start(folder, words, 0, port=port)
    return first, start(folder.with_name("never"), other or words, 1, port=port)


def ended(process, timeout=600):
    """Its status and what it said."""
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


def result(folder):
    """What a run has found, but for what a clock says."""
    priors = [path.read_bytes() for path in sorted(folder.rglob("prior.safetensors"))]
    summary = json.loads((folder / "summary.json").read_text())
    for row in summary["methods"]:
        row.pop("seconds_per_step", None)
    assert len(priors) == 2
    return priors, summary


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The run of one process with two devices."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    status, _, err = ended(start(folder, WORDS, devices=2))
    assert status == 0, err
    return result(folder)


@pytest.mark.slow
def test_two_processes_are_one_with_two_devices(tmp_path, alone):
    """To the bit; one of them writes and speaks, and their folders need not be shared."""
    first, second = (ended(one) for one in pair(tmp_path / "run", WORDS))
    assert first[0] == 0 and second[0] == 0, first[2] + second[2]
    assert result(tmp_path / "run") == alone
    assert json.loads(first[1])["recipe"]
    assert second[1] == "" and not (tmp_path / "never").exists()


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
@pytest.mark.parametrize("rest", ["together", "alone"])
def test_what_is_left_of_a_lost_process(tmp_path, alone, lost, rest):
    """The other one ends soon, with a clear line; a restart, by both or by one, completes it."""
    folder = tmp_path / "run"
    processes = pair(folder, WORDS)
    deadline = time.monotonic() + 600
    while not list(folder.rglob("round-*.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.02)
    processes[lost].send_signal(signal.SIGKILL)
    ended(processes[lost])
    status, _, err = ended(processes[1 - lost], BOUND)
    assert status not in (0, None) and err.splitlines()[-1].startswith(LOST), err
    assert not (folder / "summary.json").exists()
    again = [*WORDS, "--resume"]
    left = pair(folder, again) if rest == "together" else [start(folder, again, devices=2)]
    for one in left:
        status, _, err = ended(one)
        assert status == 0, err
    assert result(folder) == alone


@pytest.mark.slow
def test_two_processes_go_on_with_a_run_of_one(tmp_path, alone):
    folder = tmp_path / "run"
    shorter = [*WORDS, "--meta-steps", "20"]
    assert ended(start(folder, shorter, devices=2))[0] == 0
    for one in pair(folder, [*WORDS, "--resume", "--meta-steps", "60"]):
        status, _, err = ended(one)
        assert status == 0, err
    assert result(folder)[0] == alone[0]


@pytest.mark.slow
def test_processes_that_were_asked_for_different_things(tmp_path):
    for one in pair(tmp_path / "run", WORDS, [*WORDS, "--outer-rate", "0.5"]):
        status, _, err = ended(one)
        assert status == 2
        assert err.splitlines()[-1] == (
            "mirrax: process 1 differs from process 0 in its command; start all processes of a run "
            "alike."
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_process_that_nobody_joins(tmp_path):
    """JAX ends the process from within; the last line is ours."""
    alone = start(tmp_path / "run", WORDS, 1, port=9, MIRRAX_JOIN_SECONDS="2")
    status, _, err = ended(alone, BOUND)
    assert status not in (0, None)
    assert err.splitlines()[-1].startswith("mirrax: not all processes of this run have met"), err


@pytest.mark.parametrize(
    "name, value, told",
    [
        ("JAX_NUM_PROCESSES", "two", "expected a whole number from 1, got 'two'"),
        ("JAX_PROCESS_ID", "2", "expected 0 to 1, as JAX_NUM_PROCESSES is 2"),
        ("JAX_COORDINATOR_ADDRESS", "one", "expected HOST:PORT of the first process, got 'one'"),
        ("MIRRAX_JOIN_SECONDS", "0", "expected a whole number from 1, got '0'"),
    ],
)
def test_an_environment_that_makes_no_sense(monkeypatch, capsys, tmp_path, name, value, told):
    whole = {"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0", "JAX_COORDINATOR_ADDRESS": "a:1"}
    for key, text in (whole | {name: value}).items():
        monkeypatch.setenv(key, text)
    words = ["train", "few-shot-glyphs", "--distributed", "--out", str(tmp_path / "run")]
    assert main(words) == 2
    assert capsys.readouterr().err == f"mirrax: {name}: {told}.\n"


def test_what_is_not_spread(capsys):
    assert main(["train", "quadratics", "--distributed"]) == 2
    told = capsys.readouterr().err
    assert told == "mirrax: --distributed: nothing of quadratics is spread over devices.\n"
    assert jax.process_count() == 1
