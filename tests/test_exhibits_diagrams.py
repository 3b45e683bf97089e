import pytest

from icstn.exhibits import diagrams
from icstn.exhibits.theme import THEMES, draw_once, figure_pair

DRAWINGS = {n: getattr(diagrams, f"figure_{n}") for n in (1, 3, 4, 5)}


def wiring(n):
    return diagrams.wiring(draw_once(DRAWINGS[n]))


@pytest.mark.parametrize("n", DRAWINGS)
def test_is_drawn_in_both_modes(n):
    pair = figure_pair(DRAWINGS[n], f"figure_{n}", "A diagram.")
    assert set(pair.svg) == set(THEMES)
    assert b"<image" not in pair.svg["light"], "a diagram is lines only, crisp at any size"


@pytest.mark.parametrize("n", DRAWINGS)
@pytest.mark.parametrize("mode", THEMES)
def test_arrows_have_the_color_of_what_they_carry(n, mode):
    figure, theme = draw_once(DRAWINGS[n], mode), THEMES[mode]
    from matplotlib.colors import to_rgba

    for patch in figure.axes[0].patches:
        if patch.get_gid():
            kind = patch.get_gid().split(":")[0]
            assert to_rgba(patch.get_edgecolor()) == to_rgba(getattr(theme, kind))


def test_spatial_transformer_keeps_no_geometry():
    arrows = wiring(1)
    assert arrows["geometry"] == {"predictor → warp"}
    assert "warp → output" in arrows["appearance"]


def test_compositional_module_hands_on_geometry_and_the_source_image():
    arrows = wiring(3)
    assert {"p_in → warp", "p_in → compose", "predictor → compose", "compose → next"} == arrows["geometry"]
    assert "image → next" in arrows["appearance"]
    assert not any(arrow.endswith("→ output") for arrow in arrows["appearance"])


def test_concatenation_feeds_the_source_image_to_every_warp():
    arrows = wiring(4)["appearance"]
    assert {f"image → {warp}" for warp in ("warp 1", "warp 2", "last warp")} <= arrows


def test_recurrence_closes_the_loop_of_the_warp_parameters():
    arrows = wiring(5)["geometry"]
    assert {"predictor → compose", "compose → warp", "p → compose", "initial p → warp"} == arrows
