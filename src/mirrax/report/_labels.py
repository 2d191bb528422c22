"""Names as they are shown: few-shot methods as in their literature, arrays of parameters."""

from ._format import clean

_LABELS = {
    "maml": "MAML",
    "anil": "ANIL",
    "metasgd": "MetaSGD",
    "tnet": "T-net",
    "mtnet": "MT-net",
    "warpmaml": "Warp-MAML",
    "warpgrad": "WarpGrad",
    "metacurvature": "MetaCurvature",
    "metakfo": "MetaKFO",
    "ecml": "ECML",
    "blockiaf": "blockIAF",
    "blockiafofficial": "blockIAF (official)",
    "blockiafpaper": "blockIAF (paper)",
    "convexpotential": "convex potential",
    "kroneckermetric": "Kronecker metric",
    "warpedpotential": "warped convex potential",
}


def method_label(name: object) -> str:
    """The name of a few-shot method as its literature writes it.

    **Arguments:**

    - `name`: a name from a record; case, hyphens and underscores do not matter.

    **Returns:**

    The name; one that is not known is returned as it is, on one line.

    >>> method_label("meta_sgd"), method_label("block_iaf_paper"), method_label("my:rule")
    ('MetaSGD', 'blockIAF (paper)', 'my:rule')
    """
    key = "".join(c for c in str(name).casefold() if c.isalnum())
    return _LABELS.get(key) or clean(name) or "unnamed"


def array_label(name: object) -> str:
    """The name of an array of parameters on one line.

    **Arguments:**

    - `name`: its path in the tree of parameters, empty where they are one array.

    **Returns:**

    The name.

    >>> array_label("dense_0/bias"), array_label("")
    ('dense_0/bias', 'all parameters')
    """
    return clean(name) or "all parameters"
