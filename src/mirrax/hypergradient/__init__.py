"""Hypergradients: how to differentiate what a run is worth with respect to the prior."""

from ._base import AbstractHypergradient as AbstractHypergradient
from ._base import EstimatorState as EstimatorState
from ._base import split as split
from ._direct import Direct as Direct
from ._evolution import Evolution as Evolution
from ._forward import Forward as Forward
from ._implicit import Implicit as Implicit
from ._pathwise import Pathwise as Pathwise
from ._report import ImplicitReport as ImplicitReport
from ._reverse import Reverse as Reverse
from ._truncated import Truncated as Truncated
