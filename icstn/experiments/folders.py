"""The Specs of a folder of one's own images: networks by name or in the paper's notation, their recipe."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from icstn.datasets import Dataset
from icstn.experiments.experiment import FOLDER
from icstn.experiments.spec import FolderSpec, SpecError
from icstn.networks import FC, Architecture, Layer, Stack, build, join, parse_stack
from icstn.warps import FAMILIES, family


class Network(NamedTuple):
    """A network by name, without the layers whose units follow from warp and classes.

    Attributes:
        predictor: layers of the geometric predictor but the last.
        classifier: of the classification network behind it, but the last.
        alone: of the network without a transformer, but the last.
        std_classifier, std_predictor: of the initial weights.
    """

    predictor: str
    classifier: str
    alone: str
    std_classifier: float
    std_predictor: float


#: The paper's networks for digits (Table 2, block (a)) and for traffic signs (Table 3). At the paper's sizes,
#: 28 and 36 pixels, those with and without a transformer have about the same capacity.
NETWORKS: dict[str, Network] = {
    "small": Network(
        "conv(7×7,4)-conv(7×7,8)-P-FC(48)",
        "conv(9×9,3)",
        "conv(3×3,3)-conv(3×3,6)-P-conv(3×3,9)-conv(3×3,12)-FC(48)",
        0.1,
        0.1,
    ),
    "medium": Network(
        "conv(7×7,6)-conv(7×7,24)",
        "conv(7×7,6)-conv(7×7,12)-P",
        "conv(7×7,6)-conv(7×7,12)-P-conv(7×7,24)-FC(200)",
        0.01,
        0.001,
    ),
}

#: σ as a share of the image's width where none is given: the paper's 3.5 of 28 pixels.
SHARE = 0.125

#: Warp operations where none are given.
OPERATIONS = 4

#: Draws of the test perturbations for each test image, where there are perturbations.
TEST_DRAWS = 4

#: Fields that nobody sets.
FOLLOWS = frozenset({"experiment", "model", "architecture", "fingerprint", "size", "gray"})

_RECIPE: dict[str, Any] = {
    "experiment": FOLDER,
    "preset": "quick",
    "tested_on": "validation",
    "side": "template",
    "iterations": 2000,
    "batch": 100,
    "optimizer": "adam",
    "schedule": "cosine",
    "rate_classifier": 2e-3,
    "rate_predictor": 2e-4,
    "restarts": 3,
    "seed": 0,
    "warp": "homography",
}


def folder_specs(
    images: Dataset,
    network: str = "small",
    *,
    sigma: float | None = None,
    operations: int | None = None,
    **changes: Any,
) -> tuple[FolderSpec, FolderSpec]:
    """Two runs on a folder of images: without a transformer, and with an IC-STN.

    Args:
        images: all of them, from :func:`icstn.datasets.image_folder`.
        network: a name of :data:`NETWORKS`, or the notation of :mod:`icstn.networks`: predictor and
            classifier (the run without a transformer has that classifier alone), or a classifier (the
            predictor is then the small network's). The last layers are FC(parameters of the warp) and
            FC(number of classes).
        sigma: standard deviation in pixels of the corner noise that images are subjected to, anew at each
            look; 0.125 of their width by default, 0 to take them as they are.
        operations: warp operations, 4 by default or as the notation says.
        **changes: further fields of :class:`FolderSpec`, such as ``iterations``, ``seed`` or ``warp``.

    Raises:
        NotationError: the notation is malformed.
        SpecError: the network does not fit images, classes or warp, or a field is unknown or out of range.
    """
    fields = _RECIPE | _of(images, sigma) | _begin(network) | changes
    if unknown := changes.keys() - FolderSpec.__dataclass_fields__.keys():
        raise SpecError(f"a spec has no field {', '.join(sorted(unknown))}")
    if fixed := changes.keys() & FOLLOWS:
        raise SpecError(
            f"{', '.join(sorted(fixed))} can't be set: it follows from the images and the network"
        )
    if fields["warp"] not in FAMILIES:
        raise SpecError(f"unknown warp {fields['warp']!r}: choose from {', '.join(FAMILIES)}")
    if operations is not None and operations < 1:
        raise SpecError(f"an IC-STN has at least 1 warp operation, not {operations}")
    alone, whole = networks_of(network, len(images.classes), family(fields["warp"]).dim, operations)
    for stack in (alone, whole.predictor, whole.classifier):
        _check(stack, images)
    plain = FolderSpec.from_dict({**fields, "model": "CNN", "architecture": join(alone)})
    return plain, replace(plain, model=f"IC-STN-{whole.warps}", architecture=str(whole))


def networks_of(
    network: str, classes: int, parameters: int, operations: int | None = None
) -> tuple[Stack, Architecture]:
    """The network without a transformer, and the one with it.

    Args:
        network: a name of :data:`NETWORKS`, or the notation.
        classes: units of the last layer.
        parameters: of the warp, units of the predictor's last layer.
        operations: warp operations, if not 4 or the notation's.

    Raises:
        NotationError: the notation is malformed.
        SpecError: its last layers have other units, or it says another number of warp operations.
    """
    named = NETWORKS.get(network, NETWORKS["small"])
    predictor = (*parse_stack(named.predictor), FC(parameters))
    n = OPERATIONS if operations is None else operations
    if network in NETWORKS:
        classifier, alone = ((*parse_stack(s), FC(classes)) for s in (named.classifier, named.alone))
        return alone, Architecture(predictor, n, classifier)
    given = _parsed(network)
    if given.warps and operations not in (None, given.warps):
        raise SpecError(f"the network has ×{given.warps}, and {operations} operations are asked for: say one")
    if given.warps:
        _ends_in(
            given.predictor, parameters, f"the geometric predictor of a warp with {parameters} parameters"
        )
    _ends_in(given.classifier, classes, f"a network for {classes} classes")
    return given.classifier, given if given.warps else Architecture(predictor, n, given.classifier)


def _of(images: Dataset, sigma: float | None) -> dict[str, Any]:
    """The fields that say what the images are, and how far they are moved."""
    _, channels, _, size = images.images.shape
    sigma = SHARE * size if sigma is None else float(sigma)
    facts = {"fingerprint": images.fingerprint, "size": size, "gray": channels == 1}
    return facts | {"sigma": sigma, "test_draws": TEST_DRAWS if sigma else 1}


def _begin(network: str) -> dict[str, float]:
    """Sizes of the initial weights.

    A predictor whose last layer looks at a whole map of features (or a picture) must begin with small ones:
    a step of Adam moves all its inputs' weights at once.
    """
    if named := NETWORKS.get(network):
        return {"std_classifier": named.std_classifier, "std_predictor": named.std_predictor}
    behind = _parsed(network).predictor[-2:-1]
    wide = bool(behind) and not isinstance(behind[0], FC)
    return {"std_classifier": 0.1, "std_predictor": 0.001 if wide else 0.1}


def _parsed(network: str) -> Architecture:
    if network.isidentifier():
        names = ", ".join(NETWORKS)
        raise SpecError(f"unknown network {network!r}: choose {names}, or write 'conv(7x7,6)-P-FC(10)'")
    return Architecture.parse(network)


def _ends_in(stack: Stack, units: int, what: str) -> None:
    last: Layer | None = stack[-1] if stack else None
    if last != FC(units):
        raise SpecError(f"{what} ends in FC({units}), not in {last or 'nothing'}")


def _check(stack: Stack, images: Dataset) -> None:
    _, channels, height, width = images.images.shape
    try:
        build(stack, channels, height, width)
    except ValueError as error:
        raise SpecError(
            f"the network {join(stack)} is not for images of {height}×{width}: {error}"
        ) from error
