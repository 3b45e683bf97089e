"""Checkpoints: round trips, and a clear refusal of whatever is not one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import safetensors.torch
import torch
from test_records import OTHER, SPEC, a_record, damage

from icstn.experiments import Spec, StorageError, records
from icstn.experiments.checkpoints import load_checkpoint, save_checkpoint


class TestCheckpoint:
    """One safetensors file, sealed."""

    def saved(self, tmp_path: Path, spec: Spec = SPEC) -> Path:
        path = tmp_path / "checkpoint.safetensors"
        save_checkpoint(path, a_record().weights, {"spec": spec.digest, "step": 7})
        return path

    def test_round_trip(self, tmp_path: Path) -> None:
        tensors, meta = load_checkpoint(self.saved(tmp_path), SPEC)
        assert meta["step"] == 7
        assert all(tensors[k].equal(v) for k, v in a_record().weights.items())

    @pytest.mark.parametrize("keep", [0, 4, 60, -1])
    def test_truncation(self, tmp_path: Path, keep: int) -> None:
        path = self.saved(tmp_path)
        os.truncate(path, keep if keep >= 0 else path.stat().st_size - 1)
        with pytest.raises(StorageError, match="truncated or no checkpoint; delete it to start afresh"):
            load_checkpoint(path, SPEC)

    def test_every_flipped_bit_is_noticed(self, tmp_path: Path) -> None:
        path = self.saved(tmp_path)
        for at in range(path.stat().st_size):
            damage(path, at)
            with pytest.raises(StorageError, match=r"checkpoint\.safetensors"):
                load_checkpoint(path, SPEC)
            damage(path, at)
        assert load_checkpoint(path, SPEC)

    def test_another_spec(self, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match="is a checkpoint of another spec"):
            load_checkpoint(self.saved(tmp_path, OTHER), SPEC)

    def test_another_schema(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = self.saved(tmp_path)
        monkeypatch.setattr(records, "SCHEMA", 9)
        with pytest.raises(StorageError, match="has schema 2, this version reads 9"):
            load_checkpoint(path, SPEC)

    def test_a_safetensors_file_of_someone_else(self, tmp_path: Path) -> None:
        path = tmp_path / "checkpoint.safetensors"
        path.write_bytes(safetensors.torch.save({"x": torch.zeros(2)}))
        with pytest.raises(StorageError, match="truncated or no checkpoint"):
            load_checkpoint(path, SPEC)
