"""Another order of the tests, drawn from a seed."""

from __future__ import annotations

import random


def shuffled(tests: list[tuple[str, str]], seed: int) -> list[tuple[str, str]]:
    """(file, test) in another order: files, which stay together, and the tests of each."""
    chance = random.Random(seed)
    files = {name: chance.random() for name in sorted({file for file, _ in tests})}
    place = {test: chance.random() for test in sorted(tests)}
    return sorted(tests, key=lambda test: (files[test[0]], place[test]))
