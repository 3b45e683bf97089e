"""ONNX files: checked before they are written, for batches of any size, cold and warm."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from icstn import export
from icstn.export import ExportError, export_onnx

pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

HERE = Path(__file__).parent
SCRIPT = """
import sys; sys.path.insert(0, {tests!r})
import warnings; warnings.simplefilter("error")
import onnxruntime, torch
from compilers import images, make
from icstn.export import export_onnx
for kind, name, places in {pairs!r}:
    for whole in places:
        net = make(kind, name, whole).train()
        assert export_onnx(net, {path!r}, images(3)) < 1e-5
        assert net.training
        session = onnxruntime.InferenceSession({path!r})
        for batch in (1, 4, 9):
            (ours,) = session.run(None, {{"image": images(batch).numpy()}})
            torch.testing.assert_close(torch.from_numpy(ours), net(images(batch)).detach(), atol=1e-5, rtol=0)
        print(kind, name, whole)
"""
#: Where the transformer looks: at the whole image, or at a crop of it.
WHOLE, CROP = True, False
COLD = [("STN", "homography", (WHOLE,))]
WARM = [
    ("c-STN", "affine", (CROP,)),
    ("IC-STN inverse", "similarity", (WHOLE,)),
    ("IC-STN", "translation", (CROP,)),
]


@pytest.mark.slow
@pytest.mark.parametrize("some", [COLD, WARM], ids=["cold", "warm"])
def test_every_transformer_and_family(some: list, tmp_path: Path, fresh_python, forked_python) -> None:
    """The first of them imports all by itself."""
    code = SCRIPT.format(tests=str(HERE), pairs=some, path=str(tmp_path / "net.onnx"))
    python = fresh_python if some is COLD else forked_python
    assert len(python(code).splitlines()) == sum(len(places) for *_, places in some)


@pytest.mark.long
def test_all_of_them(tmp_path: Path, fresh_python) -> None:
    pairs = [
        (kind, name, (WHOLE, CROP))
        for kind in ("STN", "c-STN", "IC-STN", "IC-STN inverse")
        for name in ("translation", "similarity", "affine", "homography")
    ]
    code = SCRIPT.format(tests=str(HERE), pairs=pairs, path=str(tmp_path / "net.onnx"))
    assert len(fresh_python(code).splitlines()) == 32


class Two(nn.Module):
    """Two inputs, two outputs, and something that training does otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.drop = nn.Linear(4, 3), nn.Dropout(0.5)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return self.drop(self.layer(x)), x * y


class TestFile:
    """A user's own module."""

    def test_names_inputs_and_outputs(self, tmp_path: Path) -> None:
        module, path = Two(), tmp_path / "new folder" / "two.onnx"
        x, y = torch.rand(1, 4), torch.rand(1, 4)
        worst = export_onnx(module, path, x, y, names=("left", "right"), outputs=("sum", "product"))
        assert worst < 1e-5
        session = onnxruntime.InferenceSession(str(path))
        assert [i.name for i in session.get_inputs()] == ["left", "right"]
        assert [o.name for o in session.get_outputs()] == ["sum", "product"]
        assert module.training
        found = session.run(None, {"left": np.ones((6, 4), "f"), "right": np.full((6, 4), 2, "f")})
        np.testing.assert_allclose(found[1], 2)
        np.testing.assert_allclose(found[0], module.layer(torch.ones(6, 4)).detach(), atol=1e-6)

    def test_nothing_is_written_that_differs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "net.onnx"
        path.write_bytes(b"the one before")
        real = export._export

        def wrong(network: nn.Module, *rest: object) -> None:
            real(nn.Sequential(network, nn.Hardtanh(-0.01, 0.01)), *rest)

        monkeypatch.setattr(export, "_export", wrong)
        with pytest.raises(
            ExportError, match=r"differs from PyTorch's by .*, more than 1.0e-05: nothing was"
        ):
            export_onnx(nn.Linear(4, 3), path, torch.rand(2, 4))
        assert path.read_bytes() == b"the one before"

    def test_examples_are_needed(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="needs example inputs and a name for each, got 0 inputs"):
            export_onnx(nn.Linear(4, 3), tmp_path / "net.onnx")


def test_without_onnx_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("icstn.extras.find_spec", lambda name: None if name.startswith("onnx") else sys)
    with pytest.raises(ImportError, match=r"pip install 'icstn\[onnx\]'"):
        export_onnx(nn.Linear(4, 3), tmp_path / "net.onnx", torch.rand(1, 4))


@pytest.mark.slow
def test_the_lines_of_the_chapter_on_your_own_images_run(root: Path, tmp_path: Path, forked_python) -> None:
    """Those that are shown and not executed there, on a network as that chapter's."""
    cells = json.loads((root / "book" / "your_images.ipynb").read_text(encoding="utf-8"))["cells"]
    shown = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    blocks = re.findall(r"```python\n(.*?)```", shown, re.DOTALL)
    assert blocks
    lines = [
        "import os, torch; from torch import nn; from icstn import ICSTN",
        f"os.chdir({str(tmp_path)!r})",
    ]
    lines += ["predictor = nn.Sequential(nn.Flatten(), nn.Linear(144, 8))"]
    lines += ["model = nn.Sequential(ICSTN(predictor, n=2), nn.Flatten(), nn.Linear(144, 3))"]
    forked_python("\n".join([*lines, "images = torch.rand(4, 1, 12, 12)", *blocks]))
    assert (tmp_path / "model.onnx").stat().st_size > 1000
