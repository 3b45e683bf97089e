"""Classical alignment: the Lucas-Kanade family, supervised descent and conditional Lucas-Kanade."""

from icstn.classical.aligner import Aligner, AlignmentResult, align
from icstn.classical.lucas_kanade import ALGORITHMS
from icstn.classical.regression import (
    ConditionalLK,
    LinearRegressor,
    SupervisedDescent,
    descend,
    ic_lk,
    linear_predictor,
)

__all__ = [
    "ALGORITHMS",
    "Aligner",
    "AlignmentResult",
    "ConditionalLK",
    "LinearRegressor",
    "SupervisedDescent",
    "align",
    "descend",
    "ic_lk",
    "linear_predictor",
]
