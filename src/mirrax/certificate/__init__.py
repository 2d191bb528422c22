"""Theory as code: bounds beside what they bound, with every assumption named and examined.

Theorem 3.1 of S000 bounds the regret of mirror descent on convex losses. `certify_run` and
`regret_certificate` put its forms beside the measured regret of one run and say which assumptions
hold and how that is known; `transfer_bound` is the corrected Theorem 4.1 for one diagonal.
"""

from ._certificate import certify_run as certify_run
from ._certificate import regret_certificate as regret_certificate
from ._measure import RegretMeasurements as RegretMeasurements
from ._measure import losses_at as losses_at
from ._measure import measure_run as measure_run
from ._measure import measure_trajectory as measure_trajectory
from ._records import Assumption as Assumption
from ._records import Bound as Bound
from ._records import RegretCertificate as RegretCertificate
from ._transfer import TransferBound as TransferBound
from ._transfer import transfer_bound as transfer_bound
