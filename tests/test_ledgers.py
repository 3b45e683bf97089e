"""The ledgers: verdicts follow from numbers, pages from Records, and the committed pages are up to date."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from icstn.evidence import claims
from icstn.evidence.collection import Evidence, MissingError, identity
from icstn.evidence.estimates import Estimate, mean_error
from icstn.evidence.measurements import read_measurements
from icstn.evidence.trace import origins, trace
from icstn.experiments import Record, cells, paper
from tools import ledgers

ROOT = Path(__file__).resolve().parent.parent
FACTS = {"command": "icstn train", "commit": "c" * 40, "device": "CPU, some", "threads": 1, "steps": 10}


def made(
    experiment: str, model: str, error: float, *, half: float = 0.1, seed: int = 0, preset: str = "quick",
    sigma: float | None = None, **changes: object,
) -> Record:  # fmt: skip
    spec = next(s for s in cells(experiment, preset, (seed,), [model]) if sigma is None or s.sigma == sigma)
    metrics = {"test_error": error, "interval": [error - half, error + half]}
    curve = [error * 2, error, error * 0.5, error * 0.5]
    steps = [{"corner_px": e, "interval": [0.9 * e, 1.1 * e]} for e in curve]
    if experiment == "table_1":
        n = int(model.rsplit("-", 1)[1])
        metrics["by_operations"] = steps[:1] * n + steps[1:]
    weights = {"w": torch.zeros(paper.TABLE_2[model].capacity if experiment == "table_2" else 3)}
    return Record(replace(spec, **changes), "finished", metrics, {}, dict(FACTS), weights)


def table(experiment: str, errors: dict[str, float], **options) -> list[Record]:
    return [made(experiment, m, e, **options) for m, e in errors.items()]


ON_DIGITS = [
    "cnn-inefficient",
    "single-deep-poor",
    "reuse-mnist",
    "reuse-beats-cascade",
    "less-capacity",
    "trade-off",
]
PAPER = {m: row.error for m, row in paper.TABLE_2.items()}


class TestVerdicts:
    @pytest.mark.parametrize(
        ("value", "half", "verdict"),
        [(1.0, 0.5, "holds"), (-1.0, 0.5, "does not hold"), (0.1, 0.5, "undecided"), (0.0, 0.0, "undecided")],
    )
    def test_by_interval(self, value: float, half: float, verdict: str) -> None:
        assert claims.above(Estimate(value, half)) == verdict

    def test_one_failure_fails_and_one_doubt_leaves_open(self) -> None:
        assert claims.joint(["holds", "undecided", "does not hold"]) == "does not hold"
        assert claims.joint(["holds", "undecided"]) == "undecided"
        assert claims.joint(["holds", "holds"]) == "holds"
        assert claims.joint([]) == "undecided"

    def test_nothing_is_decided_without_records(self) -> None:
        for claim in claims.claims():
            if claim.kind == "records":
                found = claims.judge(claim, Evidence([]))
                assert (found.verdict, bool(found.missing)) == ("undecided", True), claim.name

    @pytest.mark.parametrize("name", ON_DIGITS)
    def test_the_papers_own_numbers_support_its_claims(self, name: str) -> None:
        evidence = Evidence(table("table_2", PAPER, half=0.05))
        assert claims.judge(claims.claim(name), evidence).verdict == "holds"

    def test_reversed_numbers_do_not(self) -> None:
        reverse = dict(zip(PAPER, sorted(PAPER.values()), strict=True))
        evidence = Evidence(table("table_2", reverse, half=0.01))
        assert claims.judge(claims.claim("reuse-mnist"), evidence).verdict == "does not hold"

    def test_wide_intervals_leave_it_open(self) -> None:
        evidence = Evidence(table("table_2", PAPER, half=20))
        assert claims.judge(claims.claim("reuse-mnist"), evidence).verdict == "undecided"

    def test_the_trade_off_has_a_price_limit(self) -> None:
        dear = Evidence(table("table_2", PAPER | {"IC-STN-4(b)": PAPER["c-STN-4(a)"] + 1}, half=0.05))
        assert claims.judge(claims.claim("trade-off"), dear).verdict == "does not hold"

    @pytest.mark.parametrize(
        ("shift", "verdict"), [(0.05, "holds"), (2.0, "does not hold"), (0.45, "undecided")]
    )
    def test_negligible_means_within_half_a_point(self, shift: float, verdict: str) -> None:
        plain = made("table_2", "IC-STN-4(b)", 2.0)
        inverted = made("table_2", "IC-STN-4(b)", 2.0 + shift, invert=True)
        found = claims.judge(claims.claim("inversion-negligible"), Evidence([plain, inverted]))
        assert found.verdict == verdict

    def test_beyond_the_trained_number(self) -> None:
        runs = [made("table_1", m, 1.0, sigma=s) for m in paper.TABLE_1 for s in paper.SIGMAS]
        assert claims.judge(claims.claim("beyond-trained"), Evidence(runs)).verdict == "holds"
        for run in runs:
            for step in run.metrics["by_operations"][-2:]:
                step["corner_px"] *= 4
                step["interval"] = [4 * x for x in step["interval"]]
        assert claims.judge(claims.claim("beyond-trained"), Evidence(runs)).verdict == "does not hold"

    def test_measurements_must_belong_to_the_record(self) -> None:
        runs = table("table_2", {"STN(a)": 5.0, "c-STN-1(a)": 4.0})
        fresh = {r.spec.key: {"of": identity(r), "zoom": z} for r, z in zip(runs, (1.4, 1.1), strict=True)}
        claim = claims.claim("stn-shrinks")
        assert claims.judge(claim, Evidence(runs, fresh)).verdict == "holds"
        stale = {key: value | {"of": "another"} for key, value in fresh.items()}
        assert claims.judge(claim, Evidence(runs, stale)).verdict == "undecided"


class TestEvidence:
    def test_interval_joins_items_and_seeds(self) -> None:
        runs = [made("table_2", "STN(a)", e, half=0.3, seed=i) for i, e in enumerate((4.0, 5.0, 6.0))]
        found = mean_error(runs)
        assert found.value == pytest.approx(5.0)
        assert found.half == pytest.approx((0.3**2 + (1.96 / 3**0.5) ** 2) ** 0.5)

    def test_takes_the_best_preset_that_is_complete(self) -> None:
        quick = table("table_2", {"STN(a)": 5.0, "c-STN-1(a)": 4.0})
        full = table("table_2", {"STN(a)": 3.0}, preset="full")
        evidence = Evidence(quick + full)
        assert evidence.preset("table_2", ["STN(a)", "c-STN-1(a)"]) == "quick"
        assert evidence.preset("table_2", ["STN(a)"]) == "full"

    def test_leaves_out_stand_ins_divergence_and_variations(self) -> None:
        run = made("table_3", "STN", 6.0)
        fake = replace(run, provenance={"data": {"stand_in": True}})
        lost = replace(run, status="diverged")
        other = made("table_3", "STN", 6.0, iterations=7)
        with pytest.raises(MissingError, match="STN at quick"):
            Evidence([fake, lost, other]).runs("table_3", "STN", "quick")

    def test_cells_against_the_paper(self) -> None:
        evidence = Evidence(table("table_2", {"STN(a)": 4.9, "CNN(a)": 9.0}))
        rows = {(e, n): (ours, v) for e, n, _, ours, v in claims.against_paper(evidence)}
        assert len(rows) == 20 + 12 + 5
        assert rows["table_2", "STN(a)"][1] == "holds"
        assert rows["table_2", "CNN(a)"][1] == "does not hold"
        assert rows["table_3", "STN"] == (None, "undecided")


class TestClaims:
    def test_there_are_at_least_fifteen_and_each_names_its_place(self) -> None:
        found = claims.claims()
        assert len(found) >= 15
        assert len({c.name for c in found}) == len(found)
        for claim in found:
            assert re.search(r"Sec\.|Table|Fig\.|Abstract", claim.place)
            assert claim.shown

    def test_an_unknown_claim_is_named(self) -> None:
        with pytest.raises(ValueError, match="no claim 'x': the claims are ic-equivalent"):
            claims.claim("x")

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "claim", [c for c in claims.claims() if c.kind == "computation"], ids=lambda c: c.name
    )
    def test_computations_need_nothing(self, claim: claims.Claim) -> None:
        found = claims.judge(claim, Evidence([]))
        assert found.verdict == ("does not hold" if claim.name == "derivative-closed-form" else "holds")


class TestTrace:
    RUNS = (
        made("table_2", "IC-STN-4(a)", 1.234),
        made("table_2", "IC-STN-4(a)", 1.434, seed=1),
        made("table_1", "IC-STN-4", 0.5, sigma=5.0),
        made("table_2", "IC-STN-4(b)", 2.0, invert=True),
    )

    @pytest.mark.parametrize(
        ("query", "count"),
        [
            ("table_2 IC-STN-4(a)", 2),
            ("ic-stn-4(a)", 2),
            ("IC-STN-4 sigma=5", 1),
            ("1.234", 1),
            ("1.33 %", 2),
        ],
    )
    def test_finds_cells_numbers_and_means(self, query: str, count: int) -> None:
        text = trace(query, self.RUNS)
        assert text.count("record:") == count
        assert "commit:       " + "c" * 40 in text

    def test_finds_a_key(self) -> None:
        assert self.RUNS[2].spec.key in trace(self.RUNS[2].spec.key, self.RUNS)

    def test_says_what_can_be_asked_for(self) -> None:
        with pytest.raises(LookupError, match="no Record has 'nothing': ask for a cell such as"):
            trace("nothing", self.RUNS)

    def test_names_a_variation(self) -> None:
        assert [o.variation for o in origins(self.RUNS)] == ["", "", "", "invert=True"]
        assert "invert=True" in trace("IC-STN-4(b)", self.RUNS)


class TestPages:
    def test_every_equation_has_a_test_with_a_sentence(self) -> None:
        files = sorted((ROOT / "tests" / "equations").glob("test_eq_*.py"))
        assert [f.name for f in files] == [f"test_eq_{n:02}.py" for n in range(1, 12)]
        for file in files:
            tests = [
                n for n in ast.parse(file.read_text()).body if getattr(n, "name", "").startswith("test_")
            ]
            assert tests
            assert all(ast.get_docstring(t) for t in tests)

    def test_marks_follow_the_tests(self, tmp_path: Path) -> None:
        (tmp_path / "test_eq_01.py").write_text(
            '"""Title.\\n\\n.. math::\\n\\n    x = 1\\n"""\n\n\n'
            'def test_good():\n    """Good."""\n\n\ndef test_bad():\n    """Bad."""\n    assert False\n'
        )
        (found,) = ledgers.equations(tmp_path)
        assert [(c.sentence, c.passed) for c in found.checks] == [("Good.", True), ("Bad.", False)]
        page = ledgers.equations_page([found], {"eq-lk-objective"})
        assert "**0 of 1 equations" in page
        assert "- ✓ Good.\n- ✗ Bad." in page
        assert "{eq}`eq-lk-objective`" in page
        assert "{eq}" not in ledgers.equations_page([found], set())

    def test_provenance_has_a_row_and_an_anchor_for_each_run(self) -> None:
        page = ledgers.provenance_page(list(TestTrace.RUNS))
        for run in TestTrace.RUNS:
            assert f'<span id="{run.spec.key}">' in page
        assert "- `icstn train` (3 runs)" in page

    def test_a_stand_in_is_in_no_ledger(self) -> None:
        fake = replace(TestTrace.RUNS[0], provenance={"data": {"stand_in": True}})
        assert "no published Records" in ledgers.provenance_page([fake])

    @pytest.mark.slow
    def test_committed_pages_are_up_to_date(self) -> None:
        made = ledgers.pages(ledgers.published(), read_measurements(ledgers.MEASUREMENTS))
        for name, text in made.items():
            committed = (ROOT / "book" / name).read_text(encoding="utf-8")
            assert committed == text, f"book/{name} is out of date: python -m tools.ledgers"
