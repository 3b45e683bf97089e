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
    """One failure, or one that is everywhere the same but for the run's name, is raised; others are listed.

    Raises:
        RunsFailedError: the failures differ.
    """
    reasons = {_alike(spec, error) for spec, error in failures.items()}
    if len(reasons) == 1:
        raise next(iter(failures.values()))
    if reasons:
        lines = [f"{spec.key}: {error}" for spec, error in failures.items()]
        raise RunsFailedError(f"{len(failures)} runs failed\n  " + "\n  ".join(lines))


def _alike(spec: RunSpec, error: BaseException) -> str:
    """What failures of several runs have in common, such as a full disk."""
    return f"{type(error).__name__}: {error}".replace(spec.key, "…")
