"""What the book's live pages load: pictures, and the networks of the published Records as plain binary.

    python tools/live.py OUT                     write manifest, weights and films below the folder OUT
    python tools/live.py --pictures DATA         write book/assets/live/pictures anew from your data folder

The build runs the first (tools/book.py does so while it stages): weights come from figures/records whenever
the book is built, and the committed tree holds none of them. The second is run by hand, once: it takes a
handful of test images from MNIST and GTSRB (see book/data.md for whose they are), so that the book can be
built where there are no data.

Numbers are float32, little-endian, layer after layer in the order of the manifest (weights, then biases);
pictures are bytes, channel by channel and row by row.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from icstn import datasets
from icstn.classical import LinearRegressor, steepest_descent_images
from icstn.classical.linear_regressor import pseudo_inverse_regressor
from icstn.datasets.signs import SIGNS
from icstn.evidence.collection import median_run
from icstn.experiments import (
    BaselineSpec,
    DataOptions,
    Model,
    Record,
    Records,
    RunSpec,
    build_model,
    cells,
    make_task,
)
from icstn.networks import Architecture
from icstn.sampling import Frame, sample
from icstn.warps import affine

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "book" / "assets" / "live" / "pictures"
RECORDS = ROOT / "figures" / "records"
#: Presets from which a network may come, the best first.
PREFERRED = ("full", "paper", "quick")
#: Seeds that are looked for.
SEEDS = range(10)
#: Noise that the planar methods shown were trained with, in pixels.
SIGMA = 7.5
#: Classes of signs that are shown: those of Figure 10.
SIGN_CLASSES = (0, 1, 11, 12, 13, 14, 17, 18, 25, 33, 38, 40)

FRAMES = {"photograph": None, "digits": Frame.full(28, 28), "signs": Frame.crop(50, 50, 36, 36)}
WARPS = {"photograph": "affine", "digits": "homography", "signs": "homography"}
SCENES = {"table_1": "photograph", "baselines": "photograph", "table_2": "digits", "table_3": "signs"}
TABLES = {"digits": "table_2", "signs": "table_3"}
SHAPES = {"digits": (1, 28, 28), "signs": (3, 50, 50)}
CREDITS = {
    "photograph": "Chelsea: Stéfan van der Walt, CC0.",
    "digits": "Digits: MNIST's test set, Y. LeCun, C. Cortes and C. J. C. Burges, CC BY-SA 3.0.",
    "signs": "Signs: GTSRB's test set, J. Stallkamp, M. Schlipsing, J. Salmen and C. Igel.",
}


def write(out: Path, records: Records | None = None) -> list[Path]:
    """Manifest, pictures, weights and films below ``out``; a file that would not change keeps its time."""
    records = records or Records(RECORDS)
    shown = list(published(records))
    manifest: dict[str, Any] = {"scenes": scenes(), "methods": {name: {} for name in FRAMES}}
    for name, about, _ in shown:
        manifest["methods"][about["scene"]][name] = about
    files = {about["file"]: weights for _, about, weights in shown}
    files |= {f"{name}.bin": pictures(name) for name in FRAMES}
    files["manifest.json"] = _json(manifest)
    return [write_file(out / name, content) for name, content in files.items()]


def scenes() -> dict[str, dict[str, Any]]:
    """What there is to align: shape, frame and warp family of each scene, and its items."""
    return {
        "photograph": _scene("photograph", tuple(scene_image().shape), [{"label": None}]) | _light(),
        "digits": _scene("digits", SHAPES["digits"], items("digits")),
        "signs": _scene("signs", SHAPES["signs"], items("signs"))
        | {"standardize": True, "names": [sign.name for sign in SIGNS]},
    }


def pictures(scene: str) -> bytes:
    """The pictures of a scene, one after the other."""
    if scene == "photograph":
        return (scene_image() * 255).round().to(torch.uint8).numpy().tobytes()
    return (PICTURES / f"{scene}.bin").read_bytes()


def published(records: Records) -> Iterator[tuple[str, dict[str, Any], bytes]]:
    """Name, entry of the manifest and weights of each network and regressor that is shown."""
    for spec in (
        *cells("baselines", "full", models=["SDM", "conditional-LK"]),
        *(s for table in ("table_1", "table_2", "table_3") for s in cells(table, "full")),
    ):
        if spec.experiment in ("table_2", "table_3") or spec.sigma == SIGMA:
            record = find(records, spec)
            if record is not None and spec.kind != "CNN":
                yield (spec.model, *entry(record))


def find(records: Records, spec: RunSpec) -> Record | None:
    """The median seed's Record of that cell, of the best preset that there is."""
    for preset in PREFERRED:
        same = (s for s in cells(spec.experiment, preset, SEEDS, [spec.model]) if s.sigma == spec.sigma)
        found = [r for r in map(records.find, same) if r and r.status == "finished" and not r.stand_in]
        if found:
            return median_run(found)
    return None


