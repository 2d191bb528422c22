"""Mirror maps in PyTorch: the geometries of an artifact, cut into parts that move alone."""

from ._decode import CLASSES as CLASSES
from ._decode import decode as decode
from ._leafwise import Rates as Rates
from ._part import Named as Named
from ._part import Part as Part
from ._part import placed as placed
