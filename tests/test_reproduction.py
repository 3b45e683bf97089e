"""Reproducing exhibits: plans, notebooks in processes, and a reader's run beside what is published."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import nbformat
import own_run
import pytest
import torch

from icstn import reproduction
from icstn.experiments import DataOptions, Execution, Record, Records, cells
from icstn.reproduction import Job, ReproductionError, Request, obtaining, side_by_side

KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
WRITES = "from pathlib import Path\nPath(output).mkdir(parents=True, exist_ok=True)\n"
WRITES += "(Path(output) / name).write_text(str(Path.cwd()))"


def make_notebook(path: Path, *sources: str) -> Path:
    """A notebook with the parameters ``output`` and ``name``, and these cells."""
    new = nbformat.v4.new_code_cell
    parameters = new('output = "rendered"\nname = "nobody"', metadata={"tags": ["parameters"]})
    book = nbformat.v4.new_notebook(cells=[parameters, *map(new, sources)], metadata=KERNEL)
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(book, path)
    return path


def job(notebook: Path, **parameters: object) -> Job:
    return Job(notebook.stem, (), DataOptions(), notebook, parameters)


@contextmanager
def watched() -> Iterator[set[str]]:
    """The working directories that this process is seen in meanwhile."""
    seen, done = {os.getcwd()}, threading.Event()

    def look() -> None:
        while not done.is_set():
            seen.add(os.getcwd())
            time.sleep(0.002)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


class TestChoosing:
    @pytest.mark.parametrize("name", ["table_2", "table2", "Table-2"])
    def test_names_as_people_write_them(self, name: str) -> None:
        assert reproduction.choose([name, name]) == ("table_2",)

    def test_nothing_is_everything(self) -> None:
        assert reproduction.choose([]) == tuple(reproduction.EXHIBITS)

    def test_what_stands_beside_a_table_runs_once(self) -> None:
        specs = reproduction.EXHIBITS["table_1"].specs("smoke", [2, 5])
        assert {s.seed for s in specs if s.experiment == "table_1"} == {2, 5}
        assert {s.seed for s in specs if s.experiment == "baselines" and s.samples} == {2}  # type: ignore[union-attr]

    def test_runs_of_any_preset_are_the_published_ones_or_the_folders(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Not those that happen to lie in the user's own folder."""
        made = {
            name: Record(cells("table_2", preset, [0], [model])[0], "finished", {"test_error": 1.0}, {}, {})
            for name, preset, model in (
                ("published", "quick", "CNN(b)"),
                ("folder", "full", "CNN(b)"),
                ("folder", "full", "CNN(a)"),
            )
            for name in [f"{name}/{model}"]
        }
        for name, record in made.items():
            Records(tmp_path / name.split("/")[0]).save(record)
        monkeypatch.setattr(obtaining, "published_folder", lambda: tmp_path / "published")
        for records, wanted in (("published", "published"), (str(tmp_path / "folder"), "folder")):
            found = reproduction.of_any_preset("table_2", ["CNN(b)"], records)
            assert [r.spec for r in found] == [made[f"{wanted}/CNN(b)"].spec]
        monkeypatch.setattr(obtaining, "published_folder", lambda: None)
        assert reproduction.of_any_preset("table_2", ["CNN(b)"], "published") == []

    def test_an_unknown_name_lists_the_known(self) -> None:
        with pytest.raises(ReproductionError, match="unknown exhibit 'figure_12': choose from table_1"):
            reproduction.choose(["figure_12"])

    @pytest.mark.parametrize(
        ("seeds", "expected"), [(3, [3]), ("0", [0]), ("0,2,5-7", [0, 2, 5, 6, 7]), ([1, 2], [1, 2])]
    )
    def test_seeds(self, seeds: int | str | list[int], expected: list[int]) -> None:
        assert reproduction.seed_list(seeds) == expected

    @pytest.mark.parametrize("seeds", ["", "a", "1,,2", "-1", "4-2", "1-2-3"])
    def test_no_seeds(self, seeds: str) -> None:
        with pytest.raises(ReproductionError, match="seeds are numbers"):
            reproduction.seed_list(seeds)


