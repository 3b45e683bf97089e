"""Many runs: train what is missing, here or on a cluster, longest first, with one bar of progress."""

from __future__ import annotations

from collections.abc import Sequence

from icstn.experiments import clusters, local
from icstn.experiments.bar import Bar
from icstn.experiments.execution import Execution
from icstn.experiments.failures import raise_failures
from icstn.experiments.recipes import cost
from icstn.experiments.records import Record, Records
from icstn.experiments.spec import RunSpec


def ensure(specs: Sequence[RunSpec], records: Records, execution: Execution | None = None) -> list[Record]:
    """Records of all specs, in their order; what is missing is trained first.

    A run that fails does not keep the others from being finished, and one whose process dies is taken up
    again at its last checkpoint by another.

    Args:
        specs: wanted runs.
        records: where Records are looked for and written; runs on stand-in data go to a folder of their own.
        execution: where and how they are done.

    Raises:
        DataError, StorageError: as in training, when it hits every failed run alike.
        RunsFailedError: several runs failed, for different reasons.
    """
    execution = execution or Execution()
    if execution.data.stand_in:
        records = records.stand_in()
    missing = sorted({s for s in specs if records.find(s) is None}, key=cost, reverse=True)
    if missing:
        run = clusters.run if execution.scheduler else local.run
        with Bar(missing, records, execution.progress) as bar:
            failures = run(missing, records, bar.update, execution)
        raise_failures(failures)
    found = [records.find(s) for s in specs]
    return [record for record in found if record is not None]
