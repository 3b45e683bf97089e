"""Features: names, shapes, what they are invariant to, and what goes wrong."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from icstn.classical.features import FEATURES, extract, feature, feature_name, hog, pixels, sift


@pytest.fixture
def patches(photograph: torch.Tensor) -> torch.Tensor:
    return torch.cat((photograph[..., 60:110, 100:150], photograph[..., 100:150, 200:250])).float()


@pytest.mark.parametrize(("name", "d"), [("pixels", 7500), ("hog", 5 * 5 * 4 * 8), ("sift", 16 * 128)])
def test_each_named_feature_gives_one_row_a_patch(name: str, d: int, patches: torch.Tensor) -> None:
    out = extract(name, patches)
    assert out.shape == (2, d)
    assert out.dtype == patches.dtype
    assert out.isfinite().all()
    torch.testing.assert_close(extract(name, patches[1:])[0], out[1])  # a patch does not see its batch
    assert (out[0] - out[1]).abs().max() > 0.01


def test_pixels_are_the_flattened_patch_and_differentiable(patches: torch.Tensor) -> None:
    torch.testing.assert_close(pixels(patches)[0, 2500], patches[0, 1, 0, 0])
    leaf = patches.clone().requires_grad_()
    pixels(leaf).sum().backward()
    assert leaf.grad is not None
    assert (leaf.grad == 1).all()


@pytest.mark.parametrize("describe", [hog, sift])
def test_histograms_ignore_brightness_and_pixels_do_not(describe: object, patches: torch.Tensor) -> None:
    dim = patches * 0.5 + 0.2
    own, other = extract(describe, patches), extract(describe, dim)
    assert (own - other).norm() < 0.1 * own.norm()
    assert (pixels(patches) - pixels(dim)).norm() > 0.1 * pixels(patches).norm()


def test_sift_lies_on_a_regular_grid(patches: torch.Tensor) -> None:
    """Changing the bottom right quarter leaves the descriptor of the first keypoint alone."""
    changed = patches.clone()
    changed[..., 35:, 35:] = 0
    own, other = sift(patches, grid=4, scale=0.5), sift(changed, grid=4, scale=0.5)
    torch.testing.assert_close(own[:, :128], other[:, :128])
    assert (own[:, -128:] - other[:, -128:]).abs().max() > 0.01


def test_unknown_features_name_those_that_exist() -> None:
    with pytest.raises(ValueError, match="unknown features 'surf': use pixels, hog, sift, or a callable"):
        feature("surf")


def test_a_patch_too_small_for_hog_says_so(patches: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="HOG needs 16 pixels a side or more, got 10×10: lower `cell`"):
        hog(patches[..., :10, :10])


def test_a_callable_must_return_one_row_a_patch(patches: torch.Tensor, unchecked: None) -> None:
    with pytest.raises(ValueError, match=r"must return a tensor \(2, d\).*got \(2, 3, 50, 50\)"):
        extract(lambda x: x, patches)
    with pytest.raises(ValueError, match="got ndarray"):
        extract(lambda x: x.numpy(), patches)


def test_names_tell_features_apart() -> None:
    assert feature_name("hog") == "hog"
    assert feature_name(FEATURES["sift"]) == "sift"
    assert feature_name(partial(hog, cell=5)) == "hog(cell=5)"
    assert feature_name(torch.nn.Flatten()) == "Flatten"
