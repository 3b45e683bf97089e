from functools import partial

import numpy as np
import pytest
import torch

from icstn.evidence.appearance import appearance_of
from icstn.evidence.curves import ErrorCurve
from icstn.exhibits import curves, montages, pictures
from icstn.exhibits.theme import THEMES, draw_once, figure_pair, plotted
from icstn.perturb import perturbations
from icstn.sampling import Frame, sample

FRAME = Frame.box(20, 15, 60, 55, 24, 24)


@pytest.fixture(scope="module")
def image():
    y, x = torch.meshgrid(torch.linspace(0, 6, 80), torch.linspace(0, 8, 100), indexing="ij")
    return (0.55 + 0.4 * torch.stack((torch.sin(x), torch.cos(y), torch.sin(x + y))))[None]


@pytest.fixture(scope="module")
def effect(image):
    zoom_in, zoom_out = (torch.tensor([[s, 0.0, 0.0, 0.0, s, 0.0]]) for s in (-0.5, 0.4))
    return pictures.boundary_effect(image, FRAME, zoom_in, zoom_out)


def test_zooming_out_of_a_crop_loses_its_surroundings(effect):
    black = (effect.stn == 0).all(-1)
    assert black.mean() == pytest.approx(effect.lost)
    axis = np.abs(1.4 * np.linspace(-1, 1, 24)) < 1 + 2 / 23  # bilinear reaches one sample past the crop
    assert effect.lost == pytest.approx(1 - axis.mean() ** 2)
    assert not (effect.cstn == 0).all(-1).any()


def test_both_agree_where_the_crop_reaches(effect):
    axis = np.abs(1.4 * np.linspace(-1, 1, 24)) <= 1
    difference = np.abs(effect.stn - effect.cstn)[axis][:, axis]
    assert difference.max() < 0.05


def test_figure_2_shows_the_arrays_and_outlines(effect):
    shown = plotted(draw_once(partial(pictures.figure_2, effect=effect)))
    for gid, array in (("image", effect.image), ("crop", effect.crop), ("zoom-in", effect.zoom_in)):
        assert np.array_equal(shown[gid], array)
    assert np.array_equal(shown["zoom-out STN"], effect.stn)
    assert np.array_equal(shown["zoom-out c-STN"], effect.cstn)
    assert shown["crop box"].tolist() == [[20, 15], [60, 15], [60, 55], [20, 55], [20, 15]]
    assert np.ptp(shown["zoom-out box"][:, 0]) == pytest.approx(1.4 * 40)
    assert np.ptp(shown["zoom-in box"][:, 0]) == pytest.approx(0.5 * 40)


def test_figure_6_shows_truth_boxes_and_samples(image, generator):
    p = perturbations(9, 3.0, FRAME, "affine", generator=generator)
    planar = pictures.planar(image, FRAME, p, sigma=3.0, boxes=5)
    shown = plotted(draw_once(partial(pictures.figure_6, shown=planar, columns=3)))
    assert shown["ground truth"][0].tolist() == [20, 15]
    assert sum(name.startswith("box") for name in shown) == 5
    assert sum(name.startswith("sample") for name in shown) == 9
    assert np.array_equal(shown["box 4"], pictures.outline(p[4], FRAME, pictures.affine))
    expected = sample(image, p[8:9], FRAME, "affine")[0].permute(1, 2, 0).clamp(0, 1).numpy()
    assert np.allclose(shown["sample 8"], expected, atol=1e-5)


def test_grey_pictures_are_flat_arrays():
    assert pictures.pixels(torch.rand(1, 3, 4)).shape == (3, 4)


PANEL = {
    "c-STN-1": ErrorCurve(np.array([9.0, 5.0, 4.5]), 1),
    "IC-STN-2": ErrorCurve(np.array([9.0, 3.0, 1.0]), 2, np.array([0.1, 0.2, 0.3])),
}


@pytest.mark.parametrize("panels", [1, 2, 3, 4])
def test_figure_7_plots_every_curve_with_its_dot(panels):
    names = [f"σ = {k}" for k in range(panels)]
    shown = plotted(draw_once(partial(curves.figure_7, panels=dict.fromkeys(names, PANEL))))
    assert len(shown) == 4 * panels
    for name in names:
        assert shown[f"{name} IC-STN-2"].tolist() == [[0, 9], [1, 3], [2, 1]]
        assert shown[f"{name} IC-STN-2 trained"].tolist() == [[2, 1]]
        assert shown[f"{name} c-STN-1 trained"].tolist() == [[1, 5]]


def test_the_dot_lies_on_the_curve_or_is_refused():
    with pytest.raises(ValueError, match="ends at 2 warp operations, before the trained 4"):
        ErrorCurve(np.array([3.0, 2.0, 1.0]), 4)


def test_the_best_number_of_operations_skips_gaps():
    assert ErrorCurve(np.array([3.0, np.nan, 1.0, 2.0]), 1).best == 2


