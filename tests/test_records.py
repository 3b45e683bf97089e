"""Records: round trips, and a clear refusal of whatever is not one."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import re
import resource
import shlex
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest
import torch

from icstn.experiments import Record, Records, Spec, StorageError, cells, open_records, provenance
from icstn.experiments import records as module
from icstn.files import write_atomic

SPEC = cells("table_2", "smoke", models=["STN(b)"])[0]
OTHER = replace(SPEC, seed=1)


def a_record(spec: Spec = SPEC) -> Record:
    generator = torch.Generator().manual_seed(0)
    weights = {
        "a.weight": torch.randn(3, 4, generator=generator),
        "b": torch.arange(5),
        "c": torch.tensor(1.5, dtype=torch.float64),
    }
    curve = {"step": [100.0], "loss": [0.1 + 0.2], "error": [12.5]}
    return Record(spec, "finished", {"test_error": 1.25, "unit": "%"}, curve, {"seed": spec.seed}, weights)


@pytest.fixture
def records(tmp_path: Path) -> Records:
    """A folder with one Record in it."""
    found = Records(tmp_path)
    found.save(a_record())
    return found


def damage(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


class TestRecord:
    """What is saved is what is found, or nothing is."""

    def test_round_trip(self, records: Records) -> None:
        found = records.find(SPEC)
        assert found == a_record()
        assert found.test_error == 1.25
        for name, tensor in a_record().weights.items():
            assert found.weights[name].equal(tensor)
            assert found.weights[name].dtype == tensor.dtype

    def test_none_where_there_is_none(self, records: Records) -> None:
        assert records.find(OTHER) is None

    def test_a_nan_in_the_curve_survives(self, tmp_path: Path) -> None:
        curve = {"step": [1.0], "loss": [float("nan")], "error": [float("inf")]}
        Records(tmp_path).save(replace(a_record(), curve=curve, status="diverged", metrics={}))
        found = Records(tmp_path).find(SPEC)
        assert found.curve["loss"][0] != found.curve["loss"][0]
        assert found.curve["error"] == [float("inf")]
        assert found.test_error != found.test_error

    def test_iterates_by_key_and_the_first_folder_wins(self, tmp_path: Path) -> None:
        mine, published = Records(tmp_path / "mine"), Records(tmp_path / "published")
        published.save(a_record())
        published.save(a_record(OTHER))
        mine.save(replace(a_record(), metrics={"test_error": 9.0}))
        both = Records(tmp_path / "mine", (tmp_path / "published",))
        assert [(r.spec.seed, r.test_error) for r in both] == [(0, 9.0), (1, 1.25)]
        assert both.find(SPEC).test_error == 9.0
        assert both.find(OTHER).test_error == 1.25
        assert list(Records(tmp_path / "nowhere")) == []

    def test_folder_holds_three_files_and_no_pickle(self, records: Records) -> None:
        files = sorted(p.name for p in records.path(SPEC).iterdir())
        assert files == ["outcomes.safetensors", "record.json", "weights.safetensors"]
        assert b"pickle" not in (records.path(SPEC) / "weights.safetensors").read_bytes()

    def test_is_not_changed_in_passing(self) -> None:
        found = a_record()
        with pytest.raises(FrozenInstanceError):
            found.status = "diverged"

    @pytest.mark.parametrize("seed", range(20))
    def test_any_flipped_bit_of_the_weights_is_noticed(self, records: Records, seed: int) -> None:
        path = records.path(SPEC) / "weights.safetensors"
        damage(path, int(torch.randint(path.stat().st_size, (), generator=torch.manual_seed(seed))))
        with pytest.raises(StorageError, match=r"weights\.safetensors is damaged; delete the folder"):
            records.find(SPEC)

    @pytest.mark.parametrize("change", [("metrics", {"test_error": 0.1}), ("status", "perfect")], ids=str)
    def test_an_edited_number_is_noticed(self, records: Records, change: tuple) -> None:
        path = records.path(SPEC) / "record.json"
        content = json.loads(path.read_text()) | dict([change])
        path.write_text(json.dumps(content))
        with pytest.raises(StorageError, match="does not match its checksum"):
            records.find(SPEC)

    @pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
    @pytest.mark.parametrize("name", ["record.json", "weights.safetensors"])
    def test_truncation_is_noticed(self, records: Records, name: str, keep: float) -> None:
        path = records.path(SPEC) / name
        os.truncate(path, int(path.stat().st_size * keep))
        with pytest.raises(StorageError, match=r"truncated|damaged"):
            records.find(SPEC)

    def test_missing_weights(self, records: Records) -> None:
        (records.path(SPEC) / "weights.safetensors").unlink()
        with pytest.raises(StorageError, match=r"cannot read .*weights\.safetensors"):
            records.find(SPEC)

    @pytest.mark.parametrize("text", ["[]", "null", "{}", "1", '{"sha256": 3}'])
    def test_json_that_is_no_record(self, records: Records, text: str) -> None:
        (records.path(SPEC) / "record.json").write_text(text)
        with pytest.raises(StorageError, match=r"record\.json (is truncated or no Record|does not match)"):
            records.find(SPEC)

    def test_another_schema(self, records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "SCHEMA", 9)
        with pytest.raises(StorageError, match="has schema 2, this version reads 9; use the version"):
            records.find(SPEC)

    def test_a_spec_with_fields_of_another_version(self, records: Records) -> None:
        path = records.path(SPEC) / "record.json"
        content = json.loads(path.read_text())
        del content["sha256"]
        content["spec"]["dropout"] = 0.5
        path.write_text(module._sealed(content))
        with pytest.raises(StorageError, match=r"record\.json .* no field dropout"):
            records.find(SPEC)

    def test_another_spec(self, records: Records) -> None:
        records.path(SPEC).rename(records.path(OTHER))
        with pytest.raises(
            StorageError, match=f"holds a Record of another spec .*{SPEC.key}.*; move it away"
        ):
            records.find(OTHER)


def _write_under_limit(path: Path, size: int) -> None:
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
    try:
        write_atomic(path, b"x" * size)
    except StorageError as error:
        path.with_name("message").write_text(str(error))


def _write_as_nobody(folder: Path, said: multiprocessing.Queue) -> None:
    if os.geteuid() == 0:
        os.seteuid(65534)
    try:
        Records(folder).save(a_record())
    except StorageError as error:
        said.put(str(error))
    try:
        with Records(folder).lock(SPEC):
            pass
    except StorageError as error:
        said.put(str(error))


class TestDisk:
    """Full disks, unwritable folders: what was there stays, and the message says so."""

    @pytest.mark.parametrize("call", ["fsync", "replace"])
    def test_full_disk(self, records: Records, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, call, full)
        with pytest.raises(StorageError, match=r"cannot write .*No space left.*; what was there before"):
            records.save(replace(a_record(), metrics={"test_error": 9.0}))
        monkeypatch.undo()
        assert records.find(SPEC) == a_record()
        assert len(list(records.path(SPEC).iterdir())) == 3

    def test_file_size_limit_of_the_system(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        write_atomic(path, "before")
        process = multiprocessing.get_context("fork").Process(target=_write_under_limit, args=(path, 20_000))
        process.start()
        process.join()
        assert "File too large" in (tmp_path / "message").read_text()
        assert path.read_text() == "before"
        assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "message"]

    def test_folder_that_can_not_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("no folder")
        records = Records(tmp_path / "file")
        with pytest.raises(StorageError, match=r"cannot write .*file/"):
            records.save(a_record())
        with pytest.raises(StorageError, match="choose another --records"), records.lock(SPEC):
            pass

    def test_folder_without_permission(self, tmp_path: Path) -> None:
        """Root may write anywhere, so it asks as somebody else."""
        tmp_path.chmod(0o500)
        context = multiprocessing.get_context("fork")
        said = context.Queue()
        process = context.Process(target=_write_as_nobody, args=(tmp_path, said))
        process.start()
        messages = [said.get(timeout=60), said.get(timeout=60)]
        process.join()
        assert "what was there before is untouched" in messages[0]
        assert "choose another --records" in messages[1]
        assert all("Permission denied" in message for message in messages)


def _hold(folder: Path, ready: multiprocessing.Queue, release: multiprocessing.Event) -> None:
    with Records(folder).lock(SPEC):
        ready.put(True)
        release.wait(60)


class TestOutcomes:
    """What became of each item: bits or pixels, whole or refused."""

    @pytest.mark.parametrize("shape", [(1, 1), (3, 8), (10, 1001), (2, 0)])
    def test_flags_come_back_as_they_were(self, tmp_path: Path, shape: tuple[int, int]) -> None:
        flags = torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 0.3
        Records(tmp_path).save(replace(a_record(), outcomes=flags))
        found = Records(tmp_path).find(SPEC).outcomes
        assert found.dtype == torch.bool
        assert found.equal(flags)

    def test_flags_take_a_bit_each(self) -> None:
        assert len(module.pack_outcomes(torch.zeros(10, 10_000, dtype=torch.bool))) < 10 * 10_000 / 8 + 400

    def test_errors_come_back_as_they_were(self, tmp_path: Path) -> None:
        errors = torch.tensor([[0.25, 1e20, float("inf"), 3e-8]])
        Records(tmp_path).save(replace(a_record(), outcomes=errors))
        assert Records(tmp_path).find(SPEC).outcomes.equal(errors)

    def test_damage_is_noticed(self, tmp_path: Path) -> None:
        records = Records(tmp_path)
        records.save(replace(a_record(), outcomes=torch.ones(2, 9, dtype=torch.bool)))
        path = records.path(SPEC) / "outcomes.safetensors"
        damage(path, path.stat().st_size - 1)
        with pytest.raises(StorageError, match=r"outcomes\.safetensors is damaged; delete the folder"):
            records.find(SPEC)
        path.unlink()
        with pytest.raises(StorageError, match=r"cannot read .*outcomes\.safetensors"):
            records.find(SPEC)


class TestLock:
    """One process at a time trains a spec."""

    def test_another_process_holds_it(self, tmp_path: Path) -> None:
        context = multiprocessing.get_context("fork")
        ready, release = context.Queue(), context.Event()
        process = context.Process(target=_hold, args=(tmp_path, ready, release))
        process.start()
        try:
            assert ready.get(timeout=60)
            assert Records(tmp_path).locked(SPEC)
            with (
                pytest.raises(StorageError, match="another process is training"),
                Records(tmp_path).lock(SPEC, wait=0),
            ):
                pass
        finally:
            release.set()
            process.join()
        assert not Records(tmp_path).locked(SPEC)
        with Records(tmp_path).lock(SPEC, wait=0):
            pass

    def test_says_once_who_is_waited_for(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "PATIENCE", 0.1)
        context = multiprocessing.get_context("fork")
        ready, release, said = context.Queue(), context.Event(), []
        process = context.Process(target=_hold, args=(tmp_path, ready, release))
        process.start()

        def say(text: str) -> None:
            said.append(text)
            release.set()

        try:
            assert ready.get(timeout=60)
            with Records(tmp_path).lock(SPEC, say=say):
                mine = (Records(tmp_path).path(SPEC) / "holder").read_text()
        finally:
            release.set()
            process.join()
        assert len(said) == 1
        assert re.fullmatch(
            f"another process is training {SPEC.key} \\(.*, process {process.pid}\\); waiting for it", said[0]
        )
        assert mine.endswith(f"process {os.getpid()}")
        assert not (Records(tmp_path).path(SPEC) / "holder").exists()

    def test_waits_in_so_many_words_then_gives_up(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(module, "PATIENCE", 0.01)
        records, line = Records(tmp_path), f"another process is training {SPEC.key}"
        with records.lock(SPEC):
            (records.path(SPEC) / "holder").unlink()  # whose it is can't be told
            with (
                pytest.raises(StorageError, match=f"{line}; wait for it or stop it"),
                records.lock(SPEC, 0.1),
            ):
                pass
        assert capsys.readouterr().err == f"{line}; waiting for it\n"

    def test_a_free_lock_is_taken_in_silence(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with Records(tmp_path).lock(SPEC):
            pass
        assert capsys.readouterr().err == ""

    def test_an_error_inside_passes_through_unchanged(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="data"), Records(tmp_path).lock(SPEC):
            raise FileNotFoundError("data")

    def test_leaves_no_file_beside_a_record(self, records: Records) -> None:
        with records.lock(SPEC):
            pass
        assert not (records.path(SPEC) / "lock").exists()


class TestFolders:
    """Where Records are."""

    def test_environment_variable(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ICSTN_RECORDS", str(tmp_path / "mine"))
        assert open_records().folder == tmp_path / "mine"
        assert open_records(tmp_path / "given").folder == tmp_path / "given"

    def test_published_is_the_users_folder_over_the_checkouts(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ICSTN_RECORDS", str(tmp_path / "mine"))
        monkeypatch.chdir(tmp_path)
        published = Path(__file__).resolve().parents[1] / "figures" / "records"
        records = open_records("published")
        assert (records.folder, records.also) == (tmp_path / "mine", (published,))


def test_the_command_says_nothing_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    places = ["--records", "/some/where", "--data=data", "--workers", "2", "--log", "--set"]
    monkeypatch.setattr("sys.argv", ["/x/icstn/__main__.py", "train", "table_2", *places, "--set", "batch=7"])
    assert provenance.gathered(torch.device("cpu"))["command"] == "icstn train table_2 --set batch=7"


def test_published_commands_say_nothing_of_the_machine(root: Path) -> None:
    """Those who run them again have their folders elsewhere, and this machine's are nobody's business."""
    commands = [r.provenance["command"] for r in Records(root / "figures" / "records")]
    assert len(commands) > 200
    assert [c for c in commands if set(shlex.split(c.replace("=", " "))) & {*provenance.OF_THE_MACHINE}] == []
    assert [c for c in commands if re.search(r"(^|[ =])/", c)] == []
