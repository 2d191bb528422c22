"""Networks as pure functions: parameters are nested dicts of arrays, images are NHWC.

A model knows no task, no loss geometry and no training loop. `build` looks one up by name; the
convolution that all of them share is chosen for the backend behind `convolve`.
"""

from ._conv4 import Warp as Warp
from ._conv4 import conv4 as conv4
from ._convolution import convolve as convolve
from ._lenet import lenet5 as lenet5
from ._linear import linear as linear
from ._losses import accuracy as accuracy
from ._losses import cross_entropy as cross_entropy
from ._mlp import mlp as mlp
from ._model import Model as Model
from ._pooled import spread_batches as spread_batches
from ._pooling import max_pool as max_pool
from ._registry import NAMES as NAMES
from ._registry import build as build
from ._resnet import resnet18 as resnet18
from ._resnet import resnet50 as resnet50
