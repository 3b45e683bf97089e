import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from icstn.exhibits import theme as T


def draw(theme):
    fig, ax = plt.subplots(figsize=(3, 2))
    T.tag(ax.plot([0, 1, 2], [0, 1, 4], color=theme.geometry)[0], "curve")
    T.tag(ax.imshow(np.eye(2), extent=(0, 1, 0, 1)), "image")
    return fig


def test_both_modes_are_drawn_and_differ():
    pair = T.figure_pair(draw, "x", "A curve.")
    assert pair.svg["light"] != pair.svg["dark"]
    assert pair.png["light"][:4] == pair.png["dark"][:4] == b"\x89PNG"


def test_a_second_drawing_gives_the_same_bytes():
    first, second = (T.figure_pair(draw, "x", "A curve.") for _ in range(2))
    assert first.svg == second.svg
    assert first.png == second.png
    assert b"<dc:date>" not in first.svg["light"]


@pytest.mark.parametrize(("mode", "color"), [("light", 255), ("dark", 0x12)])
def test_the_background_is_opaque_and_the_pages(mode, color):
    import io

    from PIL import Image

    pixel = (
        Image.open(io.BytesIO(T.figure_pair(draw, "x", "A curve.").png[mode]))
        .convert("RGBA")
        .getpixel((0, 0))
    )
    assert pixel == (color, color, color, 255)


def test_html_has_one_image_for_each_mode_with_alt_and_caption():
    text = T.figure_pair(draw, "x", 'A "curve".', "Below.").html()
    assert re.findall(r'<img class="([^"]*)"', text) == ["exhibit-light only-light", "exhibit-dark only-dark"]
    assert text.count('alt="A &quot;curve&quot;."') == 2
    assert "<figcaption>Below.</figcaption>" in text


def test_alt_text_is_required():
    with pytest.raises(ValueError, match="needs alt text"):
        T.figure_pair(draw, "x", " ")


def test_settings_come_back():
    before = plt.rcParams["text.color"]
    with T.use("dark"):
        assert plt.rcParams["text.color"] == T.DARK.ink
    assert plt.rcParams["text.color"] == before


def test_plotted_arrays_are_handed_back():
    arrays = T.plotted(T.draw_once(draw))
    assert arrays["curve"].tolist() == [[0, 0], [1, 1], [2, 4]]
    assert arrays["image"].tolist() == [[1, 0], [0, 1]]


def test_files_are_written(tmp_path):
    names = sorted(p.name for p in T.figure_pair(draw, "x", "A curve.").save(tmp_path))
    assert names == ["x_dark.png", "x_dark.svg", "x_light.png", "x_light.svg"]


def contrast(a: str, b: str) -> float:
    def luminance(color):
        c = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]

    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", T.THEMES.values(), ids=list(T.THEMES))
def test_text_and_curves_stand_out_from_the_page(theme):
    assert min(contrast(c, theme.background) for c in (theme.ink, theme.muted)) >= 4.5
    assert min(contrast(c, theme.background) for c in (theme.appearance, theme.geometry, *theme.cycle)) >= 2.9


@pytest.mark.parametrize("theme", T.THEMES.values(), ids=T.THEMES)
def test_signed_values_stand_out_from_the_background(theme):
    below, zero, above = (to_rgb(theme.signed(at)) for at in (0.0, 0.5, 1.0))
    assert (below, above) == (to_rgb(theme.appearance), to_rgb(theme.cycle[1]))
    assert zero == pytest.approx(to_rgb(theme.background), abs=1 / 200)
