"""Families of tasks: quadratics, rotated digits, diverse digits, and the readers of their files."""

from ._catalogue import SOURCES as SOURCES
from ._catalogue import DataFile as DataFile
from ._catalogue import Edition as Edition
from ._catalogue import Source as Source
from ._diverse_digits import DIVERSE_DIGITS as DIVERSE_DIGITS
from ._diverse_digits import diverse_digits as diverse_digits
from ._fetch import fetch as fetch
from ._idx import read_idx as read_idx
from ._load import load_images as load_images
from ._quadratics import QuadraticTask as QuadraticTask
from ._quadratics import sample_quadratics as sample_quadratics
from ._rotations import ANGLES as ANGLES
from ._rotations import rotated_digits as rotated_digits
from ._rotations import rotated_mnist as rotated_mnist
from ._sources import Located as Located
from ._sources import Verified as Verified
from ._sources import data_folder as data_folder
from ._sources import find_source as find_source
from ._sources import locate as locate
from ._sources import missing as missing
from ._sources import verify as verify
from ._types import ImageTask as ImageTask
from ._types import check as check
from ._types import check_family as check_family
from ._usps import read_usps_h5 as read_usps_h5
from ._usps import read_usps_text as read_usps_text
