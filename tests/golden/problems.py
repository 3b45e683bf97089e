"""Problems: what each table is trained or tested on, from the real pictures."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from golden import pictures
from golden.course import Problem
from golden.sight import DIGIT, SIGN, Place, seen
from icstn.datasets import planar_scene


def problem(table: str, sigma: float = 3.5, split: str = "train") -> Problem:
    """Of a table: the photograph, or a split of the digits or signs."""
    if table == "table_1":
        return Problem(*photograph(), sigma, "affine")
    load, place = (pictures.digits, DIGIT) if table == "table_2" else (pictures.signs, SIGN)
    return Problem(*pictures.ready(load(split), table == "table_3"), place, sigma, "homography")


def photograph() -> tuple[Tensor, None, Place]:
    """Chelsea in gray, of zero mean and unit variance in the template's square of 50 × 50 pixels."""
    scene = planar_scene("chelsea", gray=True)
    place = Place(50, 50, scene.frame.center, (24.5, 24.5))
    assert np.allclose(scene.frame.half_extent, 24.5)
    image = scene.image.double()
    values = seen(image, torch.zeros(1, 6).double(), place).numpy()
    return (image - values.mean()) / np.std(values, ddof=1), None, place
