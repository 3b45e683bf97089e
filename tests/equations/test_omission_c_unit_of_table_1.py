r"""Table 1 does not print its unit; the size of the initial noise says pixels, of one kind or another.

.. math::

    \sqrt{\tfrac14 \textstyle\sum_{i} \|W(\mathbf{x}_i; \mathbf{p}) - \mathbf{x}_i\|^2}
    \text{ in pixels}, \quad \mathbf{x}_i \text{ the four corners}
"""

from __future__ import annotations

import numpy as np

from icstn.experiments.paper import SIGMAS, TABLE_1

SIZE = 50


def initial_errors(sigma: float, n: int = 20_000) -> tuple[float, float, float]:
    """Mean initial error, drawn with numpy alone.

    In pixels (RMS corner distance), as the L2 norm of p, and as that norm with pixels for coordinates.
    """
    rng = np.random.default_rng(0)
    noise = rng.normal(0, sigma, (n, 4, 2)) + rng.normal(0, sigma, (n, 1, 2))
    x = np.array([[-1, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1.0]])
    p = np.linalg.pinv(x) @ (noise * 2 / SIZE)  # (n, 3, 2): the affine fit of the displacements
    moved = x @ p * SIZE / 2
    corner = np.sqrt(np.square(moved).sum(-1).mean(-1))
    in_pixels = p * [[[1.0], [1.0], [SIZE / 2]]]  # only the shift has a unit of length
    norms = (np.linalg.norm(values, axis=(1, 2)) for values in (p, in_pixels))
    return tuple(float(values.mean()) for values in (corner, *norms))


def test_in_parameters_every_model_would_do_harm() -> None:
    """Read as parameter-space L2 error, all printed errors of c-STN-1 exceed those before any alignment."""
    for sigma, printed in zip(SIGMAS, TABLE_1["c-STN-1"], strict=True):
        assert printed > 5 * initial_errors(sigma)[1]


def test_in_pixels_every_model_helps() -> None:
    """Read as pixels, every printed error is below the one before any alignment, and of its size."""
    for column, sigma in enumerate(SIGMAS):
        start = initial_errors(sigma)[0]
        assert all(row[column] < start for row in TABLE_1.values())
        assert TABLE_1["c-STN-1"][column] > 0.3 * start


def test_in_normalized_units_the_boxes_would_leave_the_image() -> None:
    """Read in units of half a template, c-STN-1 at σ = 10 would be off by more than four templates."""
    assert TABLE_1["c-STN-1"][-1] / 2 > 4


def test_parameters_over_pixel_coordinates_fit_as_well() -> None:
    """Read as parameters over pixel coordinates, all printed errors are below the start as well."""
    for column, sigma in enumerate(SIGMAS):
        corner, _, start = initial_errors(sigma)
        assert all(row[column] < start for row in TABLE_1.values())
        assert 0.7 * corner < start < corner
