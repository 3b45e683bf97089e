"""What the paper prints: Tables 1, 2 and 3 of Lin & Lucey, CVPR 2017, copied once and used everywhere."""

from __future__ import annotations

from typing import NamedTuple


class PrintedRow(NamedTuple):
    """One row of Table 2 or 3.

    Attributes:
        error: classification error in percent.
        capacity: learnable parameters.
        architecture: in the notation of :mod:`icstn.networks`.
    """

    error: float
    capacity: int
    architecture: str


_DEEP = "conv(7×7,4)-conv(7×7,8)-P-FC(48)-FC(8)"
_MNIST = " → conv(9×9,3)-FC(10)"
_SIGNS = "conv(7×7,6)-conv(7×7,24)-FC(8)"
_SIGNS_CLASSIFIER = " → conv(7×7,6)-conv(7×7,12)-P-FC(43)"

#: Noise in pixels of the columns of Table 1.
SIGMAS = (2.5, 5.0, 7.5, 10.0)

#: Noise on signs in pixels in the authors' released code, 0.25 of the half width; the text has 3.5.
SIGMA_OF_THE_CODE = 0.25 * 36 / 2

#: Table 1: test error by model, one number for each of :data:`SIGMAS`. The unit is not printed.
TABLE_1: dict[str, tuple[float, float, float, float]] = {
    "c-STN-1": (2.699, 5.576, 9.491, 9.218),
    "IC-STN-2": (0.615, 2.268, 5.283, 5.502),
    "IC-STN-3": (0.434, 1.092, 2.877, 3.020),
    "IC-STN-4": (0.292, 0.481, 1.476, 2.287),
    "IC-STN-6": (0.027, 0.125, 0.245, 1.305),
}

#: Table 2: perturbed MNIST.
TABLE_2: dict[str, PrintedRow] = {
    "CNN(a)": PrintedRow(6.597, 39079, "conv(3×3,3)-conv(3×3,6)-P-conv(3×3,9)-conv(3×3,12)-FC(48)-FC(10)"),
    "STN(a)": PrintedRow(4.944, 39048, f"[{_DEEP}]×1{_MNIST}"),
    "c-STN-1(a)": PrintedRow(3.687, 39048, f"[{_DEEP}]×1{_MNIST}"),
    "c-STN-2(a)": PrintedRow(2.060, 38528, f"[conv(9×9,4)-FC(8)]×2{_MNIST}"),
    "c-STN-4(a)": PrintedRow(1.476, 37376, f"[FC(8)]×4{_MNIST}"),
    "IC-STN-2(a)": PrintedRow(1.905, 39048, f"[{_DEEP}]×2{_MNIST}"),
    "IC-STN-4(a)": PrintedRow(1.230, 39048, f"[{_DEEP}]×4{_MNIST}"),
    "CNN(b)": PrintedRow(19.065, 19610, "conv(9×9,2)-conv(9×9,4)-FC(32)-FC(10)"),
    "STN(b)": PrintedRow(9.325, 18536, f"[FC(8)]×1{_MNIST}"),
    "c-STN-1(b)": PrintedRow(8.545, 18536, f"[FC(8)]×1{_MNIST}"),
    "IC-STN-2(b)": PrintedRow(3.717, 18536, f"[FC(8)]×2{_MNIST}"),
    "IC-STN-4(b)": PrintedRow(1.703, 18536, f"[FC(8)]×4{_MNIST}"),
}

#: Table 3: perturbed GTSRB.
TABLE_3: dict[str, PrintedRow] = {
    "CNN": PrintedRow(8.287, 200207, "conv(7×7,6)-conv(7×7,12)-P-conv(7×7,24)-FC(200)-FC(43)"),
    "STN": PrintedRow(6.495, 197343, f"[{_SIGNS}]×1{_SIGNS_CLASSIFIER}"),
    "c-STN-1": PrintedRow(5.011, 197343, f"[{_SIGNS}]×1{_SIGNS_CLASSIFIER}"),
    "IC-STN-2": PrintedRow(4.122, 197343, f"[{_SIGNS}]×2{_SIGNS_CLASSIFIER}"),
    "IC-STN-4": PrintedRow(3.184, 197343, f"[{_SIGNS}]×4{_SIGNS_CLASSIFIER}"),
}
