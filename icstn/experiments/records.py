"""Records: what runs left behind, in files that cannot be half-written, half-read or mistaken.

A Record is a folder, ``<spec.key>/``, of three files: ``record.json``, ``weights.safetensors`` and
``outcomes.safetensors`` (what became of each test item). The JSON carries a schema number, its own SHA-256
and those of the other two. While a run is under way its folder holds ``checkpoint.safetensors`` and
``state.json`` instead. Nothing is pickled.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import platformdirs
import safetensors.torch
import torch
from torch import Tensor

from icstn.experiments.spec import RunSpec, SpecError, spec_from_dict
from icstn.files import StorageError, check_place, checkout, read_bytes, write_atomic

#: Version of the layout of Records.
SCHEMA = 2

#: What the JSON holds of a Record, by its name there and here, and of which type it is.
_PARTS = {"status": str, "metrics": dict, "curve": dict, "provenance": dict}

#: Seconds to wait for another process's lock before saying so.
PATIENCE = 2.0


@dataclass(frozen=True)
class Record:
    """What a run left behind.

    Attributes:
        spec: what was run.
        status: ``finished`` or ``diverged``.
        metrics: test metrics, see :meth:`icstn.experiments.task.Task.evaluate`.
        curve: lists ``step``, ``loss`` and ``error`` (means since the step before).
        provenance: seed, command, commit, versions, hardware, times, data fingerprints and notes, and a
            ``remark`` where a number needs one.
        weights: the model's state.
        outcomes: what became of each test item, ``(draws, items)``: whether it was classified wrongly (bool),
            or its corner error in pixels (float32). Item i under draw d is the same image under the same
            perturbation for all models of a table. Empty where the run diverged.
    """

    spec: RunSpec
    status: str
    metrics: dict[str, Any]
    curve: dict[str, list[float]]
    provenance: dict[str, Any]
    weights: dict[str, Tensor] = field(default_factory=dict, repr=False, compare=False)
    outcomes: Tensor = field(default_factory=lambda: torch.empty(0, 0), repr=False, compare=False)

    @property
    def test_error(self) -> float:
        """Test error in percent (Tables 2 and 3) or pixels (Table 1); NaN where the run diverged."""
        return float(self.metrics.get("test_error", float("nan")))

    @property
    def stand_in(self) -> bool:
        """Whether the data were a rendered stand-in, whose numbers belong in no table."""
        return bool(self.provenance.get("data", {}).get("stand_in", False))

    @property
    def remark(self) -> str:
        """What a reader of the number has to know, often empty."""
        return str(self.provenance.get("remark", ""))


class Records:
    """A folder of Records.

    Args:
        folder: where Records are written and looked for; the user's own by default.
        also: further folders to look in, which are never written to.
    """

    def __init__(self, folder: str | Path | None = None, also: tuple[str | Path, ...] = ()) -> None:
        self.folder = Path(folder) if folder else default_folder()
        self.also = tuple(map(Path, also))

    def path(self, spec: RunSpec) -> Path:
        """The run's own folder, whether or not it exists."""
        return self.folder / spec.key

    def stand_in(self) -> Records:
        """The folder beside these for runs on rendered stand-in data, so that the two never mix."""
        return Records(self.folder / "stand-in", tuple(path / "stand-in" for path in self.also))

    def find(self, spec: RunSpec) -> Record | None:
        """The finished (or diverged) Record of a spec, with its weights, or None.

        Raises:
            StorageError: there is one but it is damaged, or belongs to another spec.
        """
        for folder in (self.folder, *self.also):
            if (folder / spec.key / "record.json").is_file():
                return load_record(folder / spec.key, spec)
        return None

    def save(self, record: Record) -> Path:
        """Write a Record: weights and outcomes first, then the JSON that makes them count."""
        folder = self.path(record.spec)
        weights = safetensors.torch.save({k: v.contiguous() for k, v in record.weights.items()})
        outcomes = pack_outcomes(record.outcomes)
        content = {
            "schema": SCHEMA,
            "spec": asdict(record.spec),
            "status": record.status,
            "metrics": record.metrics,
            "curve": record.curve,
            "provenance": record.provenance,
            "weights_sha256": hashlib.sha256(weights).hexdigest(),
            "outcomes_sha256": hashlib.sha256(outcomes).hexdigest(),
        }
        write_atomic(folder / "weights.safetensors", weights)
        write_atomic(folder / "outcomes.safetensors", outcomes)
        write_atomic(folder / "record.json", _sealed(content))
        return folder

    def __iter__(self) -> Iterator[Record]:
        """All Records of all folders, by key; the first folder wins."""
        found: dict[str, Path] = {}
        for folder in (self.folder, *self.also):
            for path in sorted(folder.glob("*/record.json")):
                found.setdefault(path.parent.name, path.parent)
        return (load_record(found[key]) for key in sorted(found))

    @contextlib.contextmanager
    def lock(
        self, spec: RunSpec, wait: float = -1, say: Callable[[str], None] | None = None
    ) -> Iterator[None]:
        """Hold the run's lock, so that one process at a time trains it.

        Args:
            spec: the run.
            wait: seconds to wait for the other process; negative waits for ever.
            say: is told, once, when the wait takes more than :data:`PATIENCE` seconds, for which run and
                for whom; by default that is a line on stderr.

        Raises:
            StorageError: another process holds it still, or the folder can't be written.
        """
        path = self.path(spec)
        check_place(self.folder, "--records", "Records")
        made = not self.folder.exists()
        try:
            held = _acquire(path, wait, say or print_line)
        except filelock.Timeout as error:
            raise StorageError(f"{_in_the_way(path)}; wait for it or stop it") from error
        except OSError as error:
            raise StorageError(
                f"cannot write Records to {path} ({error}); choose another --records"
            ) from error
        with contextlib.suppress(OSError):  # it only names us to those who wait
            (path / "holder").write_text(f"{platform.node()}, process {os.getpid()}")
        try:
            yield
        finally:
            (path / "holder").unlink(missing_ok=True)
            empty = [file.name for file in path.glob("*")] == ["lock"]  # it failed before anything was done
            if empty or (path / "record.json").is_file():  # whoever waits for the lock finds the Record
                (path / "lock").unlink(missing_ok=True)
            held.release()
            if empty:
                with contextlib.suppress(OSError):  # another process has begun
                    path.rmdir()
                    if made:
                        self.folder.rmdir()

    def locked(self, spec: RunSpec) -> bool:
        """Whether a process holds the run's lock."""
        path = self.path(spec) / "lock"
        if not path.is_file():
            return False
        try:
            with filelock.FileLock(path, timeout=0):
                return False
        except filelock.Timeout:
            return True


