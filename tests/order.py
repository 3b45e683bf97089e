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
    "test_book", "test_wheel", "book/ic_stn.ipynb", "test_live_page", "test_experiments_running",
    "test_export", "test_compilers", "test_fitting", "test_cli", "book/spatial_transformers.ipynb",
    "test_ledgers", "test_standalone", "test_reproduction", "test_resume", "test_golden_training",
    "book/four_regressors.ipynb", "test_live", "test_bad_input", "book/planar_alignment.ipynb",
    "test_two_images", "book/alignment_as_regression.ipynb", "test_book_buttons", "test_alignment_tool",
    "test_compatibility", "test_house_tests", "test_experiments_capture", "test_lean", "test_cluster",
    "test_golden_evaluation", "test_commands_shown", "test_constants", "test_datasets_mnist",
    "book/your_images.ipynb", "test_training", "book/what_became.ipynb", "test_baselines", "test_style",
)  # fmt: skip


def longest_first(group: str) -> int:
    """Where tests of a group stand among the others."""
    return LONGEST.index(group) if group in LONGEST else len(LONGEST)