class TestTables:
    def test_all_tables_are_printed_under_their_captions(self, root: Path) -> None:
        rendered = root / "figures" / "rendered"
        text = reproduction.tables(["table_1", "figure_3", "table_2"], rendered)
        headings = [line for line in text.splitlines() if line.startswith("## ")]
        assert headings == [
            "## Table 1. Test error of planar alignment, in pixels",
            "## Table 1, in warp parameters. Test error of planar alignment, as the L2 norm of p",
            "## Classical methods on the trials of Table 1, a comparison that the paper does not make: "
            "test error in pixels",
            "## Table 2. Test error on perturbed MNIST, in percent",
        ]

    def test_no_rendered_table_is_forgotten(self, root: Path) -> None:
        rendered = {path.stem for path in (root / "figures" / "rendered").glob("*.md")}
        assert {t for exhibit in reproduction.EXHIBITS.values() for t in exhibit.tables} == rendered


class TestPlan:
    def test_every_path_is_absolute_before_anything_starts(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fetched: list[tuple] = []
        monkeypatch.setattr("icstn.datasets.fetch", lambda *given, **_: fetched.append(given))
        monkeypatch.chdir(tmp_path)
        request = Request(("table_2",), records=Path("records"), output=Path("out"))
        [made] = reproduction.plan(request, Execution(device="cpu", data=DataOptions("data")))
        monkeypatch.chdir("/")
        assert made.parameters["output"] == str(tmp_path / "out" / "rendered")
        assert made.parameters["records"] == str(tmp_path / "records") == str(request.store.folder)
        assert made.parameters["data"] == made.data.folder == str(tmp_path / "data")
        assert fetched == [("mnist", str(tmp_path / "data"))]
        assert made.notebook.is_absolute()

    def test_the_users_own_records_are_absolute_too(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("ICSTN_RECORDS", "mine")
        assert Request(("table_2",)).store.folder == tmp_path / "mine"

    def test_a_diagram_needs_no_runs_and_has_few_parameters(self, tmp_path: Path) -> None:
        [made] = reproduction.plan(Request(("figure_3",), output=tmp_path), Execution(device="cpu"))
        assert (made.specs, list(made.parameters)) == ((), ["output"])

    def test_without_the_signs_their_exhibits_get_the_stand_in(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("ICSTN_CACHE", str(tmp_path))
        monkeypatch.setattr("icstn.datasets._gtsrb.URL", "http://127.0.0.1:9/")
        request = Request(("table_1", "table_3"), output=tmp_path)
        first, second = reproduction.plan(request, Execution(device="cpu"))
        assert (first.parameters["data"], second.parameters["data"]) == (None, "stand-in")
        assert not first.data.stand_in
        assert second.data.stand_in
        assert "a rendered stand-in takes its place" in capsys.readouterr().err

    def test_training_alone_needs_no_notebooks_and_on_a_cluster_no_data(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("icstn.reproduction.plans.checkout", lambda: None)
        request = Request(("table_2", "table_3", "figure_3"), output=tmp_path, train_only=True)
        there = Execution(device="cpu", data=DataOptions("/on/the/workers"), scheduler="tcp://there:8786")
        jobs = reproduction.plan(request, there)
        assert [len(job.specs) for job in jobs] == [12, 5, 0]
        assert {job.data for job in jobs} == {there.data}
        with pytest.raises(ReproductionError, match="run this in the project's checkout"):
            reproduction.plan(replace(request, train_only=False), there)

    @pytest.mark.parametrize(
        ("parameters", "sentence"),
        [({"nonsense": 1}, "figure_3 has no parameter 'nonsense': it has output"),
         ({"output": 3}, "figure_3: output is a str such as 'rendered', not 3")],
    )  # fmt: skip
    def test_parameters_are_checked(
        self, parameters: dict[str, object], sentence: str, tmp_path: Path
    ) -> None:
        request = Request(("figure_3",), output=tmp_path, parameters=parameters)
        with pytest.raises(ReproductionError, match=sentence):
            reproduction.plan(request, Execution(device="cpu"))


@pytest.mark.slow
class TestExecuting:
    def test_notebooks_run_beside_each_other_and_this_process_stays_where_it_is(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Papermill changes the working directory of its process: in threads that moved everybody's."""
        monkeypatch.chdir(tmp_path)
        jobs = [
            job(
                make_notebook(tmp_path / f"from_{n}" / f"{n}.ipynb", WRITES),
                output=str(tmp_path / "out"),
                name=n,
            )
            for n in ("a", "b", "c")
        ]
        with watched() as seen:
            found = reproduction.execute(jobs, Path("executed"), Records(tmp_path / "records"), 2)
        assert seen == {str(tmp_path)}
        assert found == {n: tmp_path / "executed" / f"{n}.ipynb" for n in "abc"}
        for name in "abc":
            assert (tmp_path / "out" / name).read_text() == str(tmp_path / f"from_{name}")

    def test_what_a_kernel_says_of_its_end_is_kept_from_the_terminal(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """Jupyter interrupts a kernel before it ends it, which is logged as an error at times."""
        source = (
            "import logging, os\n"
            "get_ipython().kernel.log.error('KeyboardInterrupt caught in kernel.')\n"
            "logging.getLogger('tornado.general').error('Uncaught exception in ZMQStream callback')\n"
            "os.write(2, b'an assertion of a library')"
        )
        one = job(make_notebook(tmp_path / "n.ipynb", source))
        reproduction.execute([one], tmp_path / "out", Records(tmp_path / "records"))
        assert capfd.readouterr() == ("", "")

    def test_a_failure_is_told_in_the_notebooks_own_words(self, tmp_path: Path) -> None:
        one = job(make_notebook(tmp_path / "sad.ipynb", "1 / 0"))
        with pytest.raises(ReproductionError, match=r"sad failed in its cell \d: ZeroDivisionError"):
            reproduction.execute([one], tmp_path / "out", Records(tmp_path / "records"))

    def test_what_has_not_changed_is_kept(self, tmp_path: Path) -> None:
        notebook = make_notebook(tmp_path / "n.ipynb", WRITES)
        records, where = Records(tmp_path / "records"), str(tmp_path / "rendered")

        def times(name: str) -> int:
            one = job(notebook, output=where, name=name)
            [path] = reproduction.execute([one], tmp_path / "out", records).values()
            return path.stat().st_mtime_ns

        first = times("a")
        assert times("a") == first
        second = times("b")
        assert second > first
        (tmp_path / "records" / "run").mkdir(parents=True)
        (tmp_path / "records" / "run" / "record.json").write_text("{}")
        assert times("b") > second, "it shows Records that are others now"


def made_records(folder: Path, *, stand_in: bool = False) -> tuple[Job, Records]:
    """A job for Table 3 at seeds 0 and 1, and its Records with made-up errors."""
    specs = tuple(cells("table_3", "smoke", [0, 1]))
    records = Records(folder)
    where = records.stand_in() if stand_in else records
    for i, spec in enumerate(specs):
        lost = spec.model == "STN" and spec.seed == 1
        facts = {"data": {"stand_in": stand_in}}
        metrics = {} if lost else {"test_error": 10.0 + i}
        where.save(Record(spec, "diverged" if lost else "finished", metrics, {}, facts, {"w": torch.ones(1)}))
    notebook = Path(__file__).parents[1] / "figures" / "table_3.ipynb"
    parameters = {"preset": "smoke", "seeds": "0,1", "records": str(folder), "data": None}
    return Job("table_3", specs, DataOptions(None, stand_in), notebook, parameters), records


class TestComparison:
    def test_the_papers_the_published_and_the_readers_stand_side_by_side(self, tmp_path: Path) -> None:
        lines = side_by_side(*made_records(tmp_path)).splitlines()
        assert lines[0] == "| Model | Paper | Published | Yours |"
        rows = {line.split(" | ")[0].strip("| "): line.split(" | ")[1:] for line in lines[2:7]}
        assert [row[0] for row in rows.values()] == ["8.287", "6.495", "5.011", "4.122", "3.184"]
        assert all(0 < float(row[1]) < 100 for row in rows.values())
        assert rows["CNN"][2] == "12.50 |"
        assert rows["STN"][2] == "11.00 (1 of 2 diverged) |"

    def test_numbers_of_the_stand_in_are_marked_as_such(self, tmp_path: Path) -> None:
        text = side_by_side(*made_records(tmp_path, stand_in=True))
        assert text.splitlines()[0].endswith("| Published | Yours, on rendered signs |")
        assert "12.50" in text

    def test_a_run_that_is_not_there_is_a_dash(self, tmp_path: Path) -> None:
        one, _ = made_records(tmp_path / "somewhere")
        assert side_by_side(one, Records(tmp_path / "empty")).splitlines()[2].endswith("| – |")

    def test_each_sigma_of_table_1(self, tmp_path: Path) -> None:
        one, records = made_records(tmp_path)
        planar = replace(one, name="table_1", specs=tuple(cells("table_1", "smoke")))
        lines = side_by_side(planar, records).splitlines()
        assert (lines[0], len(lines)) == ("| Model | σ | Paper | Published | Yours |", 2 + 5 * 4 + 2)

    def test_a_figure_has_none(self, tmp_path: Path) -> None:
        one, records = made_records(tmp_path)
        assert side_by_side(replace(one, name="figure_10"), records) == ""

    def test_the_line_about_it_names_no_place_on_the_readers_machine(self, tmp_path: Path) -> None:
        one, _ = made_records(tmp_path)
        assert one.about == "Made with preset smoke, seeds 0,1."
        assert replace(one, parameters={"data": "/home/me"}).about == "Made with a data folder of your own."
        assert "rendered signs in place of GTSRB" in made_records(tmp_path, stand_in=True)[0].about


def page(*cells: nbformat.NotebookNode, **about: object) -> nbformat.NotebookNode:
    metadata = {"icstn": {"key": "0", "stand_in": False, **about}} if about else {}
    return nbformat.v4.new_notebook(cells=list(cells), metadata=metadata)


def printed(source: str, text: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_code_cell(source, outputs=[nbformat.v4.new_output("stream", text=text)])


TITLE, LEAD = (
    nbformat.v4.new_markdown_cell("# Table 3\n\nSigns."),
    nbformat.v4.new_markdown_cell("The order:"),
)
INJECTED = nbformat.v4.new_code_cell('records = "/home/me"', metadata={"tags": ["injected-parameters"]})
ABOUT = {"about": "Made with preset quick.", "comparison": "| Model | Yours |\n| -- | -- |\n| CNN | 9 |"}


class TestPage:
    def test_what_is_published_stays_and_the_readers_run_follows(self) -> None:
        published = page(TITLE, LEAD, printed("print(x)", "6.21 %"))
        own = page(TITLE, INJECTED, LEAD, printed("print(x)", "no run"), **ABOUT)
        both = own_run.with_own_run(published, own)
        assert both.cells[:3] == published.cells
        heading, lead, result = both.cells[3:]
        assert heading.source == "## Your run\n\nMade with preset quick.\n\n" + ABOUT["comparison"]
        assert lead.source == "The order:"
        assert result.outputs[0].text == "no run"
        assert result.metadata.tags == ["remove-input"]
        assert "/home/me" not in nbformat.writes(both)

    def test_of_a_table_of_the_stand_in_only_the_comparison_stays(self) -> None:
        published = page(TITLE, printed("x", "6.21 %"))
        own = page(TITLE, printed("x", "–"), **ABOUT, stand_in=True)
        assert [
            ABOUT["comparison"] in cell.source for cell in own_run.with_own_run(published, own).cells[2:]
        ] == [True]
        figure = page(TITLE, printed("x", "–"), **ABOUT | {"comparison": ""}, stand_in=True)
        assert len(own_run.with_own_run(published, figure).cells) == 4

    def test_a_run_that_gave_the_same_says_so(self) -> None:
        published, own = page(TITLE, printed("x", "1")), page(TITLE, INJECTED, printed("x", "1"), **ABOUT)
        both = own_run.with_own_run(published, own)
        assert [cell.source for cell in both.cells[2:]] == [
            "## Your run\n\nMade with preset quick.\n\nIt gave what is shown above."
        ]

    def test_staging_adds_the_run_to_the_committed_page(
        self, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import book

        for made in (book.live, book.first_screen):  # other pages' pictures and networks, which take long
            monkeypatch.setattr(made, "write", lambda _: ())
        committed = nbformat.read(root / "figures" / "table_3.ipynb", 4)
        own = nbformat.from_dict(
            {**committed, "metadata": {"icstn": {"key": "0", "stand_in": False, **ABOUT}}}
        )
        own.cells[-1] = printed("print()", "mine")
        (tmp_path / "overlay" / "figures").mkdir(parents=True)
        nbformat.write(own, tmp_path / "overlay" / "figures" / "table_3.ipynb")
        for _ in range(2):  # staging anew adds it once
            staged = book.stage(tmp_path / "stage", overlay=tmp_path / "overlay")
            shown = nbformat.read(staged / "figures" / "table_3.ipynb", 4)
            assert shown.cells[: len(committed.cells)] == committed.cells
            assert sum("## Your run" in cell.source for cell in shown.cells) == 1
