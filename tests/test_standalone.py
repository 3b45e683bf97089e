"""Published runs as ONNX files, from the command line as well."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from icstn.cli import app
from icstn.evidence.trace import find_one
from icstn.experiments.classification import prepared
from icstn.experiments.models import build_model
from icstn.experiments.records import Records
from icstn.experiments.standalone import self_contained
from icstn.experiments.tasks import PLACED


@pytest.fixture(scope="module")
def records(root: Path) -> Records:
    return Records(root / "figures" / "records")


def images(data: str, batch: int = 3) -> torch.Tensor:
    shape = (batch, PLACED[data].channels, *PLACED[data].image_size)
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("cell", "classes"),
    [("table_2-cnn-b-quick", 10), ("table_2-ic-stn-4-a-full", 10), ("table_3-stn-full", 43)],
)
def test_a_classifier_takes_images_as_they_are(records: Records, cell: str, classes: int) -> None:
    record = find_one(cell, records)
    found = self_contained(record)
    place = PLACED[record.spec.about.data]
    x = images(record.spec.about.data)
    assert found.example[0].shape[1:] == x.shape[1:]
    logits, warps = found.network(x)
    model = build_model(record.spec, place.frame, place.channels)
    model.load_state_dict(record.weights)
    wanted = model(prepared(x, place.standardize), torch.zeros(3, 8))
    torch.testing.assert_close(logits, wanted)
    assert logits.shape == (3, classes)
    assert warps.shape == (3, 8)


def test_planar_alignment_takes_warps(records: Records) -> None:
    found = self_contained(find_one("table_1-ic-stn-4-sigma5-full", records))
    image, p = found.example
    final = found.network(image, p)
    assert found.inputs == ("image", "p")
    assert final.norm() < 0.1 * p.norm()  # it aligns


def test_a_classical_method_left_no_network(records: Records) -> None:
    with pytest.raises(ValueError, match="is a classical method, so it left no network"):
        self_contained(find_one("baselines-sdm-sigma5-full", records))


def test_of_several_seeds_the_median_one_is_taken(records: Records) -> None:
    """And of a table's own runs, not of those that were composed on the other side."""
    fitting = [r for r in records if r.spec.key.startswith("table_1-ic-stn-4-sigma5-full")]
    runs = [r for r in fitting if r.spec.side == "template"]
    assert len(fitting) > len(runs) == 3
    chosen = find_one("table_1-ic-stn-4-sigma5-full", records)
    assert chosen in runs
    assert chosen.test_error == sorted(r.test_error for r in runs)[1]
    varied = next(r for r in fitting if r.spec.side == "image")
    assert find_one(varied.spec.key, records) == varied


def test_several_runs_are_listed(records: Records) -> None:
    with pytest.raises(LookupError, match=r"runs fit 'CNN\(a\)': name one of\n  table_2-cnn-a-full"):
        find_one("CNN(a)", records)


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["table_3-ic-stn-2-full", "table_1-ic-stn-2-sigma5-full"])
def test_the_command_writes_a_file_that_runs(cell: str, root: Path, tmp_path: Path, forked_python) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    path = tmp_path / "net.onnx"
    code = (
        f"import sys; sys.argv = ['icstn', 'export', {cell!r}, {str(path)!r}, '--records', "
        f"{str(root / 'figures' / 'records')!r}]\nfrom icstn.cli import app\napp()"
    )
    assert f"{path}: {cell}" in forked_python(code)
    found = self_contained(find_one(cell, Records(root / "figures" / "records")))
    session = onnxruntime.InferenceSession(str(path))
    assert tuple(o.name for o in session.get_outputs()) == found.outputs
    inputs = [torch.cat((x, x, x[:1])) for x in found.example]
    ours = session.run(None, {n: x.numpy() for n, x in zip(found.inputs, inputs, strict=True)})
    with torch.no_grad():
        wanted = found.network(*inputs)
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    for a, b in zip(ours, wanted, strict=True):
        assert (torch.from_numpy(a) - b).abs().max() <= 1e-5 * max(1.0, float(b.abs().max()))


def test_the_command_says_what_is_wrong(root: Path, tmp_path: Path) -> None:
    folder = str(root / "figures" / "records")
    done = CliRunner().invoke(app, ["export", "table_9", str(tmp_path / "net.onnx"), "--records", folder])
    assert done.exit_code == 2
    assert "no Record has 'table_9'" in done.stderr
    assert not list(tmp_path.iterdir())
