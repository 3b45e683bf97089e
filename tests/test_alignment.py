from dataclasses import replace

import numpy as np
import pytest
import torch

from icstn.datasets import Dataset
from icstn.evidence import alignment, collection, curves
from icstn.evidence.appearance import appearance_of, appearances
from icstn.exhibits import arrays
from icstn.exhibits.montages import Averages
from icstn.experiments import Record, build_model, cells
from icstn.experiments.classification import Classification
from icstn.sampling import Frame, sample
from icstn.warps import homography

MODELS = ["STN(b)", "c-STN-1(b)", "IC-STN-4(b)"]
SPECS = {s.model: s for s in cells("table_2", "smoke", [0], MODELS)}


def made(spec, **kwargs):
    """An untrained Record whose predictor does move things."""
    model = build_model(spec, Frame.full(28, 28), 1)
    with torch.no_grad():
        bias = [p for name, p in model.named_parameters() if "predictor" in name and p.shape == (8,)][-1]
        bias.copy_(torch.tensor([0.2, 0.0, 0.1, 0.0, 0.2, 0.0, 0.0, 0.0]))
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    metrics = {"test_error": 1.0} | kwargs.pop("metrics", {})
    return Record(spec, kwargs.pop("status", "finished"), metrics, {}, {}, weights)


@pytest.fixture(scope="module")
def task():
    images = (torch.rand(30, 1, 28, 28, generator=torch.Generator().manual_seed(0)) * 255).to(torch.uint8)
    data = Dataset(images, torch.arange(30) % 10, "noise", "test", "0" * 64)
    return Classification(
        SPECS["STN(b)"], data, data, Frame.full(28, 28), torch.device("cpu"), standardize=False
    )


@pytest.fixture(scope="module")
def records():
    return {model: made(spec) for model, spec in SPECS.items()}


def test_steps_are_those_of_the_model(task, records):
    for model, record in records.items():
        index = [3, 7]
        shown = alignment.align(task, record, index).images
        p, images = task.test_warps(30, 0)[index], task.test.images[index].float() / 255
        expected = alignment.trained(record, task.frame, 1).align(images, p)
        assert len(shown) == len(expected.warps), model
        assert shown[0].allclose(sample(images, p, warp=homography), atol=1e-5), model
        assert shown[-1].allclose(expected.image, atol=1e-3), model


def test_rows_of_figure_8(task, records):
    rows = alignment.step_by_step(task, records["IC-STN-4(b)"], records["STN(b)"], [0, 1, 2])
    assert list(rows) == [
        "initial",
        "iteration 1",
        "iteration 2",
        "iteration 3",
        "IC-STN-4(b) final",
        "STN(b)",
    ]
    assert {x.shape for x in rows.values()} == {(3, 1, 28, 28)}


def test_without_perturbation_or_surroundings_one_warp_of_an_stn_is_that_of_a_c_stn(task, records):
    # The perturbed image is the identity's: warps of size zero, so only the prediction counts.
    task = replace_sigma(task, 0.0)
    stn, cstn = (alignment.align(task, records[m], [0]).images[-1] for m in ("STN(b)", "c-STN-1(b)"))
    assert stn.allclose(cstn, atol=1e-4), "without surroundings the two are one"


def replace_sigma(task, sigma):
    spec = replace(task.spec, sigma=sigma)
    return Classification(spec, task.train, task.test, task.frame, task.device, standardize=False)


def test_appearances_cover_the_perturbation_and_each_model(task, records):
    rows = appearances(task, records)
    assert list(rows) == ["initial", *MODELS]
    p, images = task.test_warps(30, 0), task.test.images.float() / 255
    initial = sample(images, p, warp=homography)
    assert rows["initial"].mean[4].allclose(initial[4::10].double().mean(0), atol=1e-6)
    aligned = alignment.align(task, records["IC-STN-4(b)"], range(30)).images[-1]
    assert rows["IC-STN-4(b)"].mean[4].allclose(aligned[4::10].double().mean(0), atol=1e-5)
    assert rows["STN(b)"].count.tolist() == [3] * 10


def test_samples_are_the_first_of_each_class():
    assert alignment.first_of_each(torch.tensor([1, 0, 1, 2, 0]), [0, 2]) == [1, 3]


def test_kept_arrays_are_computed_once_for_the_same_records(tmp_path, records):
    calls = []

    def compute():
        calls.append(1)
        return {"a": np.arange(3)}

    path, runs = tmp_path / "x.npz", list(records.values())
    first, second = (arrays.kept(path, runs, compute) for _ in range(2))
    assert first["a"].tolist() == second["a"].tolist() == [0, 1, 2]
    assert len(calls) == 1
    arrays.kept(path, [made(SPECS["STN(b)"], metrics={"test_error": 2.0})], compute)
    assert len(calls) == 2, "arrays of other Records are stale"


def test_kept_files_are_the_same_bytes_each_time(tmp_path, records):
    for name in ("x.npz", "y.npz"):
        arrays.kept(tmp_path / name, records.values(), lambda: {"a": np.arange(3)})
    assert (tmp_path / "x.npz").read_bytes() == (tmp_path / "y.npz").read_bytes()


