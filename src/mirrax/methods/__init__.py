"""A gallery of published methods, each one a short composition of the packages below."""

from ._ecml import ecml as ecml
from ._few_shot import FEW_SHOT as FEW_SHOT
from ._few_shot import Protocol as Protocol
from ._few_shot import few_shot as few_shot
from ._few_shot import find_method as find_method
from ._few_shot import options_of as options_of
from ._maml import anil as anil
from ._maml import maml as maml
from ._meta_curvature import meta_curvature as meta_curvature
from ._meta_kfo import meta_kfo as meta_kfo
from ._meta_md import EstimatorName as EstimatorName
from ._meta_md import meta_md as meta_md
from ._meta_sgd import meta_sgd as meta_sgd
from ._mirror import block_iaf as block_iaf
from ._mirror import block_iaf_official as block_iaf_official
from ._mirror import convex_potential as convex_potential
from ._mirror import kronecker_metric as kronecker_metric
from ._mirror import warped_potential as warped_potential
from ._t_net import mt_net as mt_net
from ._t_net import t_net as t_net
from ._warp import warp_maml as warp_maml
from ._warp import warpgrad as warpgrad