def print_line(text: str) -> None:
    """A line on stderr; on a terminal it takes the place of a progress bar, which is drawn again below."""
    start = "\r\x1b[2K" if sys.stderr.isatty() else ""
    print(f"{start}{text}", file=sys.stderr, flush=True)


def _acquire(path: Path, wait: float, say: Callable[[str], None]) -> filelock.BaseFileLock:
    for _ in range(100):
        with contextlib.suppress(FileNotFoundError):  # whoever held it has just removed the empty folder
            path.mkdir(parents=True, exist_ok=True)
            return _wait(path, wait, say)
    raise FileNotFoundError(f"{path} is removed again and again")


def _wait(path: Path, wait: float, say: Callable[[str], None]) -> filelock.BaseFileLock:
    lock = filelock.FileLock(path / "lock")
    try:
        lock.acquire(timeout=PATIENCE if wait < 0 else min(wait, PATIENCE))
    except filelock.Timeout:
        if 0 <= wait <= PATIENCE:
            raise
        say(f"{_in_the_way(path)}; waiting for it")
        lock.acquire(timeout=wait if wait < 0 else wait - PATIENCE)
    return lock


def _in_the_way(path: Path) -> str:
    """Which run another process is at, and which process that is, where it can be read."""
    try:
        who = (path / "holder").read_text()
    except (OSError, ValueError):
        who = ""
    return f"another process is training {path.name}" + (f" ({who})" if who else "")


def default_folder() -> Path:
    """``$ICSTN_RECORDS``, or ``records`` in the user's data folder."""
    return Path(os.environ.get("ICSTN_RECORDS") or platformdirs.user_data_path("icstn") / "records")


