"""How to make an exhibit again exactly as it is shown, and how long that took."""

from __future__ import annotations

from collections.abc import Sequence

from icstn.experiments.records import Record


def rerun(exhibit: str, records: Sequence[Record] = ()) -> str:
    """The command that trains an exhibit's runs and draws it, with the time of these runs, in Markdown.

    Args:
        exhibit: such as ``table_2``.
        records: the runs that it shows; none for an exhibit that needs none.

    Example:
        >>> rerun("figure_1")
        '**Rerun exactly this:** `icstn reproduce figure_1`. It needs no training and takes seconds.'
    """
    words = f"**Rerun exactly this:** `icstn reproduce {exhibit}"
    if not records:
        return f"{words}`. It needs no training and takes seconds."
    presets = sorted({r.spec.preset for r in records})
    seeds = sorted({r.spec.seed for r in records})
    options = f" --preset {presets[0]} --seeds {','.join(map(str, seeds))}"
    count = f"{len(records)} runs" if len(records) > 1 else "one run"
    lead = f"{words}{options}`: {count}, {_clock(sum(map(hours_of, records)))} of training and testing in all"
    devices = " and ".join(sorted({str(r.provenance.get("device", "?")) for r in records}))
    drawn = "With the published Records, which ship with the book, only the drawing is left, in seconds."
    return f"{lead} ({devices}; runs go side by side where there are cores). {drawn}"


def hours_of(record: Record) -> float:
    """Training and testing of a run, by the processor's clock where its training was counted by it."""
    facts = record.provenance
    training = facts.get("training_cpu_seconds", facts.get("training_seconds", 0.0))
    return (training + facts.get("test_seconds", 0.0)) / 3600


def _clock(hours: float) -> str:
    """Minutes below two hours, else hours."""
    if hours < 1 / 60:
        return "less than a minute"
    return f"{hours * 60:.0f} minutes" if hours < 2 else f"{hours:.1f} hours"
