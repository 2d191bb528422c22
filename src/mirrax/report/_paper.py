"""Figures as printed in the papers, to be shown beside ours and never mixed with them.

S000 is "Meta Mirror Descent: Optimiser Learning for Fast Convergence" (Gao, Gouk, Lee, Hospedales);
S004 is "Meta-Learning with Versatile Loss Geometries for Fast Adaptation Using Mirror Descent"
(Zhang, Li, Giannakis). Each table is a dict with `source`, `title`, `unit`, `axis` (what its
columns are), `averaged` (whether their mean says anything), `better` ("higher" or "lower"),
`columns`, `of` (what its rows are), `rows` (name to one pair (figure, printed ±) a column; either
is `None` where none is printed) and `notes`.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

_SPREAD = "The paper does not say whether its ± is a standard deviation or a standard error."
_ANGLES = ("0", "15", "30", "45", "60", "75")


def _pairs(*figures: float) -> tuple[tuple[float, float], ...]:
    """Figure, spread, figure, spread, … as pairs."""
    return tuple(zip(figures[::2], figures[1::2], strict=True))


S000_TABLE1_MLP: dict[str, Any] = {
    "source": "S000, Table 1 (top)",
    "title": "Test accuracy on RotatedMNIST, 3-layer MLP, by held-out rotation",
    "unit": "%",
    "axis": "Rotation in degrees",
    "averaged": True,
    "of": "optimiser",
    "better": "higher",
    "columns": _ANGLES,
    "rows": {
        "SGD": _pairs(92.23, 0.57, 91.91, 0.49, 92.57, 0.32, 92.89, 0.35, 92.73, 0.32, 92.36, 0.87),
        "SGD-M": _pairs(
            94.77, 0.58, 94.64, 0.14, 94.66, 0.29, 94.67, 0.47, 94.60, 0.47, 94.47, 0.63
        ),
        "Adam": _pairs(
            92.96, 0.58, 93.29, 0.92, 93.51, 0.84, 93.69, 0.99, 93.67, 0.35, 92.98, 1.17
        ),
        "RMSprop": _pairs(
            92.48, 0.49, 93.56, 0.51, 92.77, 0.50, 93.58, 0.32, 93.43, 0.32, 93.14, 0.31
        ),
        "MetaMD": _pairs(
            95.22, 0.70, 95.18, 0.45, 95.44, 0.27, 95.34, 0.30, 95.51, 0.57, 95.12, 0.48
        ),
    },
    "notes": (_SPREAD,),
}

S000_TABLE1_LENET: dict[str, Any] = {
    "source": "S000, Table 1 (bottom)",
    "title": "Test accuracy on DiverseDigits, LeNet, by held-out data set",
    "unit": "%",
    "axis": "Data set",
    "averaged": True,
    "of": "optimiser",
    "better": "higher",
    "columns": ("MNIST", "QMNIST", "KMNIST", "FashionMNIST", "USPS", "SVHN"),
    "rows": {
        "SGD": _pairs(96.44, 0.91, 96.23, 0.73, 87.61, 1.87, 88.95, 1.43, 92.73, 1.13, 85.44, 1.22),
        "SGD-M": _pairs(
            98.47, 0.16, 97.21, 0.15, 92.54, 0.62, 86.44, 0.45, 95.37, 0.24, 86.26, 0.48
        ),
        "Adam": _pairs(
            98.49, 0.17, 98.10, 0.33, 93.20, 0.82, 87.36, 0.55, 93.68, 0.38, 87.07, 0.61
        ),
        "RMSprop": _pairs(
            98.65, 0.21, 98.30, 0.09, 93.14, 0.87, 87.45, 0.13, 95.43, 1.06, 87.01, 0.18
        ),
        "MetaMD": _pairs(
            98.64, 0.12, 98.41, 0.08, 93.81, 0.33, 87.72, 0.42, 95.61, 0.70, 87.59, 0.92
        ),
    },
    "notes": (_SPREAD, 'The paper prints "SGD+M" in this table for what it calls SGD-M elsewhere.'),
}

S000_TABLE2: dict[str, Any] = {
    "source": "S000, Table 2",
    "title": "Test accuracy on RotatedMNIST, linear model, by held-out rotation",
    "unit": "%",
    "axis": "Rotation in degrees",
    "averaged": True,
    "of": "optimiser",
    "better": "higher",
    "columns": _ANGLES,
    "rows": {
        "SGD": _pairs(86.12, 0.80, 86.89, 0.34, 86.38, 0.39, 86.14, 0.45, 86.85, 0.54, 85.39, 0.31),
        "SGD-M": _pairs(
            87.57, 0.44, 87.62, 0.18, 87.58, 0.33, 87.13, 0.55, 87.52, 0.48, 87.95, 0.23
        ),
        "Adam": _pairs(
            87.51, 0.49, 87.29, 0.56, 87.83, 0.57, 87.84, 0.94, 87.68, 0.34, 87.93, 0.69
        ),
        "RMSprop": _pairs(
            87.34, 0.77, 87.47, 0.61, 87.16, 1.04, 87.24, 1.00, 87.46, 0.77, 87.64, 0.53
        ),
        "MetaMD": _pairs(
            87.57, 0.68, 87.58, 0.52, 87.77, 0.64, 87.54, 0.40, 87.68, 0.35, 87.93, 0.29
        ),
    },
    "notes": (_SPREAD,),
}

S000_FIGURE1: dict[str, Any] = {
    "source": "S000, Fig. 1 (caption)",
    "title": "Iterations to convergence on 2-D quadratics",
    "unit": "iterations",
    "axis": "Problem",
    "averaged": False,
    "of": "optimiser",
    "better": "lower",
    "columns": ("top row", "bottom row"),
    "rows": {
        "SGD": ((928, None), (27328, None)),
        "SGD-M": ((104, None), (1838, None)),
        "Adam": ((45, None), (324, None)),
        "MetaMD": ((23, None), (280, None)),
    },
    "notes": (
        "The paper gives one problem a row and neither its matrices nor its threshold, so only the "
        "ratios between optimisers can be compared.",
    ),
}

S000_FIGURE4: dict[str, Any] = {
    "source": "S000, Fig. 4",
    "title": "Test accuracy on CIFAR-10, ResNet-18",
    "unit": "%",
    "axis": "Data set",
    "averaged": False,
    "of": "optimiser",
    "better": "higher",
    "columns": ("CIFAR-10",),
    "rows": {
        "SGD-M": ((91.43, None),),
        "Adam": ((91.29, None),),
        "AdamW": ((92.64, None),),
        "MetaMD": ((93.74, None),),
    },
    "notes": (
        "The paper learns on STL-10 and DiverseDigits, we on small parts of CIFAR-10 itself, and "
        "the paper tunes on CIFAR-10, by Bayesian optimisation.",
    ),
}

S002_FIGURE1: dict[str, Any] = {
    "source": "S002, Section 7.2, on Fig. 1",
    "title": "Top-1 accuracy on ImageNet, ResNet-50",
    "unit": "%",
    "axis": "Data set",
    "averaged": False,
    "of": "optimiser",
    "better": "higher",
    "columns": ("ImageNet",),
    "rows": {
        "SGD": ((72.0, None),),
        "Online, optimistic": ((75.0, None),),
    },
    "notes": (
        "The paper gives two figures, without decimals: 72% before, 75% with optimism; without "
        "optimism it finds no significant gain.",
    ),
}

S004_TABLE1: dict[str, Any] = {
    "source": "S004, Table 1, on miniImageNet",
    "title": "Accuracy on new tasks of 5 classes",
    "unit": "%",
    "axis": "Labelled images a class",
    "averaged": False,
    "of": "method",
    "better": "higher",
    "columns": ("1-shot", "5-shot"),
    "rows": {
        "MAML": ((48.70, 1.84), (63.11, 0.92)),
        "MetaSGD": ((50.47, 1.87), (64.03, 0.94)),
        "MT-net": ((51.70, 1.84), (None, None)),
        "WarpGrad": ((52.3, 0.8), (68.4, 0.6)),
        "MetaCurvature": ((54.23, 0.88), (67.99, 0.73)),
        "MetaKFO": ((None, None), (64.9, None)),
        "ECML": ((48.94, 0.80), (65.26, 0.67)),
        "blockIAF (official)": ((56.10, 1.43), (69.59, 0.71)),
    },
    "notes": (
        "The paper's figures can be compared neither with ours nor with one another: it took them "
        "from publications with different numbers of filters (MAML and MT-net 32, MetaCurvature "
        "128) and other networks, different numbers of query images, and inner rates in different "
        "units of the loss. Bold among them ranks what was not measured alike.",
        'The paper calls blockIAF "This paper\'s method"; WarpGrad and MetaKFO are printed to one '
        "decimal, MetaKFO without an interval.",
    ),
}

PAPERS: Mapping[str, dict[str, Any]] = MappingProxyType(
    {
        "s000-table1-mlp": S000_TABLE1_MLP,
        "s000-table1-lenet": S000_TABLE1_LENET,
        "s000-table2": S000_TABLE2,
        "s000-fig1": S000_FIGURE1,
        "s000-fig4": S000_FIGURE4,
        "s002-fig1": S002_FIGURE1,
        "s004-table1": S004_TABLE1,
    }
)