def test_a_strip_holds_the_images_and_the_page_between_them():
    images = torch.rand(3, 1, 4, 5)
    array = montages.strip(images, "#121212", gap=2)
    assert array.shape == (4, 3 * 7 - 2, 3)
    assert np.allclose(array[:, 7:12, 1], images[1, 0])
    assert np.allclose(array[:, 5:7], 0x12 / 255)


def test_rows_show_the_same_samples_step_by_step():
    rows = {
        "initial": torch.rand(4, 3, 6, 6),
        "iteration 1": torch.rand(4, 3, 6, 6),
        "STN": torch.rand(4, 3, 6, 6),
    }
    shown = plotted(draw_once(partial(montages.alignment_rows, rows=rows, apart=["STN"])))
    assert list(shown) == list(rows)
    for label, images in rows.items():
        assert np.allclose(shown[label][:, 8:14], images[1].permute(1, 2, 0).numpy())


def test_rows_of_different_samples_are_refused():
    with pytest.raises(ValueError, match="all have one shape"):
        montages.alignment_rows(THEMES["light"], {"a": torch.rand(4, 1, 6, 6), "b": torch.rand(3, 1, 6, 6)})


def test_appearance_splits_the_variance():
    images, labels = torch.rand(60, 2, 5, 5), torch.arange(60) % 3
    stats = appearance_of(images, labels, 3)
    assert stats.mean[1].allclose(images[labels == 1].double().mean(0))
    assert stats.within == pytest.approx(float(stats.variance.mean()))  # equal classes
    assert stats.total == pytest.approx(float(images.double().var(0, correction=0).mean()))
    assert 0 < stats.unexplained < 1


def test_appearance_of_aligned_images_has_no_variance():
    images, labels = torch.rand(3, 1, 5, 5).repeat(4, 1, 1, 1), torch.arange(12) % 3
    stats = appearance_of(images, labels, 3)
    assert stats.within == pytest.approx(0, abs=1e-12)
    assert stats.unexplained == pytest.approx(0, abs=1e-12)


def test_dimming_lowers_the_variance_but_not_its_share():
    images, labels = torch.rand(60, 1, 5, 5), torch.arange(60) % 3
    bright, dim = (appearance_of(images * k, labels, 3) for k in (1.0, 0.5))
    assert dim.within == pytest.approx(bright.within / 4)
    assert dim.unexplained == pytest.approx(bright.unexplained)


def test_blur_lowers_sharpness():
    images, labels = torch.rand(30, 1, 9, 9), torch.arange(30) % 2
    blurred = torch.nn.functional.avg_pool2d(images, 3, 1, 1)
    sharp, blunt = (appearance_of(x, labels, 2).sharpness for x in (images, blurred))
    assert blunt < sharp


def test_a_class_without_images_is_named():
    with pytest.raises(ValueError, match="no image of class 2"):
        appearance_of(torch.rand(4, 1, 3, 3), torch.tensor([0, 1, 0, 1]), 3)


@pytest.fixture(scope="module")
def rows():
    labels = torch.arange(40) % 4
    return {
        name: montages.Averages.of(appearance_of(torch.rand(40, 1, 7, 7) * s, labels, 4))
        for name, s in (("initial", 1.0), ("IC-STN-4", 0.5))
    }


def test_figure_9_shows_means_variances_and_numbers(rows):
    shown = plotted(draw_once(partial(montages.figure_9, rows=rows)))
    brightest = max(float(stats.mean.max()) for stats in rows.values())
    for name, stats in rows.items():
        assert np.allclose(shown[f"mean {name}"][:, :7, 0] * brightest, stats.mean[0, 0], atol=1e-6)
        assert f"{stats.within:.4f}" in str(shown[f"number {name}"])
    first, last = (shown[f"variance {name}"].mean() for name in rows)
    assert last < first, "a smaller variance is darker: both rows share one scale"


def test_figure_11_shows_means_and_sharpness(rows):
    shown = plotted(draw_once(partial(montages.figure_11, rows=rows, titles="abcd")))
    for name, stats in rows.items():
        assert np.allclose(shown[name][:, 9:16, 0], stats.mean[1, 0], atol=1e-6)
        assert f"{stats.sharpness:.4f}" in str(shown[f"number {name}"])


def test_every_drawing_renders_in_both_modes(effect, rows):
    drawings = {
        "figure_2": partial(pictures.figure_2, effect=effect),
        "figure_7": partial(curves.figure_7, panels={"σ": PANEL}),
        "figure_9": partial(montages.figure_9, rows=rows),
        "figure_11": partial(montages.figure_11, rows=rows),
    }
    for name, draw in drawings.items():
        pair = figure_pair(draw, name, "A figure.", dpi=60)
        assert set(pair.png) == {"light", "dark"}
