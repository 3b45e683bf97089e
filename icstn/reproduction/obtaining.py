"""Obtaining the Records that an exhibit shows: what is missing is trained first."""

from __future__ import annotations

from collections.abc import Sequence

from icstn.experiments.execution import DataOptions, Execution
from icstn.experiments.recipes import cells, is_own
from icstn.experiments.records import Record, Records, open_records, published_folder
from icstn.experiments.running import ensure
from icstn.reproduction.catalogue import ReproductionError

#: Most seeds that are asked for at once.
MOST_SEEDS = 1000


def obtain(
    experiment: str,
    models: Sequence[str] | None = None,
    *,
    preset: str = "quick",
    seeds: int | str | Sequence[int] = 0,
    device: str = "auto",
    data: str | None = None,
    records: str | None = None,
) -> list[Record]:
    """The Records that an exhibit shows; what is missing is trained first, with a progress bar.

    Args:
        experiment: one of :data:`icstn.experiments.EXPERIMENTS`, such as ``table_1`` or ``baselines``.
        models: only these rows.
        preset, device, data, records: the notebook's parameters.
        seeds: see :func:`seed_list`.

    Raises:
        ValueError, DataError, StorageError: a parameter is no good; the message says which.
    """
    specs = cells(experiment, preset, seed_list(seeds), models)
    execution = Execution(device=device, data=DataOptions.parse(data))
    return ensure(specs, open_records(records), execution)


def of_any_preset(experiment: str, models: Sequence[str], records: str | None = None) -> list[Record]:
    """Runs of a table's rows at any preset, to be shown beside those of one; nothing is trained.

    Args:
        experiment, models: rows of a table.
        records: the notebook's parameter: ``"published"`` is the published Records alone.
    """
    folder = published_folder() if records == "published" else records
    if folder is None and records == "published":
        return []
    own = (r for r in Records(folder) if r.spec.experiment == experiment and r.spec.model in models)
    return [r for r in own if is_own(r.spec)]


def seed_list(seeds: int | str | Sequence[int]) -> list[int]:
    """Seeds as a list, from a number, a list or a text.

    Raises:
        ReproductionError: the text names no seeds.

    Example:
        >>> seed_list("0,2,5-7")
        [0, 2, 5, 6, 7]
    """
    if isinstance(seeds, int):
        return [seeds]
    if not isinstance(seeds, str):
        return _numbers(seeds)
    try:
        ranges = [[int(end) for end in part.split("-")] for part in seeds.split(",")]
    except ValueError:
        ranges = []
    spans = [range(ends[0], ends[-1] + 1) for ends in ranges]
    if not any(spans) or any(len(ends) > 2 for ends in ranges):
        raise ReproductionError(f"seeds are numbers such as 0, 0,1,2 or 0-4; got {seeds!r}")
    if (many := sum(span.stop - span.start for span in spans)) > MOST_SEEDS:
        raise ReproductionError(
            f"{seeds} are {many} seeds, one run each: ask for at most {MOST_SEEDS} at once"
        )
    return [seed for span in spans for seed in span]


def _numbers(seeds: Sequence[int]) -> list[int]:
    try:
        return [int(seed) for seed in seeds]
    except (TypeError, ValueError):
        raise ReproductionError(f"seeds are numbers such as 0, [0, 1, 2] or '0-4'; got {seeds!r}") from None
