"""Rates learned while training runs: the hypergradient of the last step, at the cost of a product.

`online_sgd` and `online_adagrad` are optax transformations; `OnlineState` is their state.
"""

from ._adagrad import online_adagrad as online_adagrad
from ._rates import online_sgd as online_sgd
from ._transform import OnlineState as OnlineState
