"""Theory as code: bounds beside what they bound, with every assumption named and examined.

Theorem 3.1 of S000 bounds the regret of mirror descent on convex losses. `certify_run` and
`regret_certificate` put its forms beside the measured regret of one run and say which assumptions
hold and how that is known; `transfer_bound` is the corrected Theorem 4.1 for one diagonal;
`symmetry_of_map` says how far a learned map is from having a potential at all. `gap_certificate`
bounds what a convex meta-learner of S002 has left to gain.
"""

from ._certificate import certify_run as certify_run
from ._certificate import regret_certificate as regret_certificate
from ._map import Counterexample as Counterexample
from ._map import MapDiagnosis as MapDiagnosis
from ._map import symmetry_of_map as symmetry_of_map
from ._map import theorem1_counterexample as theorem1_counterexample
from ._measure import RegretMeasurements as RegretMeasurements
from ._measure import losses_at as losses_at
from ._measure import measure_run as measure_run
from ._measure import measure_trajectory as measure_trajectory
from ._meta_gradients import GapCertificate as GapCertificate
from ._meta_gradients import gap_certificate as gap_certificate
from ._meta_gradients import rate_with_hints as rate_with_hints
from ._meta_gradients import rate_without_hints as rate_without_hints
from ._records import Assumption as Assumption
from ._records import Bound as Bound
from ._records import RegretCertificate as RegretCertificate
from ._transfer import TransferBound as TransferBound
from ._transfer import transfer_bound as transfer_bound
