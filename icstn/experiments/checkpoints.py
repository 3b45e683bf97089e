"""Checkpoints: a run under way, in one file that is whole, checked and of this run, or refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from icstn.experiments.records import SCHEMA, check_schema
from icstn.experiments.spec import RunSpec
from icstn.files import StorageError, read_bytes, write_atomic


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Write tensors and JSON-able ``meta`` to one safetensors file, atomically and with a checksum."""
    tensors = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    text = json.dumps({"schema": SCHEMA, **meta}, sort_keys=True)
    seal = {"meta": text, "sha256": _tensor_digest(tensors, text)}
    write_atomic(path, safetensors.torch.save(tensors, seal))


def load_checkpoint(path: Path, spec: RunSpec) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint of this spec.

    Raises:
        StorageError: truncated, tampered with, of another schema, or of another spec.
    """
    data = read_bytes(path)
    try:
        tensors = safetensors.torch.load(data)
        size = int.from_bytes(data[:8], "little")
        seal = json.loads(data[8 : 8 + size])["__metadata__"]
        meta, digest = json.loads(seal["meta"]), seal["sha256"]
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise StorageError(f"{path} is truncated or no checkpoint; delete it to start afresh") from error
    if digest != _tensor_digest(tensors, seal["meta"]):
        raise StorageError(f"{path} does not match its checksum; delete it to start afresh")
    check_schema(meta, path)
    if meta.get("spec") != spec.digest:
        raise StorageError(f"{path} is a checkpoint of another spec; delete it to start afresh")
    return tensors, meta


def _tensor_digest(tensors: Mapping[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(f"{name}{tuple(tensors[name].shape)}{tensors[name].dtype}".encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
