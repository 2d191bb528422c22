"""How every figure looks: colours, line styles, axes, and how it is written.

Colours are Okabe and Ito's, which people with any colour vision can tell apart; every line also has
its own dash pattern, so a print without colour still reads. Output is the same to the byte for the
same data: ids in SVG are salted, and no date or version is stored.
"""

import contextlib
import io
import itertools
import os
import re
import warnings
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mirrax._errors import MirraxError
from mirrax._files import explain, write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

VERMILLION, BLUE, GREEN = "#d55e00", "#0072b2", "#009e73"
SKY, ORANGE, PURPLE = "#56b4e9", "#e69f00", "#cc79a7"
SLATE = "#44546a"
PAPER, INK, MUTED, GRID = "#fefefe", "#1c2733", "#5a6876", "#e3e8ed"

# What the page exchanges for the variables of its light and dark style.
THEME = {
    PAPER: "--paper",
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    VERMILLION: "--vermillion",
    BLUE: "--blue",
    GREEN: "--green",
    SKY: "--sky",
    ORANGE: "--orange",
    PURPLE: "--purple",
    SLATE: "--slate",
}

_BEYOND_HUNDREDTHS = re.compile(rb"(\.\d\d)\d\d+")
WIDTH = 4.8  # inches; at a phone's 340 px the text is still about 9 px high
_DASHES: tuple[Any, ...] = (
    (0, ()),
    (0, (5, 1.6)),
    (0, (1.2, 1.2)),
    (0, (6, 1.4, 1.2, 1.4)),
    (0, (2.6, 1.3)),
    (0, (6, 1.3, 1.2, 1.3, 1.2, 1.3)),
    (0, (9, 2.4)),
)
RC: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": MUTED,
    "axes.facecolor": PAPER,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 9.5,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "figure.constrained_layout.h_pad": 0.07,
    "figure.constrained_layout.w_pad": 0.09,
    "figure.dpi": 100,
    "figure.facecolor": PAPER,
    "font.family": ["DejaVu Sans"],
    "font.size": 9.5,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "legend.handlelength": 2.2,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.7,
    "lines.solid_capstyle": "round",
    "savefig.facecolor": PAPER,
    "svg.fonttype": "path",
    "svg.hashsalt": "mirrax",
    "text.color": INK,
    "text.parse_math": False,  # a name with a dollar sign is a name, not a formula
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "xtick.labelsize": 9,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
    "ytick.labelsize": 9,
}


@dataclass(frozen=True)
class Stroke:
    """How one series is drawn.

    **Arguments:**

    - `colour`: of the line and its band.
    - `dashes`: matplotlib's line style.
    - `width`: in points.
    - `order`: the learned geometry lies above the baselines.
    - `marker`: the sign of its points, where there are few enough to show them.

    >>> Stroke("#000000", "-", 1.5, 2).width
    1.5
    """

    colour: str
    dashes: Any
    width: float
    order: int
    marker: str = "o"

    def line(self) -> dict[str, Any]:
        """The keywords of `Axes.plot`.

        **Returns:**

        A dict.

        >>> Stroke("#000000", "-", 1.5, 2).line()["color"]
        '#000000'
        """
        return {
            "color": self.colour,
            "linestyle": self.dashes,
            "linewidth": self.width,
            "zorder": self.order,
        }


