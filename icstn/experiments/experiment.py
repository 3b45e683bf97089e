"""The experiments: what differs between them, one value each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from icstn.experiments import paper

Kind = Literal["planar", "classification", "pairs"]

#: Classical methods that stand beside Table 1, and what each does, in a word.
BASELINES: dict[str, str] = {
    "LK": "forwards additive, Gauss-Newton",
    "IC-LK": "inverse compositional, Gauss-Newton",
    "coarse-to-fine": "second-order steps on an image pyramid, IC on the finest level",
    "SDM": "a cascade of linear regressors on pixels",
    "conditional-LK": "a cascade of one gradient a pixel",
    "best linear step": "what c-STN-1 can at most reach, in closed form",
}


#: Networks that stand beside Table 1, and what each is.
CASCADES: dict[str, str] = {
    "c-STN-4": "four linear predictors in a row, learned together",
    "c-STN-6": "six linear predictors in a row, learned together",
    "RNN-4": "an ordinary recurrent network of an IC-STN's size, which sees the first crop at each step",
}


#: Plain networks that stand beside Table 2, and their architectures.
TOLERANT: dict[str, str] = {
    "CNN-undistorted": paper.TABLE_2["CNN(a)"].architecture,
    "CNN-unpooled": "conv(3×3,3)-conv(3×3,6)-conv(3×3,9)-conv(3×3,2)-FC(48)-FC(10)",
    "CNN-4x": "conv(3×3,6)-conv(3×3,12)-P-conv(3×3,18)-conv(3×3,24)-FC(96)-FC(10)",
    "CNN-16x": "conv(3×3,12)-conv(3×3,24)-P-conv(3×3,36)-conv(3×3,48)-FC(192)-FC(10)",
}

#: Those that align pairs of images, beside the networks of ``two_images``.
PAIR_BASELINES: dict[str, str] = {
    "coarse-to-fine": "second-order steps on an image pyramid, IC on the finest level",
    "ECC": "OpenCV's enhanced correlation coefficient, one scale",
    "multi-scale-ECC": "the same on an image pyramid",
}

_PAIRED = "FC(96)-FC(8)"


@dataclass(frozen=True)
class Experiment:
    """One experiment.

    Attributes:
        name: identifier, such as ``table_2``.
        title: for people, such as ``Table 2, MNIST``.
        kind: what is tested: alignment of one photograph (``planar``), of ``pairs``, or ``classification``.
        unit, digits: of its test error, and how many decimals are printed.
        sigmas: sizes of the perturbation in pixels; more than one makes them columns. Of pairs the largest,
            below which networks are trained, and methods tested, at several.
        rows: model → architecture in the notation of :mod:`icstn.networks`, or a method in words.
        printed: the paper's test errors by model and σ; empty where the paper has none.
        data: the photograph, ``mnist``, ``gtsrb``, or ``photographs`` for several.
        trials: name of the experiment whose test perturbations it meets.
        fields: fields of its Specs, whatever the preset.
        classical: whether its rows are classical methods, which a :class:`BaselineSpec` describes.
    """

    name: str
    title: str
    kind: Kind
    unit: str
    digits: int
    sigmas: tuple[float, ...]
    rows: Mapping[str, str]
    printed: Mapping[tuple[str, float], float]
    data: str
    trials: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    classical: bool = False

    @property
    def by_sigma(self) -> bool:
        """Whether a cell is a model at one of several σ."""
        return len(self.sigmas) > 1


def _planar(model: str) -> str:
    return f"[FC(6)]×{model.rsplit('-', 1)[1]}"


def _classification(
    name: str, title: str, table: Mapping[str, paper.PrintedRow], data: str, fields: Mapping[str, Any]
) -> Experiment:
    sigma = 3.5
    return Experiment(
        name=name,
        title=title,
        kind="classification",
        unit="%",
        digits=2,
        sigmas=(sigma,),
        rows={model: row.architecture for model, row in table.items()},
        printed={(model, sigma): row.error for model, row in table.items()},
        data=data,
        trials=name,
        fields={"warp": "homography", **fields},
    )


def _photograph(
    name: str,
    title: str,
    rows: Mapping[str, str],
    printed: Mapping[tuple[str, float], float] | None = None,
    *,
    classical: bool = False,
) -> Experiment:
    """Networks or classical methods on the trials of Table 1."""
    return Experiment(
        name=name,
        title=title,
        kind="planar",
        unit="px",
        digits=3,
        sigmas=paper.SIGMAS,
        rows=rows,
        printed=printed or {},
        data="chelsea",
        trials="table_1",
        fields={"warp": "affine", "image": "chelsea"} | ({} if classical else {"std_predictor": 0.0}),
        classical=classical,
    )


def _pairs(name: str, title: str, rows: Mapping[str, str], fields: Mapping[str, Any] | None) -> Experiment:
    """Networks with further fields of their Specs, or classical methods."""
    return Experiment(
        name=name,
        title=title,
        kind="pairs",
        unit="px",
        digits=2,
        sigmas=(6.0,),
        rows=rows,
        printed={},
        data="photographs",
        trials="two_images",
        fields={"warp": "homography", **(fields or {})},
        classical=fields is None,
    )


#: What a run on a folder of one's own images has for an experiment; it stands in no table.
FOLDER = "folder"


def folder_experiment(name: str, sigma: float) -> Experiment:
    """A run on a folder of one's own images, as an experiment of its own.

    Args:
        name: of the images; equal names meet the same test perturbations.
        sigma: of its perturbation in pixels.
    """
    return Experiment(
        name=FOLDER,
        title=f"Images {name}",
        kind="classification",
        unit="%",
        digits=2,
        sigmas=(sigma,),
        rows={},
        printed={},
        data=name,
        trials=name,
    )


#: All experiments: the paper's tables in its order, classical methods on Table 1's trials, pairs of images.
EXPERIMENTS: dict[str, Experiment] = {
    e.name: e
    for e in (
        _photograph(
            "table_1",
            "Table 1, planar alignment",
            {model: _planar(model) for model in paper.TABLE_1},
            {
                (model, sigma): value
                for model, row in paper.TABLE_1.items()
                for sigma, value in zip(paper.SIGMAS, row, strict=True)
            },
        ),
        _classification(
            "table_2",
            "Table 2, MNIST",
            paper.TABLE_2,
            "mnist",
            {"std_classifier": 0.1, "std_predictor": 0.1},
        ),
        _classification(
            "table_3",
            "Table 3, traffic signs",
            paper.TABLE_3,
            "gtsrb",
            {"std_classifier": 0.01, "std_predictor": 0.001},
        ),
        _photograph(
            "cascades",
            "Beside Table 1, separate predictors and a recurrent network",
            {model: _planar(model) for model in CASCADES},
        ),
        Experiment(
            name="tolerance",
            title="Beside Table 2, tolerance by pooling, distortions and size",
            kind="classification",
            unit="%",
            digits=2,
            sigmas=(3.5,),
            rows=TOLERANT,
            printed={},
            data="mnist",
            trials="table_2",
            fields={"warp": "homography", "std_predictor": 0.1},
        ),
        _photograph("baselines", "Beside Table 1, classical methods", BASELINES, classical=True),
        _pairs(
            "two_images",
            "Two images in",
            {
                "one-shot": f"[{_PAIRED}]×1",
                "IC-STN-2": f"[{_PAIRED}]×2",
                "IC-STN-4": f"[{_PAIRED}]×4",
                "c-STN-4": f"[{_PAIRED}]×4",
            },
            {"std_predictor": 0.07, "supervision": "each"},
        ),
        _pairs("two_images_classical", "Two images in, classical methods", PAIR_BASELINES, None),
    )
}
