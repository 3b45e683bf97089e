"""Classical alignment: the Lucas-Kanade family, supervised descent and conditional Lucas-Kanade."""

from icstn.classical.aligner import Aligner, align
from icstn.classical.cascade import Regressed, descend
from icstn.classical.conditional_lk import ConditionalLK
from icstn.classical.linear_regressor import (
    LinearRegressor,
    ic_lk,
    linear_predictor,
    ridge_regression,
    steepest_descent_images,
    template_gradients,
)
from icstn.classical.lucas_kanade import ALGORITHMS
from icstn.classical.result import AlignmentResult
from icstn.classical.supervised_descent import SupervisedDescent
from icstn.classical.tracking import Tracked, Tracker, track

__all__ = [
    "ALGORITHMS",
    "Aligner",
    "AlignmentResult",
    "ConditionalLK",
    "LinearRegressor",
    "Regressed",
    "SupervisedDescent",
    "Tracked",
    "Tracker",
    "align",
    "descend",
    "ic_lk",
    "linear_predictor",
    "ridge_regression",
    "steepest_descent_images",
    "template_gradients",
    "track",
]
