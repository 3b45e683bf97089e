"""The Records that an exhibit shows; what is missing is trained first."""

from __future__ import annotations

from collections.abc import Sequence

from icstn.experiments import DataOptions, Execution, Record, cells, ensure, open_records


class ExhibitError(ValueError):
    """A figure that can't be drawn from these Records; the message says what is missing."""


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
        experiment: ``table_1``, ``table_2`` or ``table_3``.
        models: only these rows.
        preset, device, data, records: the notebook's parameters.
        seeds: one seed, a list, or a text such as ``"0,1,2"`` or ``"0-4"``.

    Raises:
        SpecError, DataError, StorageError, ExhibitError: a parameter is no good; the message says which.
    """
    specs = cells(experiment, preset, seed_list(seeds), models)
    return ensure(specs, open_records(records), Execution(device=device, data=data_options(data)))


def data_options(data: str | None) -> DataOptions:
    """The notebooks' parameter ``data``: a folder, None, or ``"stand-in"`` for rendered traffic signs."""
    return DataOptions.parse(data)


def seed_list(seeds: int | str | Sequence[int]) -> list[int]:
    """Seeds as a list, from a number, a list or a text.

    Raises:
        ExhibitError: the text names no seeds.

    Example:
        >>> seed_list("0,2,5-7")
        [0, 2, 5, 6, 7]
    """
    if isinstance(seeds, int):
        return [seeds]
    if not isinstance(seeds, str):
        return [int(seed) for seed in seeds]
    try:
        ranges = [[int(end) for end in part.split("-")] for part in seeds.split(",")]
        return [seed for ends in ranges for seed in range(ends[0], ends[-1] + 1)]
    except ValueError as error:
        raise ExhibitError(f"seeds are numbers such as 0, 0,1,2 or 0-4; got {seeds!r}") from error