_KNOWN = {
    "sgd": Stroke(BLUE, _DASHES[1], 1.5, 3),
    "sgd-m": Stroke(SKY, _DASHES[4], 1.5, 3),
    "nesterov": Stroke(SLATE, _DASHES[6], 1.5, 3),
    "adam": Stroke(GREEN, _DASHES[3], 1.5, 3),
    "adamw": Stroke(ORANGE, _DASHES[5], 1.5, 3),
    "adamw, schedule-free": Stroke(ORANGE, _DASHES[3], 1.5, 3),
    "rmsprop": Stroke(PURPLE, _DASHES[2], 1.5, 3),
    "muon": Stroke(SLATE, _DASHES[2], 1.5, 3),
    "soap": Stroke(PURPLE, _DASHES[4], 1.5, 3),
    "euclidean": Stroke(INK, _DASHES[5], 1.7, 4),
    "euclidean, averaged": Stroke(INK, _DASHES[2], 1.7, 4),
    "metamd": Stroke(VERMILLION, _DASHES[0], 2.3, 5),
    "metamd, averaged": Stroke(VERMILLION, _DASHES[1], 2.3, 5),
    # Few-shot methods: a colour and a sign a family, a dash pattern each within it.
    "maml": Stroke(BLUE, _DASHES[1], 1.5, 3),
    "anil": Stroke(BLUE, _DASHES[2], 1.5, 3),
    "ecml": Stroke(BLUE, _DASHES[0], 1.5, 3),
    "metasgd": Stroke(SKY, _DASHES[4], 1.5, 3, "^"),
    "t-net": Stroke(GREEN, _DASHES[0], 1.5, 3, "s"),
    "mt-net": Stroke(GREEN, _DASHES[3], 1.5, 3, "s"),
    "warp-maml": Stroke(ORANGE, _DASHES[5], 1.5, 3, "D"),
    "warpgrad": Stroke(ORANGE, _DASHES[0], 1.5, 3, "D"),
    "metacurvature": Stroke(PURPLE, _DASHES[0], 1.5, 3, "v"),
    "metakfo": Stroke(PURPLE, _DASHES[2], 1.5, 3, "v"),
    "blockiaf": Stroke(INK, _DASHES[6], 1.7, 4, "P"),
    "blockiaf (official)": Stroke(INK, _DASHES[0], 1.7, 4, "P"),
    "blockiaf (paper)": Stroke(INK, _DASHES[4], 1.7, 4, "P"),
    "kronecker metric": Stroke(VERMILLION, _DASHES[1], 1.7, 4, "X"),
    "convex potential": Stroke(VERMILLION, _DASHES[0], 2.3, 5, "*"),
    # Online optimisers: a colour a family; what learns is drawn through.
    "gd": Stroke(BLUE, _DASHES[2], 1.5, 3),
    "online sgd": Stroke(BLUE, _DASHES[0], 1.5, 4),
    "optimistic online sgd": Stroke(SKY, _DASHES[0], 1.5, 4),
    "momentum": Stroke(INK, _DASHES[2], 1.5, 3),
    "meta-momentum a": Stroke(VERMILLION, _DASHES[0], 1.9, 5),
    "optimistic meta-momentum a": Stroke(ORANGE, _DASHES[0], 1.7, 5),
    "meta-momentum b (alg. 2)": Stroke(PURPLE, _DASHES[0], 1.5, 4),
    "meta-momentum b (alg. 4)": Stroke(PURPLE, _DASHES[1], 1.5, 4),
    "adagrad": Stroke(GREEN, _DASHES[2], 1.5, 3),
    "meta-adagrad": Stroke(GREEN, _DASHES[0], 1.7, 4),
    "meta-adagrad, adagrad's start": Stroke(SLATE, _DASHES[0], 1.5, 4),
}
_OTHERS = (
    Stroke(VERMILLION, _DASHES[0], 2.3, 5, "*"),
    Stroke(INK, _DASHES[5], 1.9, 5, "X"),
    Stroke(ORANGE, _DASHES[1], 1.9, 5, "X"),
    Stroke(SLATE, _DASHES[3], 1.9, 5, "X"),
    Stroke(PURPLE, _DASHES[6], 1.9, 5, "X"),
    Stroke(GREEN, _DASHES[4], 1.9, 5, "X"),
    Stroke(BLUE, _DASHES[3], 1.9, 5, "X"),
    Stroke(SKY, _DASHES[2], 1.9, 5, "X"),
)


def strokes(names: Collection[str]) -> dict[str, Stroke]:
    """A style for each name: baselines always look the same, learned geometries stand out.

    **Arguments:**

    - `names`: names of optimisers.

    **Returns:**

    Name to `Stroke`.

    >>> strokes(["SGD", "MetaMD"])["MetaMD"].colour
    '#d55e00'
    """
    found = {name: _KNOWN[name.casefold()] for name in names if name.casefold() in _KNOWN}
    taken = {(stroke.colour, stroke.dashes) for stroke in found.values()}
    free = itertools.cycle([s for s in _OTHERS if (s.colour, s.dashes) not in taken])
    return {name: found.get(name) or next(free) for name in names}


