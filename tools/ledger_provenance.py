"""The ledger of runs: which Record, command, commit and machine are behind each number."""

from __future__ import annotations

from collections.abc import Sequence

from icstn.evidence.estimates import significant
from icstn.evidence.trace import Origin, again, duration, origins
from icstn.experiments import EXPERIMENTS, Record
from tools.ledger_text import NOTE, wrap


def provenance_page(records: Sequence[Record]) -> str:
    """book/provenance.md."""
    found = origins(records)
    out = [
        NOTE,
        "# Where each number comes from\n",
        wrap(
            "Every number of Tables 1 to 3 is the mean over the runs listed here. A run is a "
            "*Record*: a folder in `figures/records` with the trained weights and a JSON file that "
            "holds what was run, how it went, and under which command, commit, versions, hardware and"
            " data. Below each table stand the commands that train its runs once more, on any machine, into "
            "your own folder of Records."
        ),
        "\nThe way back from a number, on the command line:\n",
        '```\nicstn trace "table_2 IC-STN-4(a)"\nicstn trace "table_1 IC-STN-4 sigma=5"\n```\n',
    ]
    if not found:
        out.append("There are no published Records yet.\n")
    for about in EXPERIMENTS.values():
        rows = [o for o in found if o.experiment == about.name]
        if rows:
            out += [f"({about.name.replace('_', '-')}-provenance)=", f"## {about.title}\n", *_runs(rows)]
    return "\n".join(out).rstrip() + "\n"


def _runs(rows: Sequence[Origin]) -> list[str]:
    out = [
        "| cell | preset, seed | error | training | hardware | commit | Record |",
        "|---|---|--:|--:|---|---|---|",
    ]
    for o in rows:
        facts, spec = o.record.provenance, o.record.spec
        name = o.model + ("" if o.sigma is None else f" σ\u00a0=\u00a0{o.sigma:g}")
        name += f" ({o.variation})" if o.variation else ""
        error = significant(o.record.test_error) if o.record.status == "finished" else o.record.status
        time = f"{facts.get('steps', 0):,} steps, {duration(facts.get('training_seconds', 0.0))}"
        commit = str(facts.get("commit") or "–")
        commit = commit[:7] + commit[40:]
        out.append(
            f'| <span id="{spec.key}"></span>{name} | {spec.preset}, {spec.seed} | {error} | {time} | '
            f"{facts.get('device', '–')} | `{commit}` | `{spec.key}` |"
        )
    return [*out, "", *_commands(rows)]


def _commands(rows: Sequence[Origin]) -> list[str]:
    calls = again(o.record.spec for o in rows)
    return ["To run them once more:\n", *(f"- `{call}`" for call in calls), ""]