def published_folder() -> Path | None:
    """``figures/records`` of the checkout, if there is one."""
    root = checkout()
    return root / "figures" / "records" if root and (root / "figures" / "records").is_dir() else None


def open_records(folder: str | Path | None = None) -> Records:
    """The Records that a notebook reads.

    Args:
        folder: ``"published"`` is the user's folder on top of ``figures/records``; a path is that folder
            alone; None is the user's own.
    """
    if folder == "published":
        published = published_folder()
        return Records(None, (published,) if published else ())
    return Records(folder)


def load_record(folder: Path, spec: RunSpec | None = None) -> Record:
    """Read and verify a Record.

    Raises:
        StorageError: truncated, tampered with, of another schema, or of another spec.
    """
    content = _unsealed(folder / "record.json")
    try:
        record_spec = spec_from_dict(content["spec"])
        found = {name: content[name] for name in _PARTS}
        digests = content["weights_sha256"], content["outcomes_sha256"]
    except (SpecError, KeyError) as error:
        raise StorageError(f"{folder}/record.json is of another version: {error}") from error
    for name, kind in _PARTS.items():
        if not isinstance(found[name], kind):
            raise StorageError(f"{folder}/record.json is no Record: its {name} is no {kind.__name__}")
    if spec is not None and record_spec != spec:
        raise StorageError(f"{folder} holds a Record of another spec ({record_spec.key}); move it away")
    weights = _verified(folder / "weights.safetensors", digests[0])
    outcomes = _verified(folder / "outcomes.safetensors", digests[1])
    try:
        return Record(record_spec, **found, weights=safetensors.torch.load(weights),
                      outcomes=unpack_outcomes(outcomes))  # fmt: skip
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise StorageError(f"{folder} is damaged ({error}); delete it and run again") from error


def pack_outcomes(outcomes: Tensor) -> bytes:
    """``(draws, items)`` as a safetensors file: flags as bits (``wrong``), errors as float32 (``error``)."""
    if outcomes.dtype != torch.bool:
        return safetensors.torch.save({"error": outcomes.float().contiguous()})
    bits = torch.from_numpy(np.packbits(outcomes.numpy(), axis=1))
    return safetensors.torch.save({"wrong": bits, "items": torch.tensor(outcomes.shape[1])})


def unpack_outcomes(data: bytes) -> Tensor:
    """The inverse of :func:`pack_outcomes`."""
    tensors = safetensors.torch.load(data)
    if "error" in tensors:
        return tensors["error"]
    bits = np.unpackbits(tensors["wrong"].numpy(), axis=1, count=int(tensors["items"]))
    return torch.from_numpy(bits).bool()


def _verified(path: Path, digest: str) -> bytes:
    data = read_bytes(path)
    if hashlib.sha256(data).hexdigest() != digest:
        raise StorageError(f"{path} is damaged; delete the folder and run again")
    return data


def _sealed(content: dict[str, Any]) -> str:
    body = json.dumps(content, sort_keys=True, ensure_ascii=False, indent=1)
    return (
        json.dumps(
            content | {"sha256": hashlib.sha256(body.encode()).hexdigest()},
            sort_keys=True,
            ensure_ascii=False,
            indent=1,
        )
        + "\n"
    )


def _unsealed(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_bytes(path))
        seal = content.pop("sha256")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StorageError(f"{path} is truncated or no Record; delete its folder and run again") from error
    body = json.dumps(content, sort_keys=True, ensure_ascii=False, indent=1)
    if hashlib.sha256(body.encode()).hexdigest() != seal:
        raise StorageError(f"{path} does not match its checksum; delete its folder and run again")
    check_schema(content, path)
    return content


def check_schema(content: Mapping[str, Any], path: Path) -> None:
    """Refuse what another version wrote.

    Raises:
        StorageError: the schema is not :data:`SCHEMA`.
    """
    if content.get("schema") != SCHEMA:
        raise StorageError(
            f"{path} has schema {content.get('schema')!r}, this version reads {SCHEMA}; "
            "use the version that wrote it"
        )
