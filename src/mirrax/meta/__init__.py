"""The outer loop: geometries and other priors learned from families of tasks."""

from ._alternating import Alternating as Alternating
from ._episodic import Statistics as Statistics
from ._episodic import episode_loss as episode_loss
from ._episodic import episode_problem as episode_problem
from ._episodic import logits_of as logits_of
from ._failures import Attempts as Attempts
from ._failures import OnFailure as OnFailure
from ._failures import diverged as diverged
from ._few_shot import FewShot as FewShot
from ._few_shot import FewShotState as FewShotState
from ._few_shot import Scores as Scores
from ._few_shot import StepRecord as StepRecord
from ._many_shot import ManyShot as ManyShot
from ._many_shot import MetaState as MetaState
from ._many_shot import RoundRecord as RoundRecord
from ._outer import AbstractOuter as AbstractOuter
from ._outer import Descent as Descent
from ._outer import Outcome as Outcome
from ._outer import Runs as Runs
from ._problems import classification as classification
from ._problems import classification_loss as classification_loss
from ._problems import quadratic as quadratic
from ._problems import stacked as stacked
from ._reference import Reference as Reference
from ._sharding import Grid as Grid
