"""The tables of speed, cost and alignment that the book shows are what the code makes of the measurements."""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import alignment  # noqa: E402
import batching  # noqa: E402
import costs  # noqa: E402
import photographs  # noqa: E402
import speed  # noqa: E402
import threads  # noqa: E402

from icstn.experiments import cells  # noqa: E402
from icstn.experiments.execution import Execution, cores  # noqa: E402

REPORT = json.loads((BENCHMARKS / "speed.json").read_text())


def test_pages_are_made_of_the_committed_measurements() -> None:
    assert speed.PAGE.read_text() == speed.markdown(REPORT)
    assert costs.PAGE.read_text() == costs.page(REPORT)
    bound = json.loads((BENCHMARKS / "batching.json").read_text())
    assert batching.PAGE.read_text() == batching.markdown(bound)
    turns = json.loads((BENCHMARKS / "threads.json").read_text())
    assert threads.PAGE.read_text() == threads.markdown(turns)
    measured = json.loads((BENCHMARKS / "aligners.json").read_text())
    assert alignment.PAGE.read_text() == alignment.markdown(measured)
    others = json.loads((BENCHMARKS / "photographs.json").read_text())
    assert photographs.PAGE.read_text() == photographs.markdown(others)


def test_the_library_page_shows_both_alignment_benchmarks(root: Path) -> None:
    page = (root / "book" / "library.md").read_text()
    for path in (alignment.PAGE, photographs.PAGE):
        assert f"```{{include}} {path.relative_to(root / 'book')}\n```" in page


def test_no_alignment_that_is_wrong_by_a_pixel_is_called_converged() -> None:
    """In either benchmark, on any photograph, under light, noise, blur and cover."""
    measured, others = (
        json.loads((BENCHMARKS / f"{name}.json").read_text()) for name in ("aligners", "photographs")
    )
    assert [t["verdicts"]["wrong and not flagged"] for t in measured["tables"].values()] == [0, 0]
    tables = [*measured["changes"].values(), *others["tables"].values()]
    assert len(tables) == 2 + 4
    assert all(row["wrong and silent"] == 0 for rows in tables for row in rows.values())


def test_the_default_number_of_threads_is_the_faster_one() -> None:
    seconds = json.loads((BENCHMARKS / "threads.json").read_text())["seconds"]
    faster = min(seconds, key=lambda name: statistics.median(seconds[name]))
    assert (faster == "2 runs × 1 thread") == (Execution(device="cpu").processes() == cores())


def test_every_row_was_measured() -> None:
    for table in ("table_2", "table_3"):
        assert list(REPORT["rows"][table]) == [s.model for s in cells(table)]
        assert REPORT["sums"][table] == speed.total(REPORT["rows"][table])


def test_makespan_fills_the_workers() -> None:
    assert costs.makespan([3, 1, 1, 1], 2) == 3
    assert costs.makespan([1, 1, 1, 1], 1) == 4
    assert costs.makespan([5.0, 1.0], 8) == 5


@pytest.mark.parametrize("model", ["STN(a)", "IC-STN-2(a)", "c-STN-2(a)", "CNN(b)"])
def test_the_plain_step_computes_what_ours_does(model: str) -> None:
    """The same weights, images and warps give the same logits: a ratio of speeds compares like with like."""
    spec = cells("table_2", "smoke", models=[model], batch=4)[0]
    data, frame, standardize = speed.random_data("table_2")
    plain, ours = (side(spec, data, frame, standardize) for side in (speed.Plain, speed.Ours))
    network = ours.state.model
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for a, b in zip(network.parameters(), plain.parameters(), strict=True):
            a.copy_(torch.randn(a.shape, generator=generator) * 0.01)
            b.copy_(a)
    image = torch.rand(4, 1, 28, 28, generator=generator)
    p = 0.1 * torch.randn(4, 8, generator=generator)
    torch.testing.assert_close(plain.logits(image, p), network(image, p), atol=1e-5, rtol=1e-4)


def test_the_plain_perturbation_has_the_papers_size() -> None:
    spec = cells("table_2", "smoke", models=["CNN(b)"], batch=4000)[0]
    plain = speed.Plain(spec, *speed.random_data("table_2"))
    p = plain.perturbation()
    corners = torch.tensor([[-1.0, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1]]).T
    moved = plain.matrix(p) @ corners
    shift = moved[:, :2] / moved[:, 2:] - corners[:2]
    sigma = spec.sigma * 2 / 28
    assert shift.std().item() == pytest.approx(sigma * 2**0.5, rel=0.03)
