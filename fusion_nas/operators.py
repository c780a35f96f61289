"""What a plugin's fusion operator is made of; `docs/how-to/plugins.md` shows how.

`FusionOperator` is the base class, `Signature` says what an operator takes and gives, `work` counts
what layers compute, and `numpy_layers` holds layers of torch in NumPy for references.
"""

from search_space.modality import MODALITIES, Modality
from search_space.operators import numpy_layers, work
from search_space.operators.numpy_layers import Array, Paddings, Weights
from search_space.operators.operator import FusionOperator, Signature
from search_space.operators.work import On, Work

__all__ = [
    "MODALITIES",
    "Array",
    "FusionOperator",
    "Modality",
    "On",
    "Paddings",
    "Signature",
    "Weights",
    "Work",
    "numpy_layers",
    "work",
]
