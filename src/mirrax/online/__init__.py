"""One pass, no tasks: update rules that are learned while they are used.

`online_sgd` and `online_adagrad` are optax transformations whose rates learn themselves, at one
gradient a step. `FTRL` is the online learner of the theory, with or without hints, and `ConvexMeta`
the convex setting, where bounds hold, with Heavy Ball and Nesterov as special cases. `Bootstrapped`
learns a rule by matching targets further on.
"""

from ._adagrad import online_adagrad as online_adagrad
from ._bootstrap import Ahead as Ahead
from ._bootstrap import Bootstrapped as Bootstrapped
from ._bootstrap import Bootstrapping as Bootstrapping
from ._bootstrap import BootstrapState as BootstrapState
from ._bootstrap import FromHint as FromHint
from ._bootstrap import GradientStep as GradientStep
from ._convex import ConvexMeta as ConvexMeta
from ._convex import ConvexState as ConvexState
from ._convex import Round as Round
from ._convex import UpdateRule as UpdateRule
from ._convex import is_affine as is_affine
from ._ftrl import FTRL as FTRL
from ._ftrl import AdaGrad as AdaGrad
from ._ftrl import FTRLState as FTRLState
from ._ftrl import linear_weights as linear_weights
from ._hints import Accelerated as Accelerated
from ._hints import AcceleratedWeights as AcceleratedWeights
from ._hints import FromTarget as FromTarget
from ._hints import Hint as Hint
from ._hints import Seen as Seen
from ._hints import last_gradient as last_gradient
from ._hints import no_hint as no_hint
from ._hints import same_weight as same_weight
from ._rates import online_sgd as online_sgd
from ._special import heavy_ball as heavy_ball
from ._special import nesterov as nesterov
from ._special import nesterov_momentum as nesterov_momentum
from ._transform import OnlineState as OnlineState
