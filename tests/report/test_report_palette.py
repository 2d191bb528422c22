"""Colours of the figures: told apart with any colour vision, on paper and in the dark.

Colour blindness is simulated by the matrices of Machado, Oliveira and Fernandes (2009), severity 1,
in linear sRGB; differences are distances in CIELAB under D65, of which about 2.3 are just noticed.
"""

import itertools
import re
from importlib.resources import files

import numpy as np
import pytest

from mirrax.report._style import BLUE, GREEN, INK, MUTED, PAPER, SLATE, THEME, VERMILLION, series

VISION = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
TO_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)
APART = 15.0
"""Six just noticeable differences. The least found: 16.1 in the light style, 19.0 in the dark."""


def linear(colour):
    """Linear sRGB of `#rrggbb`."""
    value = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    """CIELAB of linear sRGB."""
    t = TO_XYZ @ np.clip(rgb, 0, 1) / TO_XYZ.sum(axis=1)
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def contrast(one, two):
    """The contrast ratio of WCAG 2."""
    light, dark = sorted((linear(c) @ TO_XYZ[1] for c in (one, two)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def themes():
    """The colours of the page in its light and its dark style, by the name of the variable."""
    css = (files("mirrax.report") / "templates" / "report.css").read_text(encoding="utf-8")
    light, dark = (
        dict(re.findall(r"(--\w+): (#[0-9a-f]{6})", block))
        for block in re.findall(r":root \{([^}]*)\}", css)
    )
    return {"light": light, "dark": light | dark}


def test_lab_is_that_of_known_colours():
    np.testing.assert_allclose(lab(linear("#ffffff")), [100, 0, 0], rtol=0, atol=1e-3)
    np.testing.assert_allclose(lab(linear("#ff0000")), [53.24, 80.09, 67.20], rtol=0, atol=0.02)
    assert contrast("#ffffff", "#000000") == pytest.approx(21)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("vision", VISION)
def test_the_first_six_colours(vision, theme):
    shown = [themes()[theme][THEME[stroke.colour]] for stroke in series(6)]
    seen = [lab(VISION[vision] @ linear(colour)) for colour in shown]
    assert len(set(shown)) == 6
    distances = [np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)]
    assert min(distances) > APART, (vision, theme, min(distances))


def test_the_light_style_is_that_of_the_files():
    light = themes()["light"]
    for colour, variable in THEME.items():
        if colour not in (PAPER, MUTED, "#e3e8ed"):  # white and greys of a page, not of a figure
            assert light[variable] == colour


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_and_lines_stand_out_from_their_ground(theme):
    colours = themes()[theme]
    for ground in ("--page", "--paper", "--wash", "--good", "--remark"):
        for text in ("--ink", "--muted", "--link"):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    assert contrast(colours["--brand"], colours["--page"]) >= 4.5
    for line in (VERMILLION, BLUE, GREEN, SLATE, INK):
        assert contrast(colours[THEME[line]], colours["--paper"]) >= 3, line
