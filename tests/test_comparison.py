"""Ours beside the paper's: cells that are reached or alike, and in which order the models come."""

from __future__ import annotations

import pytest
from judged import PAPER, table

from icstn.evidence.collection import Evidence
from icstn.evidence.comparison import Compared, Order, against_paper, orders
from icstn.evidence.estimates import Estimate
from icstn.experiments import paper

ONE = {"a": 3.0, "b": 2.0, "c": 1.0}


class TestCells:
    def rows(self) -> dict:
        evidence = Evidence(table("table_2", {"STN(a)": 4.9, "CNN(a)": 9.0, "STN(b)": 0.2, "CNN(b)": 19.1}))
        return {(row.experiment, row.cell): row for row in against_paper(evidence)}

    def test_every_cell_of_the_paper_has_a_row(self) -> None:
        assert len(self.rows()) == 20 + 12 + 5

    @pytest.mark.parametrize(
        ("model", "reached", "alike"),
        [
            ("STN(a)", "reached", True),
            ("CNN(a)", "not reached", False),
            ("STN(b)", "reached", False),
            ("CNN(b)", "undecided", True),
        ],
    )
    def test_reached_is_not_alike(self, model: str, reached: str, alike: bool) -> None:
        row = self.rows()["table_2", model]
        assert (row.reached, row.alike()) == (reached, alike)

    def test_alike_depends_on_the_share(self) -> None:
        row = self.rows()["table_2", "CNN(a)"]
        assert not row.alike(0.3)
        assert row.alike(0.5)

    @pytest.mark.parametrize(
        ("ours", "alike"), [(4.944 * 1.09, True), (4.944 * 1.11, False), (4.944 * 0.89, False)]
    )
    def test_alike_is_within_a_tenth(self, ours: float, alike: bool) -> None:
        """Where the paper's number, 4.944, lies outside our interval."""
        rows = against_paper(Evidence(table("table_2", {"STN(a)": ours})))
        [row] = [row for row in rows if (row.experiment, row.cell) == ("table_2", "STN(a)")]
        assert row.ours is not None
        assert not row.ours.low <= row.printed <= row.ours.high
        assert row.alike() == alike

    @pytest.mark.parametrize(("half", "alike"), [(0.19, True), (0.21, False)])
    def test_an_interval_that_holds_everything_makes_nothing_alike(self, half: float, alike: bool) -> None:
        """The paper's number lies inside either interval, 15 % from ours."""
        ours = Estimate(4.944 * 1.15, half * 4.944 / 1.96)
        assert Compared("table_2", "STN(a)", 4.944, ours, 2).alike() == alike

    def test_a_preset_of_its_own_is_never_another_s(self) -> None:
        runs = [
            *table("table_2", {"STN(a)": 3.0}, preset="full"),
            *table("table_2", {"STN(a)": 5.0}, preset="paper"),
        ]
        runs += table("table_2", {"CNN(a)": 6.0}, preset="full")
        for preset, stn, cnn in ((None, 3.0, 6.0), ("full", 3.0, 6.0), ("paper", 5.0, None)):
            found = {row.cell: row.ours for row in against_paper(Evidence(runs), preset)}
            assert found["STN(a)"] is not None
            assert found["STN(a)"].value == stn
            assert (found["CNN(a)"] and found["CNN(a)"].value) == cnn

    def test_a_cell_without_a_run_is_neither(self) -> None:
        row = self.rows()["table_3", "STN"]
        assert (row.reached, row.alike(), row.ours) == ("not run", False, None)


class TestOrder:
    def test_the_same(self) -> None:
        assert str(Order("block (a)", ONE, {"a": 9.0, "b": 5.0, "c": 2.0})) == "block (a): the paper's order"

    def test_a_swap_is_named_with_all_numbers(self) -> None:
        found = Order("block (a)", ONE, {"a": 9.0, "b": 1.0, "c": 2.0})
        assert found.swapped == [("b", "c")]
        assert str(found) == (
            "block (a): not the paper's order: b 1.00 ≤ c 2.00, the paper has 2.000 > 1.000"
        )

    def test_what_is_lacking_is_said(self) -> None:
        assert "of the 2 models that have a run" in str(Order("", ONE, {"a": 9.0, "b": 5.0}))
        assert Order("", ONE, {"a": 9.0}).lacking == ["b", "c"]

    def test_nothing_ran(self) -> None:
        assert str(Order("", ONE, {})) == "nothing to compare, 0 of 3 models have a run"

    def test_block_a_has_all_its_rows(self) -> None:
        """The order once left c-STN-2 and c-STN-4 out, and with them the pair that is not the paper's."""
        ours = PAPER | {"c-STN-2(a)": 1.52, "IC-STN-2(a)": 1.74, "c-STN-4(a)": 1.40}
        a, b = orders("table_2", table("table_2", ours))
        assert (a.block, len(a.printed), len(b.printed)) == ("block (a)", 7, 5)
        assert ("c-STN-2(a)", "IC-STN-2(a)") in a.swapped
        assert str(a).startswith("block (a): not the paper's order: ")
        assert str(b) == "block (b): the paper's order"

    def test_columns_of_table_1(self) -> None:
        found = orders("table_1", [])
        assert [order.block for order in found] == ["σ = 2.5 px", "σ = 5 px", "σ = 7.5 px", "σ = 10 px"]
        assert all(list(order.printed) == list(paper.TABLE_1) for order in found)

    def test_means_are_over_seeds_and_diverged_runs_do_not_count(self) -> None:
        runs = table("table_3", {"CNN": 8.0}) + table("table_3", {"CNN": 10.0}, seed=1)
        (found,) = orders("table_3", runs)
        assert found.ours == {"CNN": 9.0}
