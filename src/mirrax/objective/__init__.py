"""Objectives: what a trajectory is worth."""

from ._condition import ConditionPenalty as ConditionPenalty
from ._condition import log_spread as log_spread
from ._regret import Comparator as Comparator
from ._regret import LipschitzRegretBound as LipschitzRegretBound
from ._regret import RegretBound as RegretBound
from ._regret import frozen as frozen
from ._tight import Moments as Moments
from ._tight import path_moments as path_moments
from ._tight import tight_diagonal as tight_diagonal
from ._validation import ValidationLoss as ValidationLoss
from ._weighted import WeightedSum as WeightedSum
