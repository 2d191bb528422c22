"""Inner problems: how one task is learned.

A `Prior` is all that is learned across tasks, a `Problem` all that one task contributes, and an
inner rule steps from one to the other. `unroll` runs the rule and keeps the whole `Trajectory`;
`evaluate` runs it and keeps only what an objective says the run is worth.
"""

from ._batches import AbstractBatches as AbstractBatches
from ._batches import Minibatch as Minibatch
from ._batches import Repeat as Repeat
from ._batches import Stream as Stream
from ._descent import AbstractInner as AbstractInner
from ._descent import DualDescent as DualDescent
from ._descent import InnerState as InnerState
from ._descent import MirrorDescent as MirrorDescent
from ._descent import PreconditionedDescent as PreconditionedDescent
from ._descent import Rate as Rate
from ._descent import Step as Step
from ._descent import mirror_step as mirror_step
from ._learned_update import LearnedUpdate as LearnedUpdate
from ._problem import Prior as Prior
from ._problem import Problem as Problem
from ._proximal import BregmanProximal as BregmanProximal
from ._proximal import ProximalMemory as ProximalMemory
from ._randomness import drawn as drawn
from ._stationary import AbstractStationaryInner as AbstractStationaryInner
from ._unroll import AbstractObjective as AbstractObjective
from ._unroll import RunSummary as RunSummary
from ._unroll import Trajectory as Trajectory
from ._unroll import evaluate as evaluate
from ._unroll import fold as fold
from ._unroll import unroll as unroll
from ._unroll import with_reference as with_reference
