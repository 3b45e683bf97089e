"""Learned cascades on disk: one safetensors file, arrays with the hyperparameters as JSON in the header."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from icstn.classical.features import Features, feature_name
from icstn.files import write_atomic
from icstn.sampling import Frame
from icstn.warps import Warp, family

FORMAT = "icstn.classical.regression"
VERSION = 1


def write_model(path: Path, kind: str, params: dict[str, Any], arrays: dict[str, Tensor]) -> None:
    """Write a model as a whole or not at all.

    Args:
        path: the file; an existing one is replaced.
        kind: class of the model.
        params: its hyperparameters.
        arrays: what it learned.

    Raises:
        StorageError: the file can't be written; what was there before stays.
    """
    header = {"kind": kind, "version": VERSION, "params": _encode(params)}
    flat = {name: t.detach().cpu().contiguous() for name, t in arrays.items()}
    write_atomic(path, save(flat, metadata={FORMAT: json.dumps(header, sort_keys=True)}))


def read_model(
    path: Path, kind: str, features: Features | None = None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Hyperparameters and arrays of a model.

    Args:
        path: a file of :func:`write_model`.
        kind: the class it must hold.
        features: the callable that the model was learned with, when it was one.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is truncated, of another format or class, or was learned with other features.
    """
    header, arrays = _read(path)
    if header is None:
        raise ValueError(f"{path} is a safetensors file, but not one that a {kind} has written")
    try:
        version, found, params = header["version"], header["kind"], header["params"]
        if version > VERSION:
            raise ValueError(f"{path} was written by a newer version of icstn (format {version})")
        if found != kind:
            raise ValueError(f"{path} holds a {found}, not a {kind}")
        params = _decode(params)
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged: its header is not one that a {kind} writes") from error
    if "features" in params:
        params["features"] = _features(params["features"], features, path)
    return params, arrays


def _read(path: Path) -> tuple[dict[str, Any] | None, dict[str, Tensor]]:
    if not path.exists():
        raise FileNotFoundError(f"there is no model file {path}")
    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {}).get(FORMAT, "null"))
            return header, {name: file.get_tensor(name) for name in list(file.keys())}
    except (SafetensorError, ValueError, OSError, RecursionError) as error:
        raise ValueError(f"{path} is no model file, or a truncated one: {error}") from error


def _encode(params: dict[str, Any]) -> dict[str, Any]:
    warp = family(params["warp"])
    out = dict(params, frame=asdict(params["frame"]), warp={"name": warp.name, "entries": warp.entries})
    if "features" in params:
        out["features"] = {"name": feature_name(params["features"]), "own": callable(params["features"])}
    return out


def _decode(params: dict[str, Any]) -> dict[str, Any]:
    frame: dict[str, Any] = {
        name: tuple(v) if isinstance(v, list) else v for name, v in params["frame"].items()
    }
    entries = tuple(tuple((i, j, f) for i, j, f in entry) for entry in params["warp"]["entries"])
    return dict(params, frame=Frame(**frame), warp=Warp(params["warp"]["name"], entries))


def _features(saved: dict[str, Any], given: Features | None, path: Path) -> str | Features:
    if given is None:
        if saved["own"]:
            name = saved["name"]
            raise ValueError(
                f"{path} was learned with the callable {name!r}: pass it again, load(path, features=…)"
            )
        return saved["name"]
    if feature_name(given) != saved["name"]:
        raise ValueError(f"{path} was learned with features {saved['name']!r}, not {feature_name(given)!r}")
    return given
