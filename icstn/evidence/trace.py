"""Where each number of Tables 1 to 3, and of fits on one's own images, comes from: back to its Records."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any, NamedTuple

from icstn.evidence.collection import median_run
from icstn.evidence.estimates import significant
from icstn.experiments.experiment import EXPERIMENTS, FOLDER, Experiment
from icstn.experiments.recipes import cells
from icstn.experiments.records import Record
from icstn.experiments.spec import FolderSpec, RunSpec


class Origin(NamedTuple):
    """A run behind a number.

    Attributes:
        experiment, model, sigma: the cell; sigma is None but in Table 1 and for the baselines.
        record: the run.
    """

    experiment: str
    model: str
    sigma: float | None
    record: Record

    @property
    def cell(self) -> str:
        """``table_1 IC-STN-4 sigma=5`` or ``folder CNN images=1f2e3d4c``, as :func:`explain` takes it."""
        if isinstance(self.record.spec, FolderSpec):
            return f"{FOLDER} {self.model} images={self.record.spec.about.data}"
        return f"{self.experiment} {self.model}" + ("" if self.sigma is None else f" sigma={self.sigma:g}")

    @property
    def variation(self) -> str:
        """Fields in which the run differs from the cell of its preset, empty for the table's own.

        A fit has no such cell: its network and how it was trained.
        """
        spec = self.record.spec
        if isinstance(spec, FolderSpec):
            return (
                f"sigma={spec.sigma:g}, iterations={spec.iterations}, warp={spec.warp}, {spec.architecture}"
            )
        return ", ".join(f"{name}={value}" for name, value in changes(spec).items())


def changes(spec: RunSpec) -> dict[str, Any]:
    """Fields in which a run differs from the cell of its preset."""
    usual = next(s for s in cells(spec.experiment, spec.preset, (spec.seed,), [spec.model])
                 if s.sigma == spec.sigma or not spec.about.by_sigma)  # fmt: skip
    fields = asdict(usual)
    return {name: value for name, value in asdict(spec).items() if value != fields[name]}


def again(specs: Iterable[RunSpec]) -> list[str]:
    """The calls of ``icstn train`` that make these runs once more and no others, on any machine.

    Of fits there are none here: their images are their users'.
    """
    seeds: dict[tuple[str, str, str], dict[str, dict[float, list[int]]]] = {}
    for spec in specs:
        own = shlex.join(f"--set={name}={value}" for name, value in changes(spec).items())
        models = seeds.setdefault((spec.experiment, spec.preset, own), {})
        models.setdefault(spec.model, {}).setdefault(spec.sigma, []).append(spec.seed)
    return [
        " ".join(filter(None, (f"icstn train {name} --preset {preset}", *part, own)))
        for (name, preset, own), models in seeds.items()
        for part in _parts(EXPERIMENTS[name], models)
    ]


def _parts(about: Experiment, models: dict[str, dict[float, list[int]]]) -> Iterator[tuple[str, ...]]:
    """Rows, sizes of the perturbation and seeds that stand together, as options."""
    alike: dict[tuple[tuple[float, ...], tuple[int, ...]], list[str]] = {}
    for model, by_sigma in models.items():
        at: dict[tuple[int, ...], list[float]] = {}
        for sigma, seeds in by_sigma.items():
            at.setdefault(tuple(sorted(seeds)), []).append(sigma)
        for some, sigmas in at.items():
            alike.setdefault((tuple(sorted(sigmas)), some), []).append(model)
    for (sigmas, some), names in alike.items():
        rows = [] if names == list(about.rows) else [shlex.join(["-m", name]) for name in names]
        sizes = [] if sigmas == about.sigmas or not about.by_sigma else [f"--sigma {s:g}" for s in sigmas]
        yield (*rows, *sizes, "" if some == (0,) else f"--seeds {_ranges(some)}")


def _ranges(numbers: Sequence[int]) -> str:
    """``0-2,5``, as :func:`icstn.reproduction.seed_list` reads it."""
    runs: list[list[int]] = []
    for n in numbers:
        if runs and n == runs[-1][-1] + 1:
            runs[-1].append(n)
        else:
            runs.append([n])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def origins(records: Iterable[Record]) -> list[Origin]:
    """The runs behind the tables (and their variations), in the tables' order, and fits; no stand-in data."""
    found = []
    for r in records:
        known = isinstance(r.spec, FolderSpec) or r.spec.model in r.spec.about.rows
        if r.stand_in or not known:
            continue
        sigma = r.spec.sigma if r.spec.about.by_sigma else None
        found.append(Origin(r.spec.experiment, r.spec.model, sigma, r))
    return sorted(found, key=_order)


def explain(query: str, records: Iterable[Record]) -> str:
    """Text that leads from a cell, a number or a key to the Records behind it.

    Args:
        query: a cell (``"table_2 IC-STN-4(a)"``, ``"table_1 IC-STN-4 sigma=5"``, ``"CNN(b)"``), a number as
            printed (``"1.23"``; means over seeds are found, too), or (the start of) a Record's key.
        records: where to look.

    Raises:
        LookupError: nothing fits; the message says what can be asked for.
    """
    return "\n\n".join(describe(origin) for origin in find(query, records))


