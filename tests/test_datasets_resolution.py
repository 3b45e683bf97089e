"""Images of less resolution: finer detail is gone, everything else stays."""

import pytest
import torch
from golden import pictures

from icstn.datasets import Dataset, fingerprint, gtsrb_stand_in, reduced
from icstn.experiments import DataOptions, cells, make_task


def stripes(period: int, side: int = 48) -> Dataset:
    x = torch.arange(side)
    row = (127.5 + 127.5 * torch.cos(2 * torch.pi * x / period)).round().to(torch.uint8)
    images = row.expand(3, 1, side, side).contiguous()
    labels = torch.tensor([0, 1, 2])
    boxes = torch.arange(12).view(3, 4).float()
    return Dataset(images, labels, "stripes", "train", fingerprint(images, labels), ("a note",), boxes=boxes)


def contrast(data: Dataset) -> float:
    return data.images.float().std().item()


@pytest.mark.parametrize(("period", "side", "kept"), [(16, 24, True), (16, 6, False), (3, 24, False)])
def test_what_is_finer_is_lost(period: int, side: int, kept: bool) -> None:
    """Stripes survive where a period has more than two pixels, and vanish where it has fewer: no aliases."""
    data = stripes(period)
    share = contrast(reduced(data, side)) / contrast(data)
    assert share > 0.8 if kept else share < 0.2


def test_means_and_all_else_stay() -> None:
    data = gtsrb_stand_in("test", count=129)
    found = reduced(data, 12)
    assert found.images.shape == data.images.shape
    assert found.images.dtype == torch.uint8
    before, after = (d.images.float().mean((1, 2, 3)) for d in (data, found))
    assert (before - after).abs().max() < 2
    assert torch.equal(found.boxes, data.boxes)
    assert torch.equal(found.labels, data.labels)
    assert found.stand_in
    assert found.notes == (*data.notes, "images reduced to 12×12 pixels and brought back")
    assert found.fingerprint == fingerprint(found.images, found.labels) != data.fingerprint


def test_the_same_size_changes_nothing() -> None:
    data = stripes(16)
    assert torch.equal(reduced(data, 48).images, data.images)


def test_two_pixels_at_least() -> None:
    with pytest.raises(ValueError, match="2 pixels a side or more, not 1"):
        reduced(stripes(16), 1)


def test_a_run_may_be_on_such_images_both_in_training_and_test(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures.hand_out(monkeypatch)
    data = DataOptions("a folder")
    spec = cells("table_3", "smoke", models=["CNN"])[0]
    whole, coarse = (
        make_task(s, data, "cpu") for s in (spec, cells("table_3", "smoke", models=["CNN"], resolution=8)[0])
    )
    for split in ("train", "test"):
        a, b = getattr(whole, split), getattr(coarse, split)
        assert torch.equal(b.images, reduced(a, 8).images)
    assert coarse.data["fingerprints"] != whole.data["fingerprints"]
