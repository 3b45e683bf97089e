"""torch.compile and the exporters on the transformers with ``build()`` networks, from a cold process on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import warm

from icstn.warps import FAMILIES

KINDS = ("STN", "c-STN", "IC-STN", "IC-STN inverse")
#: Where the transformer looks: at the whole image, at a crop of it, or at one and then, warm, at the other.
BOTH = "whole+crop"
#: Each kind and each family once; ``--long`` has all of them in every way.
SOME = list(zip(KINDS, reversed(FAMILIES), (BOTH, "crop", "whole", "crop"), strict=True))
QUICK = {
    "dynamic export": SOME,
    "strict dynamic export": SOME[2:3],
    "trace": SOME[::2],
    "aot_eager": SOME,
}
ALL = [(kind, name, BOTH) for kind in KINDS for name in FAMILIES]
HOW = ("export", "dynamic export", "strict export", "strict dynamic export", "trace", "eager", "aot_eager")


def go(root: Path, what: str, some: list[tuple[str, str, str]]) -> None:
    python = (sys.executable,) if what.startswith("strict") else warm.PYTHON  # each import is once its own
    command = [
        *python,
        str(root / "tests" / "compilers.py"),
        what,
        *(word for one in some for word in one),
    ]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr[-3000:]
    assert len(run.stdout.splitlines()) == sum(len(places.split("+")) for *_, places in some)


@pytest.mark.slow
@pytest.mark.parametrize("what", QUICK)
def test_each_kind_and_family(what: str, root: Path) -> None:
    go(root, what, QUICK[what])


@pytest.mark.long
@pytest.mark.parametrize("what", [*HOW, "inductor"])
def test_all_of_them(what: str, root: Path) -> None:
    go(root, what, ALL)