def needed(records: Records, experiment: str, model: str) -> Record:
    """The published Record of a network.

    Raises:
        LookupError: there is none.
    """
    return needed_cell(records, cells(experiment, "full", models=[model])[0])


def needed_cell(records: Records, spec: RunSpec) -> Record:
    """The published Record of a cell.

    Raises:
        LookupError: there is none.
    """
    record = find(records, spec)
    if record is None:
        raise LookupError(
            f"figures/records has no finished {spec.model} of {spec.experiment}: train it first"
        )
    return record


def entry(record: Record) -> tuple[dict[str, Any], bytes]:
    """A network's entry of the manifest, and its weights."""
    spec = record.spec
    predictors, classifier = stacks(record)
    about = {
        "kind": spec.kind,
        "scene": SCENES[spec.experiment],
        "side": getattr(spec, "side", "template"),
        "invert": getattr(spec, "invert", False),
        "recurrent": spec.kind == "IC-STN",
        "operations": operations(spec),
        "error": record.test_error,
        "interval": record.metrics["interval"],
        "unit": record.metrics["unit"],
        "record": spec.key,
        "file": f"{spec.key}.bin",
        "predictors": [[_layer(m) for m in stack] for stack in predictors],
        "classifier": [_layer(m) for m in classifier],
    }
    tensors = [t for stack in (*predictors, classifier) for m in stack for t in m.parameters()]
    learned = record.weights.values() if isinstance(spec, BaselineSpec) else tensors
    about["weights"] = sum(t.numel() for t in learned)
    return about, b"".join(_bytes(t) for t in tensors)


def stacks(record: Record) -> tuple[list[list[nn.Module]], list[nn.Module]]:
    """The layers of each geometric predictor and of the classification network, with their weights."""
    if isinstance(record.spec, BaselineSpec):
        return [[_linear(r)] for r in regressors(record)], []
    model = network(record)
    own = model.transformer
    assert own is not None
    predictors = [own.predictor(i) for i in range(own.operations if record.spec.kind == "c-STN" else 1)]
    return [_layers(p) for p in predictors], _layers(model.classifier)


def regressors(record: Record) -> list[LinearRegressor]:
    """The cascade of a learned baseline; conditional Lucas-Kanade's follows from its gradients."""
    w, steps = record.weights, range(record.spec.steps)
    if "gradients" not in w:
        return [LinearRegressor(w[f"R.{i}"], w[f"b.{i}"]) for i in steps]
    template = sample(photograph(), affine.identity(1), frame_of("photograph"), affine)
    return [pseudo_inverse_regressor(steepest_descent_images(g, affine), template) for g in w["gradients"]]


def photograph() -> Tensor:
    """The photograph as planar methods see it, ``(1, 1, H, W)``: mean 0 and variance 1 in the template."""
    light, image = _light(), scene_image()[None]
    return (image - light["mean"]) / light["std"]


def scene_image() -> Tensor:
    """The photograph, ``(1, H, W)`` from 0 to 1."""
    return datasets.planar_scene("chelsea", gray=True).image[0]


def operations(spec: RunSpec) -> int:
    """How many times it warps as it was trained."""
    return spec.steps if isinstance(spec, BaselineSpec) else Architecture.parse(spec.architecture).warps


def frame_of(scene: str) -> Frame:
    """Where the template lies in the scene's pictures."""
    return FRAMES[scene] or datasets.planar_scene("chelsea", gray=True).frame


def network(record: Record) -> Model:
    """The Record's model with its weights."""
    name = SCENES[record.spec.experiment]
    model = build_model(record.spec, frame_of(name), 3 if name == "signs" else 1)
    model.load_state_dict(record.weights)
    return model.eval()


def picture(scene: str, item: int) -> Tensor:
    """A committed picture, ``(channels, H, W)`` from 0 to 255."""
    shape = SHAPES[scene]
    raw = torch.frombuffer(bytearray(pictures(scene)), dtype=torch.uint8)
    return raw.view(-1, *shape)[item].float()


