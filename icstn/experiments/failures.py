"""Failures of runs: on their way between processes, and told together."""

from __future__ import annotations

import pickle
from collections.abc import Mapping

from icstn.experiments.spec import RunSpec


class RunsFailedError(RuntimeError):
    """Runs that failed; the message gives each with its reason. All others were finished first."""


def portable(error: Exception) -> Exception:
    """The error, or its message where it would not survive the way to another process."""
    try:
        return error if str(pickle.loads(pickle.dumps(error))) == str(error) else RuntimeError(str(error))
    except Exception:
        return (ValueError if isinstance(error, ValueError) else RuntimeError)(str(error))


def raise_failures(failures: Mapping[RunSpec, BaseException]) -> None:
    """One failure, or the same one everywhere, is raised as it is; several are listed.

    Raises:
        RunsFailedError: the failures differ.
    """
    reasons = {f"{type(error).__name__}: {error}" for error in failures.values()}
    if len(reasons) == 1:
        raise next(iter(failures.values()))
    if reasons:
        lines = [f"{spec.key}: {error}" for spec, error in failures.items()]
        raise RunsFailedError(f"{len(failures)} runs failed\n  " + "\n  ".join(lines))
