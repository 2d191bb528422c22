"""What has the shapes of something before is not compiled again, as JAX itself counts."""

import contextlib

import jax
import jax.numpy as jnp
import optax
from test_few_shot import KEY, classes, episodes, learner, prior

from mirrax.geometry import Diagonal
from mirrax.hypergradient import Reverse
from mirrax.inner import MirrorDescent
from mirrax.meta import Descent, ManyShot, quadratic
from mirrax.objective import RegretBound
from mirrax.study._few_shot_learn import judge
from mirrax.tasks import Episodes, sample_quadratics

LOWERED = "/jax/core/compile/jaxpr_to_mlir_module_duration"  # also where a cache has the program
_seen = []


@jax.monitoring.register_event_duration_secs_listener
def _listen(event, seconds, **facts):
    if event == LOWERED:
        _seen.append(facts)


@contextlib.contextmanager
def nothing_is_compiled():
    before = len(_seen)
    yield
    assert len(_seen) == before, _seen[before:]


def test_meta_steps_and_evaluations_of_the_same_shapes():
    """Other states, other classes, other tasks and other numbers of tasks."""
    teacher = learner()
    first, other = episodes(), other_classes()
    before = len(_seen)
    state, _ = teacher.run(teacher.init(prior(), key=KEY), first, 2)
    judge(teacher, state.prior, first, 25, further=0, key=KEY)
    assert len(_seen) > before
    with nothing_is_compiled():
        state, _ = teacher.run(state, other, 2)
        judge(teacher, state.prior, other, 25, further=0, key=jax.random.key(7))


def other_classes():
    """Another family with as many classes and images."""
    images = classes()[::-1].copy()
    like = episodes()
    return Episodes(images, like.counts, like.way, like.shot, like.query, like.scale)


def test_rounds_of_the_same_shapes():
    """Other rounds, other tasks, another geometry, and types that come from Python's numbers."""
    descent = Descent(RegretBound(0.1), Reverse(5), optax.sgd(0.1))
    teacher = ManyShot(MirrorDescent(0.1), descent, lambda key: jax.random.normal(key, (2,)))
    some, others = (quadratic(sample_quadratics(jax.random.key(i), 3)) for i in range(2))
    wide, narrow = (Diagonal(jnp.full(2, size)) for size in (0.0, 1.0))
    begin = teacher.init(narrow, key=KEY)
    state, _ = teacher.round(teacher.init(wide, key=KEY), some)
    with nothing_is_compiled():
        state, _ = teacher.round(state, others)
        teacher.round(begin, some)