def prepared(scene: str, raw: Tensor) -> Tensor:
    """What a network sees of it, ``(1, channels, H, W)``."""
    if scene == "digits":
        return raw[None] / 255
    std, mean = torch.std_mean(raw, correction=0)
    return ((raw - mean) / std.clamp_min(1))[None]


def take_pictures(folder: str) -> None:
    """The first test image of each class shown, and the perturbation that it has in its table."""
    chosen = {"digits": ("table_2", range(10)), "signs": ("table_3", SIGN_CLASSES)}
    about: dict[str, list[dict[str, Any]]] = {}
    for name, (experiment, classes) in chosen.items():
        task = make_task(cells(experiment, "full")[0], DataOptions(folder), "cpu")
        images, labels = task.test.images, task.test.labels  # type: ignore[attr-defined]
        index = [int((labels == label).nonzero()[0, 0]) for label in classes]
        warps = task.test_warps(len(labels), 0)[index].tolist()
        about[name] = [
            {"index": i, "label": label, "p": [round(v, 6) for v in p]}
            for i, label, p in zip(index, classes, warps, strict=True)
        ]
        write_file(PICTURES / f"{name}.bin", images[index].numpy().tobytes())
    write_file(PICTURES / "pictures.json", _json(about))


@cache
def items(scene: str) -> list[dict[str, Any]]:
    """The test images of a scene: index in the test set, label, and perturbation."""
    content: dict[str, list[dict[str, Any]]] = json.loads((PICTURES / "pictures.json").read_text("utf-8"))
    return content[scene]


def named(scene: str, label: int) -> str:
    """A class in words."""
    return SIGNS[label].name if scene == "signs" else str(label)


@cache
def _light() -> dict[str, float]:
    """Mean and standard deviation of the photograph's template."""
    crop = sample(scene_image()[None], affine.identity(1), frame_of("photograph"), affine)
    return {"mean": float(crop.mean()), "std": float(crop.std())}


def _scene(name: str, shape: tuple[int, ...], items: list[dict[str, Any]]) -> dict[str, Any]:
    frame = frame_of(name)
    place = {"height": frame.height, "width": frame.width, "center": frame.center}
    place["halfExtent"] = frame.half_extent
    sizes = dict(zip(("channels", "height", "width"), shape, strict=True))
    about = {"file": f"{name}.bin", **sizes, "frame": place, "family": WARPS[name], "items": items}
    return about | {"standardize": False, "credit": CREDITS[name]}


def _linear(regressor: LinearRegressor) -> nn.Linear:
    k, d = regressor.R.shape
    layer = nn.Linear(d, k)
    layer.load_state_dict({"weight": regressor.R, "bias": regressor.b})
    return layer


def _layers(stack: nn.Module | None) -> list[nn.Module]:
    return [] if stack is None else [m for m in stack.children() if not isinstance(m, nn.Flatten)]


def _layer(module: nn.Module) -> dict[str, Any]:
    """A layer as the JavaScript reads it."""
    if isinstance(module, nn.Conv2d):
        return {
            "type": "conv",
            "kernel": list(module.kernel_size),
            "channels": module.in_channels,
            "filters": module.out_channels,
        }
    if isinstance(module, nn.Linear):
        return {"type": "linear", "inputs": module.in_features, "units": module.out_features}
    if isinstance(module, nn.MaxPool2d):
        return {"type": "pool"}
    if isinstance(module, nn.ReLU):
        return {"type": "relu"}
    raise TypeError(
        f"the live pages have no layer {type(module).__name__}: add it to book/assets/live/ops.js"
    )


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().float().numpy().astype("<f4").tobytes()


def _json(content: Any) -> bytes:
    return (json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n").encode()


def write_file(path: Path, content: bytes) -> Path:
    """Write, unless that is what is there already."""
    if not (path.is_file() and path.read_bytes() == content):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return path


def main(argv: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", nargs="?", type=Path, help="folder for manifest, weights and films")
    parser.add_argument(
        "--pictures", metavar="DATA", help="write the committed pictures from that data folder"
    )
    options = parser.parse_args(argv)
    if options.pictures:
        take_pictures(options.pictures)
    if options.out:
        files = write(options.out)
        print(f"{len(files)} files, {sum(f.stat().st_size for f in files) / 1e6:.1f} MB, in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