def test_packing_keeps_images_and_statistics(task, records):
    rows = alignment.step_by_step(task, records["IC-STN-4(b)"], records["STN(b)"], [0])
    back = arrays.from_bytes(arrays.to_bytes(rows))
    assert all(back[k].allclose(rows[k], atol=0.5 / 255 + 1e-6) for k in rows)
    stats = {label: Averages.of(found, [2, 5]) for label, found in appearances(task, records).items()}
    again = arrays.unpack(arrays.pack(stats))
    assert again["STN(b)"].mean.shape == (2, 1, 28, 28)
    assert again["STN(b)"].variance.allclose(stats["STN(b)"].variance, atol=1e-3)
    for name in ("within", "unexplained", "sharpness"):
        assert getattr(again["STN(b)"], name) == getattr(stats["STN(b)"], name)


def planar(model, seed, errors):
    spec = cells("table_1", "smoke", [seed], [model])[2]
    metrics = {"by_operations": [{"corner_px": e} for e in errors]}
    return Record(spec, "finished", metrics, {}, {})


def test_error_curves_average_the_seeds():
    runs = [planar("IC-STN-2", 0, [9, 4, 2, 1]), planar("IC-STN-2", 1, [9, 6, 4, 3])]
    curve = curves.error_curves(runs)["σ = 7.5 px"]["IC-STN-2"]
    assert curve.error.tolist() == [9, 5, 3, 2]
    assert curve.trained == 2
    assert curve.spread.tolist() == pytest.approx([0, 2**0.5, 2**0.5, 2**0.5])


def test_the_median_seed_is_drawn():
    spec = SPECS["STN(b)"]
    errors = {0: 9.0, 1: 1.0, 2: 3.0, 3: 2.0, 4: None}
    runs = [
        replace(
            made(replace(spec, seed=s), status="finished" if error else "diverged"),
            metrics={"test_error": error},
        )
        for s, error in errors.items()
    ]
    assert collection.one(runs, "STN(b)").spec.seed == 3  # of 1, 2, 3 and 9 the lower median
    assert collection.one(runs[1:], "STN(b)").spec.seed == 3
    assert collection.one(runs[:1], "STN(b)").spec.seed == 0
    with pytest.raises(collection.MissingError, match="no finished run of CNN"):
        collection.one(runs, "CNN(a)")


def test_zoom_is_the_root_of_the_area(generator):
    p = 0.2 * torch.randn(50, 8, generator=generator, dtype=torch.float64)
    h = 1e-6
    x = torch.tensor([[h, 0.0], [-h, 0.0], [0.0, h], [0.0, -h]], dtype=torch.float64)
    right, left, down, up = homography.apply(p, x).unbind(1)
    u, v = (right - left) / (2 * h), (down - up) / (2 * h)
    area = (u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]).abs()
    torch.testing.assert_close(alignment.zoom(homography, p), area.sqrt(), rtol=1e-6, atol=1e-8)


def smooth_task(frame, size):
    """One bright blob in the middle of each image."""
    y, x = torch.meshgrid(*2 * [torch.linspace(-1, 1, size)], indexing="ij")
    blob = (255 * torch.exp(-(x**2 + y**2) / 0.08)).round().to(torch.uint8)
    data = Dataset(blob.expand(4, 1, -1, -1), torch.arange(4), "blob", "test", "0" * 64)
    return Classification(SPECS["STN(b)"], data, data, frame, torch.device("cpu"), standardize=False)


def test_zooming_loses_no_ink_and_cropping_does():
    task = smooth_task(Frame.full(40, 40), 40)
    p = torch.zeros(4, 8)
    p[1, [0, 4]] = 0.3  # smaller
    p[2, [0, 4]], p[2, 6] = -0.2, 0.1  # larger, in perspective
    p[3, 2] = 1.0  # the window's edge goes through the middle
    images = sample(task.test.images.float() / 255, p, task.frame, homography)
    lost = alignment.lost_ink(task, images, p)
    assert lost[:3].max() < 0.02
    assert lost[3] == pytest.approx(0.45, abs=0.01)  # the column at the edge counts in whole


def test_window_and_box_have_the_same_side():
    task = smooth_task(Frame.crop(50, 50, 36, 36), 50)
    boxes = torch.tensor([[7.0, 7, 42, 42], [7, 7, 42, 42], [14.5, 14.5, 34.5, 34.5]])
    task.test = replace(task.test, boxes=torch.cat((boxes, boxes[:1])))
    p = torch.zeros(4, 8)
    p[1, [0, 4]] = 0.5
    assert alignment.window_of_box(task, p).tolist() == pytest.approx([1.0, 1.5, 35 / 20, 1.0])


def test_a_black_border_is_not_sharpness(generator):
    """The same blurred pictures, seen whole or with a border that differs from image to image."""
    smooth = torch.rand(40, 1, 6, 6, generator=generator)
    images = 0.5 + 0.5 * torch.nn.functional.interpolate(smooth, size=24, mode="bilinear")
    labels = torch.zeros(40, dtype=torch.long)
    seen = torch.ones(40, 1, 24, 24)
    for k in range(40):
        seen[k, ..., : k % 9] = 0
    whole = appearance_of(images, labels, 1)
    cropped = appearance_of(images * seen, labels, 1, seen)
    blind = appearance_of(images * seen, labels, 1)
    assert cropped.sharpness == pytest.approx(whole.sharpness, rel=0.35)
    assert blind.sharpness > 1.5 * whole.sharpness, "what a definition without the border's share would say"
    assert cropped.lost == pytest.approx(float((seen == 0).float().mean()))