def series(count: int) -> list[Stroke]:
    """Styles for numbered things, such as the components of a mixture.

    **Arguments:**

    - `count`: how many.

    **Returns:**

    A list of `count` strokes.

    >>> len(series(9))
    9
    """
    colours = (VERMILLION, BLUE, GREEN, PURPLE, ORANGE, SKY, SLATE)
    return [
        Stroke(colours[i % len(colours)], _DASHES[i % len(_DASHES)], 1.8, 3) for i in range(count)
    ]


@contextlib.contextmanager
def drawing() -> Iterator[None]:
    """The setting in which figures are built and written: ours, whatever the user's is.

    >>> with drawing():
    ...     import matplotlib
    ...     matplotlib.rcParams["svg.hashsalt"]
    'mirrax'
    """
    import matplotlib

    with warnings.catch_warnings(), matplotlib.rc_context():
        # A name in a script that the font lacks is shown as boxes; that is no reason to complain.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(RC)
        yield


def new_figure(height: float, width: float = WIDTH) -> "Figure":
    """An empty figure which no window and no global state knows of.

    **Arguments:**

    - `height`, `width`: in inches.

    **Returns:**

    A matplotlib `Figure`.

    >>> float(new_figure(3.0).get_figheight())
    3.0
    """
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", facecolor=PAPER)


def to_svg(figure: "Figure") -> bytes:
    """The figure as SVG, the same bytes for the same data.

    **Arguments:**

    - `figure`: a figure made under `drawing`.

    **Returns:**

    The content of an SVG file.

    >>> with drawing():
    ...     to_svg(new_figure(2.0))[:5]
    b'<?xml'
    """
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.BytesIO()
    # `savefig` gives the same bytes, but draws twice: once with nothing to draw on.
    canvas = FigureCanvasSVG(figure)
    canvas.print_svg(buffer, metadata={"Date": None, "Creator": None})
    # A third of a large file is indentation, and digits beyond a hundredth of a point.
    lines = re.sub(rb"[ \t]*\n[ \t]*", b"\n", buffer.getvalue())
    return re.sub(rb'(?<==")[^"]*', lambda value: _rounded(value[0]), lines)


def _rounded(value: bytes) -> bytes:
    """The value of an attribute to hundredths of a point; factors of glyphs keep all digits."""
    points, scale, factor = value.partition(b"scale(")
    return _BEYOND_HUNDREDTHS.sub(rb"\1", points) + scale + factor


def to_png(figure: "Figure") -> bytes:
    """The figure as PNG at 200 dots an inch.

    **Arguments:**

    - `figure`: a figure made under `drawing`.

    **Returns:**

    The content of a PNG file.

    >>> with drawing():
    ...     to_png(new_figure(1.0))[1:4]
    b'PNG'
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    figure.set_dpi(200)
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def save(figure: "Figure", stem: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Writes `stem.svg` and `stem.png`, each complete or not at all.

    **Arguments:**

    - `figure`: a figure made under `drawing`.
    - `stem`: the path without its ending; its folder is made if it does not exist.

    **Returns:**

    The two paths.

    **Raises:**

    - `MirraxError`: if they cannot be written.

    >>> import tempfile
    >>> with drawing(), tempfile.TemporaryDirectory() as folder:
    ...     [path.name for path in save(new_figure(1.0), Path(folder) / "empty")]
    ['empty.svg', 'empty.png']
    """
    svg = to_svg(figure)
    figure.set_layout_engine("none")  # what was laid out for the first stays for the second
    return write_pair(stem, svg, to_png(figure))


def write_pair(stem: str | os.PathLike[str], svg: bytes, png: bytes) -> tuple[Path, Path]:
    """Writes one figure in both forms.

    **Arguments:**

    - `stem`: as for `save`.
    - `svg`, `png`: the contents of the files.

    **Returns:**

    The two paths.

    **Raises:**

    - `MirraxError`: if they cannot be written.
    """
    stem = Path(stem)
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MirraxError(f"cannot make the folder {stem.parent}: {explain(error)}") from error
    paths = stem.with_name(stem.name + ".svg"), stem.with_name(stem.name + ".png")
    for path, content in zip(paths, (svg, png), strict=True):
        write_atomically(path, content)
    return paths
