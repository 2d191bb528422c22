r"""Training runs on images that are decoded on the way, each in a folder of its own.

A run is one compiled program for a chunk of steps, called once a chunk. The next chunk of batches
is decoded and travels to the device while one is computed, and nothing comes back before the
accuracies are measured. There the run is written down, so that one that is stopped goes on from
there, with the batches that it would have seen.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Int, PRNGKeyArray

from .._errors import ConfigError
from .._files import write_json
from .._json import plain
from ..meta import classification_loss
from ..models import Model, accuracy, cross_entropy
from ..tasks import StreamedTask
from ._baselines import Hyperparameters, Make, Method, as_trained
from ._folder import RunFolder
from ._judged import MOST, judged_logits
from ._trials import curve_steps

_RESULT = "result.json"


class Sight(eqx.Module):
    """The images on which a run is measured, on the device.

    **Arguments:**

    - `train`, `test`: images and labels of either part.
    - `model`: the network.
    - `scale`: what stored pixels are multiplied by.
    """

    train: tuple[Array, Array]
    test: tuple[Array, Array]
    model: Model = eqx.field(static=True)
    scale: float = eqx.field(static=True)


def sight(task: StreamedTask, model: Model, rows: int) -> Sight:
    """Decodes the images on which runs are measured.

    **Arguments:**

    - `task`, `model`: what is learned, by what.
    - `rows`: how many images of each part at most.

    **Raises:**

    - `DataError`: an image that is unreadable or damaged.
    """
    train, test = (jax.device_put(task.sample(part, rows)) for part in ("train", "test"))
    return Sight(train, test, model, task.scale)


@dataclasses.dataclass(frozen=True)
class Pace:
    """How long a run is, and how it is cut.

    **Arguments:**

    - `batch`, `steps`: images a step, and steps a run.
    - `stride`: accuracies are measured every so many steps; a divisor of `steps`.
    - `chunk`: steps of one call of the compiled program; a divisor of `stride`.
    """

    batch: int
    steps: int
    stride: int
    chunk: int


class Course(eqx.Module):
    """Where a run is."""

    params: Any
    state: Any
    looks: Int[Array, ""]


def _optimiser(make: Make, context: Any, values: dict[str, Array]) -> optax.GradientTransformation:
    """The optimiser of all parameters as one array.

    ResNet-50 has 161 of them, and an update of each on its own takes longer to compile than the
    whole network does.
    """
    return optax.flatten(make(values, context))


@eqx.filter_jit
def _begin(make: Make, context: Any, values: dict[str, Array], model: Model, key: PRNGKeyArray):
    params = model.init(key)
    return Course(params, _optimiser(make, context, values).init(params), jnp.zeros((), jnp.int32))


@eqx.filter_jit
def _advance(
    make: Make,
    context: Any,
    values: dict[str, Array],
    loss: Callable[..., Array],
    course: Course,
    batches: tuple[Array, Array],
) -> Course:
    """A step a batch."""
    optimiser = _optimiser(make, context, values)

    def step(carry: tuple[Any, Any], batch: tuple[Array, Array]) -> tuple[tuple[Any, Any], None]:
        params, state = carry
        updates, state = optimiser.update(jax.grad(loss)(params, None, batch), state, params)
        return (optax.apply_updates(params, updates), state), None

    (params, state), _ = lax.scan(step, (course.params, course.state), batches)
    return Course(params, state, course.looks)


@eqx.filter_jit
def _look(place: Sight, params: Any) -> tuple[Array, Array, Array]:
    """Training loss, and shares of training and of test images classified correctly."""

    def judge(part: tuple[Array, Array]) -> tuple[Array, Array]:
        images, labels = part
        logits = judged_logits(place.model, params, images, place.train[0][:MOST], place.scale)
        return cross_entropy(logits, labels), accuracy(logits, labels)

    (loss, train), (_, test) = judge(place.train), judge(place.test)
    return loss, train, test


def run_streamed(
    method: Method,
    values: Hyperparameters,
    task: StreamedTask,
    place: Sight,
    pace: Pace,
    folder: RunFolder,
    *,
    key: PRNGKeyArray,
    advance: Callable[[float], None] = lambda share: None,
    warn: Callable[[str], None] = lambda line: None,
) -> np.ndarray:
    """Makes what is left of one training run.

    A run whose training loss is not finite where it is measured has diverged and ends there: its
    loss is not finite from then on, and its accuracies stay what they are.

    **Arguments:**

    - `method`, `values`: the optimiser and its configuration; one whose parameters are judged as
        they are, since its state is that of one array.
    - `task`: what is learned.
    - `place`: on what it is measured.
    - `pace`: how long.
    - `folder`: where it is written down, and found again.
    - `key`: initial weights and batches; equal keys give equal ones to every method.
    - `advance`: told the share of the run done since the last call.
    - `warn`: told of each damaged checkpoint that was passed over, in a line.

    **Returns:**

    Training loss, training and test accuracy at step 0, `stride`, …, `steps`, `(points, 3)`.

    **Raises:**

    - `ConfigError`: what was written down is damaged.
    - `DataError`: an image that is unreadable or damaged.
    - `ValueError`: a method that reads the parameters to be judged from its state.
    """
    if method.read is not as_trained:
        raise ValueError(
            "run_streamed.method: expected one whose parameters are judged as trained, got "
            f"{method.name!r}, which reads them from a state of its own."
        )
    points = curve_steps(pace.steps, pace.stride)
    done = folder.read_json(_RESULT)
    if done is not None:
        folder.drop_checkpoints()  # of a run that was killed before it could
        advance(1.0)
        return _curve(done["lines"], len(points))
    start_key, order_key = jax.random.split(key)
    arrays = {name: jnp.asarray(value, float) for name, value in values.items()}
    optimiser = method.make, method.context, arrays
    # Behind a damaged checkpoint is an older one; what is made again from there is the same.
    course, damaged = folder.load_checkpoint(_begin(*optimiser, place.model, start_key))
    for line in damaged:
        warn(line)
    lines = folder.truncate_metrics(int(course.looks))
    if len(lines) != int(course.looks):
        raise ConfigError(
            f"{folder / 'metrics.jsonl'} lacks lines; delete {folder.path} and pass --resume to "
            "make this run again."
        )
    advance(len(lines) / len(points))

    def look(course: Course) -> Course:
        found = _look(place, course.params)
        loss, train, test = (float(value) for value in found)
        line = {"round": len(lines), "loss": loss, "train": train, "test": test}
        course = dataclasses.replace(course, looks=course.looks + 1)
        folder.append_metrics(plain(line))
        folder.save_checkpoint(course, len(lines) + 1)
        lines.append(plain(line))
        advance(1 / len(points))
        return course

    course = course if lines else look(course)
    step = points[len(lines) - 1]
    loss = classification_loss(place.model, place.scale)
    seed = tuple(np.asarray(jax.random.key_data(order_key)).tolist())
    wanted = {"seed": seed, "first": step, "chunk": pace.chunk}
    before = course
    with contextlib.closing(task.batches(pace.batch, pace.steps, **wanted)) as chunks:
        while lines[-1]["loss"] is not None and step < pace.steps:
            batches = jax.device_put(next(chunks))
            # One chunk computed and one waiting; else all that are decoded would pile up there.
            jax.block_until_ready(before)
            before, course = course, _advance(*optimiser, loss, course, batches)
            step += pace.chunk
            if step % pace.stride == 0:
                course = look(course)
    write_json(folder / _RESULT, {"lines": lines})
    folder.drop_checkpoints()
    return _curve(lines, len(points))


def _curve(lines: list[dict[str, Any]], points: int) -> np.ndarray:
    """As `run_streamed` returns; a run that ended early stays where it was."""
    found = [(line["loss"], line["train"], line["test"]) for line in lines]
    found += [found[-1]] * (points - len(found))
    return np.array([[math.nan if value is None else value for value in row] for row in found])
