"""Verdicts held against their rules, written down a second time: intervals, margins, Holm, claims."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from judged import table

from icstn.evidence.collection import Evidence
from icstn.evidence.computations import composition_jacobian
from icstn.evidence.estimates import Estimate
from icstn.evidence.predicates.signs import reuse_improves
from icstn.evidence.verdicts import Finding, above, below, compare, corrected, fact, joint, within

#: Value and standard error; 1.96 of them on either side are the interval.
NUMBERS = st.tuples(st.floats(-3, 3), st.floats(0.01, 2))


def side(value: float, error: float, threshold: float) -> str:
    """Which side of a threshold an interval lies on."""
    low, high = value - 1.959964 * error, value + 1.959964 * error
    return "holds" if low > threshold else "does not hold" if high < threshold else "undecided"


def normal_p(value: float, error: float, threshold: float) -> float:
    """Two-sided."""
    return math.erfc(abs(value - threshold) / error / math.sqrt(2))


def near(value: float, error: float, *thresholds: float) -> bool:
    """Whether an end of the interval is a threshold within rounding."""
    ends = (value - 1.959964 * error, value + 1.959964 * error)
    return any(abs(end - t) < 1e-4 for end in ends for t in thresholds)


@given(NUMBERS, st.floats(-2, 2))
def test_above_and_below(number: tuple[float, float], threshold: float) -> None:
    if near(*number, threshold):
        return
    found = Estimate(*number)
    assert above(found, threshold) == side(*number, threshold)
    finding = compare("x", found, over=threshold)
    assert (finding.verdict, finding.p) == (
        side(*number, threshold),
        pytest.approx(normal_p(*number, threshold), abs=1e-9),
    )
    turned = below("x", found, limit=threshold)
    assert turned.verdict == side(-number[0], number[1], -threshold)
    assert turned.p == finding.p


@given(NUMBERS, st.floats(0.1, 2))
@example((1.5, 0.2), 1.0)
@example((-1.5, 0.2), 1.0)
def test_within_a_margin(number: tuple[float, float], margin: float) -> None:
    """Two one-sided tests: inside only where the whole interval is, outside where all of it is outside."""
    if near(*number, margin, -margin):
        return
    value, error = number
    low, high = value - 1.959964 * error, value + 1.959964 * error
    inside, outside = -margin < low and high < margin, high < -margin or low > margin
    found = within("x", Estimate(value, error), margin)
    assert found.verdict == ("holds" if inside else "does not hold" if outside else "undecided")
    nearer = margin if value > 0 else -margin
    assert found.p == pytest.approx(normal_p(value, error, nearer), rel=1e-3, abs=1e-30)


@given(st.lists(st.floats(0, 0.2), min_size=1, max_size=6))
@example([0.03, 0.04])
@example([0.024, 0.04])
def test_holms_correction(p: list[float]) -> None:
    """Step down: the smallest against 0.05/m, the next against 0.05/(m − 1) …; the first to fail ends it."""
    findings = [Finding(str(i), "holds", p=x) for i, x in enumerate(p)]
    survive: set[int] = set()
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: (p[i], i))):
        if p[i] * (len(p) - rank) > 0.05:
            break
        survive.add(i)
    fixed = fact("so", True)
    out = corrected([fixed, *findings])
    assert out[0] is fixed
    assert [f.verdict for f in out[1:]] == ["holds" if i in survive else "undecided" for i in range(len(p))]


WORDS = ("holds", "holds in part", "does not hold", "undecided")


@pytest.mark.parametrize("parts", [c for n in (1, 2, 3) for c in itertools.product(WORDS, repeat=n)], ids=str)
def test_a_claim_of_many_parts(parts: tuple) -> None:
    some = any(part.startswith("holds") for part in parts)
    against = any(part in ("does not hold", "holds in part") for part in parts)
    if all(part == "holds" for part in parts):
        wanted = "holds"
    elif against:
        wanted = "holds in part" if some else "does not hold"
    else:
        wanted = "undecided"
    assert joint(parts) == wanted


def test_the_jacobian_of_many_compositions() -> None:
    """Singular values of ∂p_N/∂p_0, by autograd through M(Δp_N) … M(Δp_1) M(p_0), for every trial."""
    generator = torch.Generator().manual_seed(0)
    dp = torch.randn(5, 4, 6, generator=generator, dtype=torch.float64)
    dp = dp / dp.norm(dim=-1, keepdim=True) * 0.05
    values: list[list[np.ndarray]] = [[] for _ in range(4)]
    for steps, n in itertools.product(dp, range(4)):

        def composed(p: torch.Tensor, steps: torch.Tensor = steps, n: int = n) -> torch.Tensor:
            m = torch.cat((p.view(2, 3) + torch.eye(2, 3), torch.tensor([[0.0, 0, 1]])))
            for step in steps[: n + 1]:
                m = torch.cat((step.view(2, 3) + torch.eye(2, 3), torch.tensor([[0.0, 0, 1]]))) @ m
            return (m[:2] - torch.eye(2, 3)).flatten()

        jacobian = torch.autograd.functional.jacobian(composed, torch.zeros(6, dtype=torch.float64))
        values[n].append(np.linalg.svd(jacobian.numpy(), compute_uv=False))
    found = composition_jacobian(0.05, 4, 5)
    assert found["low"] == pytest.approx([np.min(v) for v in values])
    assert found["high"] == pytest.approx([np.max(v) for v in values])
    assert found["bound"] == pytest.approx([0.95, 0.95**2, 0.95**3, 0.95**4])


@pytest.mark.parametrize(
    ("last", "words"),
    [
        # share · 10 − 6 against √((share · 0.1)² + 0.1²): 0.1 < 0.117 at 61 and 59 %, 0.2 > 0.118 beyond
        (6.0, "60 % of c-STN-1's error (below any limit from 62 %, above any up to 58 %)"),
        (12.0, "120 % of c-STN-1's error (below none, above any up to 100 %)"),
        (0.05, "0 % of c-STN-1's error (below any limit from 2 %)"),
    ],
)
def test_for_which_limits_reuse_is_considerable(last: float, words: str) -> None:
    errors = {"c-STN-1": 10.0, "IC-STN-2": 8.0, "IC-STN-4": last}
    found = reuse_improves(Evidence(table("table_3", errors)))[-1]
    assert words in found.text


def test_the_share_of_the_error_that_reuse_leaves() -> None:
    errors = {"c-STN-1": 8.0, "IC-STN-2": 5.0, "IC-STN-4": 2.0}
    findings = reuse_improves(Evidence(table("table_3", errors)))
    assert findings[-1].text.startswith("IC-STN-4 has 25 % of c-STN-1's error")
