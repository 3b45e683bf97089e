"""Every committed notebook: written by tools/notebooks.py, and it says the same when it runs again."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from pathlib import Path

import nbformat
import notebooks
import pytest
import warm

ROOT = Path(__file__).resolve().parent.parent
#: As the user has it, with a cache of data.
ENVIRONMENT = dict(os.environ)
COMMITTED = sorted([*ROOT.glob("book/*.ipynb"), *ROOT.glob("figures/*.ipynb")])

#: No other plugin, no settings, no rewriting of asserts: importing these takes longer than most notebooks.
NBVAL_ALONE = (
    "-p", "nbval.plugin", "-p", "no:cacheprovider", "--assert=plain", "-c", os.devnull, "--rootdir", str(ROOT)
)  # fmt: skip


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def notebook(*cells: nbformat.NotebookNode) -> nbformat.NotebookNode:
    return nbformat.v4.new_notebook(cells=list(cells))


def code(source: str, count: int | None, *outputs: nbformat.NotebookNode) -> nbformat.NotebookNode:
    return nbformat.v4.new_code_cell(source, execution_count=count, outputs=list(outputs))


@pytest.mark.parametrize("path", COMMITTED, ids=name)
def test_is_committed_as_the_tool_writes_it(path: Path) -> None:
    assert notebooks.check(path) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", [pytest.param(p, marks=pytest.mark.xdist_group(name(p))) for p in COMMITTED], ids=name
)
def test_runs_again_with_the_same_outputs(path: Path, tmp_path: Path) -> None:
    command = [*warm.PYTHON, "-m", "pytest", *NBVAL_ALONE, "--nbval", name(path), "-q"]
    command += ["--nbval-cell-timeout=600", "--nbval-sanitize-with", "tests/nbval.cfg"]
    environment = ENVIRONMENT | {"OMP_NUM_THREADS": "1", "COVERAGE_FILE": str(tmp_path / "coverage")}
    environment |= {"JUPYTER_PATH": str(ROOT / "tests")}  # a kernel of warm.py
    environment = {k: v for k, v in environment.items() if not k.startswith("PYTEST_")}
    environment |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_an_unexecuted_cell_is_a_problem() -> None:
    assert "not 1..2" in notebooks.problems(notebook(code("1", 1), code("2", None)))[0]


def test_a_second_run_in_place_is_a_problem() -> None:
    assert notebooks.problems(notebook(code("1", 7)))


def test_stderr_is_a_problem() -> None:
    output = nbformat.v4.new_output("stream", name="stderr", text="a warning\n")
    assert "code cell 1 wrote to stderr: 'a warning'" in notebooks.problems(notebook(code("1", 1, output)))


def test_a_memory_address_is_a_problem() -> None:
    data = {"text/plain": "<matplotlib.lines.Line2D at 0x7f2c4e5d6a90>"}
    output = nbformat.v4.new_output("execute_result", data=data, execution_count=1)
    assert "memory address" in notebooks.problems(notebook(code("plot()", 1, output)))[0]


def test_an_error_is_a_problem_unless_it_is_announced() -> None:
    error = nbformat.v4.new_output("error", ename="ValueError", evalue="no", traceback=[])
    cell = code("raise ValueError('no')", 1, error)
    assert notebooks.problems(notebook(cell)) == ["code cell 1 raised ValueError: no"]
    cell.metadata["tags"] = ["raises-exception"]
    assert notebooks.problems(notebook(cell)) == []


def test_canonical_form_is_the_same_after_every_run() -> None:
    def executed(token: str) -> str:
        link = '<link rel="stylesheet" href="https://example.org/a.css">'
        html = f'{link}<img id="_anim_img{token}" onclick="anim{token}.play()">'
        cell = code("show()", 1, nbformat.v4.new_output("display_data", data={"text/html": html}))
        cell.metadata.update(tags=["hide-input"], execution={"iopub.status.busy": token})
        book = notebook(cell, code("show()", 2))
        book.metadata["papermill"] = {"start_time": token}
        return notebooks.dumps(notebooks.canonical(book))

    first, second = executed("0" * 31 + "1"), executed("f" * 32)
    assert first == second
    assert "https://" not in first
    assert "hide-input" in first
    assert "papermill" not in first


def test_canonical_form_keeps_pixels() -> None:
    pixels = "data:image/png;base64," + "ab01" * 8
    html = f'<img id="{"9" * 32}" src="{pixels}">'
    cell = code("show()", 1, nbformat.v4.new_output("display_data", data={"text/html": html}))
    assert pixels in notebooks.dumps(notebooks.canonical(notebook(cell)))


def test_canonical_form_keeps_checksums() -> None:
    """Only a player's ids are drawn at random; any other hexadecimal string is something the page says."""
    said = hashlib.md5(b"an archive").hexdigest()
    player = f'<img id="_anim_img{"9" * 32}"><script>anim{"9" * 32}.play()</script>'
    for html in (f"<p>MD5 {said}</p>", f"{player}<p>MD5 {said}, and {'9' * 32}</p>"):
        cell = code("show()", 1, nbformat.v4.new_output("display_data", data={"text/html": html}))
        cleaned = notebooks.canonical(notebook(cell)).cells[0].outputs[0].data["text/html"]
        assert f"MD5 {said}" in cleaned
        assert not re.search(r"anim\w*9{32}", cleaned)
        assert cleaned.endswith(f"<p>MD5 {said}</p>") or cleaned.endswith(f"and {'9' * 32}</p>")


@pytest.mark.parametrize("path", COMMITTED, ids=name)
def test_committed_checksums_are_those_of_records(path: Path) -> None:
    records = "".join(p.read_text() for p in (ROOT / "figures" / "records").glob("*/record.json"))
    for cell in nbformat.read(path, as_version=4).cells:
        for output in cell.get("outputs", []):
            for text in (v for k, v in output.get("data", {}).items() if k.startswith("text/")):
                for found in re.findall(r"(?:MD5|official) ([0-9a-f]{32})", text):
                    assert found in records, f"{name(path)} shows {found}, which no Record knows"


def test_tool_runs_a_notebook_and_is_idempotent(tmp_path: Path) -> None:
    path = tmp_path / "small.ipynb"
    nbformat.write(notebook(code("print(6 * 7)", None)), path)
    assert notebooks.check(path)
    assert notebooks.write(path)
    assert notebooks.check(path) == []
    assert not notebooks.write(path)
    assert nbformat.read(path, as_version=4).cells[0].outputs[0].text == "42\n"


def test_tool_refuses_to_write_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "noisy.ipynb"
    nbformat.write(notebook(code("import sys; print('careful', file=sys.stderr)", None)), path)
    with pytest.raises(notebooks.NotebookError, match="stderr: 'careful'"):
        notebooks.write(path)
