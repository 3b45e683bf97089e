"""The order of the tests: the longest first, or another one, drawn from a seed."""

from __future__ import annotations

import random


def shuffled(tests: list[tuple[str, str]], seed: int) -> list[tuple[str, str]]:
    """(file, test) in another order: files, which stay together, and the tests of each."""
    chance = random.Random(seed)
    files = {name: chance.random() for name in sorted({file for file, _ in tests})}
    place = {test: chance.random() for test in sorted(tests)}
    return sorted(tests, key=lambda test: (files[test[0]], place[test]))


#: What keeps a worker busy longest, the longest first: started late, it would be waited for.
LONGEST = (
    "test_book", "book/ic_stn.ipynb", "test_style", "test_experiments_running", "test_wheel",
    "test_live_page", "test_baselines", "test_resume", "test_export", "test_compilers", "test_cluster",
    "book/spatial_transformers.ipynb", "test_cli", "test_reproduction", "test_ledgers",
)  # fmt: skip


def longest_first(group: str) -> int:
    """Where tests of a group stand among the others."""
    return LONGEST.index(group) if group in LONGEST else len(LONGEST)
