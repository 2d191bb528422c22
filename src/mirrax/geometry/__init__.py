"""Geometries: potentials ψ, mirror maps ∇ψ and ∇ψ*, Bregman divergences D_ψ; preconditioners.

A geometry knows no step size, no loss and no time. Its inexact array leaves are its
meta-parameters, stored unconstrained.
"""

from ._base import AbstractGeometry as AbstractGeometry
from ._base import AbstractMirrorMap as AbstractMirrorMap
from ._base import AbstractPreconditioner as AbstractPreconditioner
from ._base import AbstractRandomPreconditioner as AbstractRandomPreconditioner
from ._block_iaf import BlockIAF as BlockIAF
from ._combinators import Blockwise as Blockwise
from ._combinators import Scaled as Scaled
from ._constraints import AbstractConstrained as AbstractConstrained
from ._constraints import project as project
from ._convex_potential import ConvexPotential as ConvexPotential
from ._diagonal import Diagonal as Diagonal
from ._entropy import NegativeEntropy as NegativeEntropy
from ._euclidean import Euclidean as Euclidean
from ._kronecker import Factors as Factors
from ._kronecker import Kronecker as Kronecker
from ._kronecker import as_matrix as as_matrix
from ._kronecker import cholesky_of as cholesky_of
from ._kronecker import is_factors as is_factors
from ._kronecker import log_cholesky as log_cholesky
from ._kronecker import log_cholesky_of as log_cholesky_of
from ._mask import RandomMask as RandomMask
from ._max_of_diagonals import MaxOfDiagonals as MaxOfDiagonals
from ._pnorm import PNorm as PNorm
from ._preconditioners import KroneckerUpdate as KroneckerUpdate
from ._preconditioners import ModeProducts as ModeProducts
from ._transformed import Transformed as Transformed