def find(query: str, records: Iterable[Record]) -> list[Origin]:
    """The runs that :func:`explain` tells of.

    Raises:
        LookupError: nothing fits; the message says what can be asked for.
    """
    runs = origins(records)
    found = _by_number(query, runs) if _is_number(query) else _by_name(query, runs)
    if not found:
        raise LookupError(
            f"no Record has {query!r}: ask for a cell such as 'table_2 IC-STN-4(a)', 'table_1 IC-STN-4 "
            "sigma=5' or 'folder IC-STN-4', a number as printed in a table, or a Record's key"
        )
    return found


def find_one(query: str, records: Iterable[Record]) -> Record:
    """The one run that fits; of runs that differ in nothing but their seed, the median one.

    A table's own runs go before their variations, which their keys name.

    Raises:
        LookupError: none does, or several do; the message lists their keys.
    """
    found = find(query, records)
    own = [origin for origin in found if not origin.variation] or found
    finished = [origin.record for origin in own if origin.record.status == "finished"]
    if finished and len({replace(r.spec, seed=0) for r in finished}) == 1:
        return median_run(finished)
    if len(found) > 1:
        keys = "\n  ".join(origin.record.spec.key for origin in found)
        raise LookupError(f"{len(found)} runs fit {query!r}: name one of\n  {keys}")
    return found[0].record


def describe(origin: Origin) -> str:
    """One run in a few lines."""
    r, facts = origin.record, origin.record.provenance
    unit = r.spec.about.unit
    low, high = r.metrics.get("interval", (float("nan"),) * 2)
    result = f"{r.test_error:.3f} {unit} [{low:.3f}, {high:.3f}]" if r.status == "finished" else r.status
    printed = (
        "on one's own images"
        if isinstance(r.spec, FolderSpec)
        else "is not in the paper"
        if (value := printed_value(origin)) is None
        else f"the paper prints {value:g}"
    )
    lines = {
        "cell": origin.cell + (f"  ({origin.variation})" if origin.variation else ""),
        "test error": f"{result}; {printed}",
        "record": r.spec.key,
        "command": facts.get("command", "unknown"),
        **({} if isinstance(r.spec, FolderSpec) else {"again": again([r.spec])[0]}),
        "commit": facts.get("commit", "unknown") or "unknown",
        "preset, seed": f"{r.spec.preset}, {r.spec.seed}",
        "hardware": f"{facts.get('device', 'unknown')}, {facts.get('threads', '?')} threads",
        "training": f"{facts.get('steps', 0):,} steps in {_times(facts)}, "
        f"finished {facts.get('finished', 'unknown')}",
        "data": _data(facts.get("data", {})),
    }
    return "\n".join(f"{name + ':':14}{value}" for name, value in lines.items())


def printed_value(origin: Origin) -> float | None:
    """The paper's number of the cell; None for a baseline."""
    spec = origin.record.spec
    return spec.about.printed.get((spec.model, spec.sigma))


def _times(facts: dict) -> str:
    wall = duration(facts.get("training_seconds", 0.0))
    cpu = facts.get("training_cpu_seconds")
    return wall if cpu is None else f"{wall} ({duration(cpu)} of processor time)"


def duration(seconds: float) -> str:
    """Seconds for people: ``42 s``, ``3.1 min``, ``1.5 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _data(facts: dict) -> str:
    prints = ", ".join(f"{name} {digest[:12]}" for name, digest in facts.get("fingerprints", {}).items())
    notes = "; ".join(facts.get("notes", ()))
    return f"{facts.get('name', 'unknown')} ({prints})" + (f"; {notes}" if notes else "")


def _order(o: Origin) -> tuple:
    spec = o.record.spec
    if isinstance(spec, FolderSpec):
        return (len(EXPERIMENTS), 0, 0.0, o.cell, o.variation, spec.preset, spec.seed)
    rows = list(EXPERIMENTS[o.experiment].rows)
    place = (list(EXPERIMENTS).index(o.experiment), rows.index(o.model), o.sigma or 0.0)
    return (*place, o.cell, o.variation, spec.preset, spec.seed)


def _keys(record: Record) -> list[str]:
    """The key of a run, and the one that it had before Records were migrated."""
    return [record.spec.key, *filter(None, [record.provenance.get("former_key")])]


def _is_number(query: str) -> bool:
    return re.fullmatch(r"\s*\d+(\.\d+)?(e[+-]\d+)?\s*(%|px)?\s*", query) is not None


def _by_number(query: str, runs: list[Origin]) -> list[Origin]:
    """Runs whose error, or whose cell's mean error, prints as the query does."""
    text = re.sub(r"[\s%px]", "", query)
    digits = len(text.partition(".")[2])
    groups: dict[str, list[Origin]] = {}
    for origin in runs:
        groups.setdefault(replace(origin.record.spec, seed=0).key, []).append(origin)
    found = []
    for group in groups.values():
        errors = [o.record.test_error for o in group if o.record.status == "finished"]
        if errors and text in _printed(sum(errors) / len(errors), digits):
            found += group
        else:
            found += [o for o in group if text in _printed(o.record.test_error, digits)]
    return found


def _printed(error: float, digits: int) -> tuple[str, str]:
    """How a table may print an error: with so many decimals, or with three significant digits."""
    return f"{error:.{digits}f}", significant(error)


def _by_name(query: str, runs: list[Origin]) -> list[Origin]:
    words = query.lower().replace("σ", "sigma").replace("sigma = ", "sigma=").split()
    wanted = [w for w in words if w]
    keyed = [o for o in runs if wanted and any(key.startswith(wanted[0]) for key in _keys(o.record))]
    named = [o for o in runs if set(wanted) <= set(o.cell.lower().split())]
    return named or keyed if wanted else []
