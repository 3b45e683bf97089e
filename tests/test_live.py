"""The live pages' JavaScript: in a real browser, on the same images, it computes what PyTorch computes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import live
import numpy as np
import pytest
import torch
from browser import launched, offline, served
from torch import Tensor

from icstn import datasets
from icstn.classical import Aligner, LinearRegressor, descend
from icstn.experiments import Record, Records
from icstn.perturb import perturbations
from icstn.sampling import Frame, sample
from icstn.warps import FAMILIES, Warp, corner_error, family

pytestmark = pytest.mark.unchecked

ROOT = Path(__file__).resolve().parent.parent
ASSETS = ROOT / "book" / "assets" / "live"
TOLERANCE = 1e-4
#: Cascades of linear regressors.
LEARNED = ("SDM", "conditional-LK")
#: Steps of Lucas-Kanade that are compared.
STEPS = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The modules, and beside them what the build writes."""
    at = tmp_path_factory.mktemp("live")
    shutil.copytree(ASSETS, at / "live")
    live.write(at / "live" / "data")
    (at / "empty.html").write_text("<!doctype html><html lang=en><title>empty</title>")
    return at


@pytest.fixture(scope="module")
def manifest(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "live" / "data" / "manifest.json").read_text())
    return content


@pytest.fixture(scope="module")
def page(folder: Path) -> Iterator[Any]:
    """An empty page beside the modules, without a network."""
    with served(folder) as address, launched() as chromium:
        context = chromium.new_context()
        offline(context, address)
        context.set_default_timeout(120_000)
        page = context.new_page()
        page.goto(address + "empty.html")
        yield page
        context.close()


class Problem(NamedTuple):
    """A scene as PyTorch has it."""

    images: Tensor
    p: Tensor
    frame: Frame
    warp: Warp


def problem(scene: str) -> Problem:
    """The pictures and the starting warps that both sides get."""
    if scene == "photograph":
        made = datasets.planar_scene("chelsea", gray=True)
        crop = sample(made.image, torch.zeros(1, 6), made.frame, "affine")
        p = perturbations(8, live.SIGMA, made.frame, "affine", generator=torch.Generator().manual_seed(1))
        return Problem(
            ((made.image - crop.mean()) / crop.std()).expand(8, -1, -1, -1), p, made.frame, family("affine")
        )
    about = json.loads((live.PICTURES / "pictures.json").read_text())[scene]
    shape = (1, 28, 28) if scene == "digits" else (3, 50, 50)
    raw = torch.frombuffer(bytearray((live.PICTURES / f"{scene}.bin").read_bytes()), dtype=torch.uint8)
    x = raw.view(-1, *shape).float()
    if scene == "digits":
        x = x / 255
    else:
        std, mean = torch.std_mean(x, (1, 2, 3), keepdim=True, correction=0)
        x = (x - mean) / std.clamp_min(1)
    return Problem(x, torch.tensor([item["p"] for item in about]), live.frame_of(scene), family("homography"))


RUN = """async ([scene, name, starts, n]) => {
    const { open } = await import("./live/store.js");
    const { align, classify } = await import("./live/methods.js");
    const store = await open(), made = await store.scene(scene), method = await store.method(scene, name);
    const { sample } = await import("./live/ops.js"), warps = await import("./live/warps.js");
    const one = (p, i) => {
        const image = made.image(made.raw(made.items.length > 1 ? i : 0));
        const identity = warps.matrix(made.family, p.map(() => 0));
        const problem = { ...made, image, template: sample(image, identity, made.frame) };
        const states = align(method, problem, p, n), last = states.at(-1);
        return {
            p: states.map((s) => [...s.p]), view: [...last.view.data],
            labels: method.classifier?.length ? classify(method, last.view) : [],
        };
    };
    return starts.map(one);
}"""


def in_browser(page: Any, scene: str, name: str, starts: Tensor, n: int) -> list[dict[str, Any]]:
    """Each start's warps, last view and label probabilities."""
    found: list[dict[str, Any]] = page.evaluate(RUN, [scene, name, starts.double().tolist(), n])
    return found


def shown() -> list[tuple[str, str]]:
    """Scene and name of every network and regressor of the live pages."""
    return [(about["scene"], name) for name, about, _ in live.published(Records(live.RECORDS))]


def record_of(manifest: dict[str, Any], scene: str, name: str) -> Record:
    key = manifest["methods"][scene][name]["record"]
    return next(record for record in Records(live.RECORDS) if record.spec.key == key)


@pytest.mark.browser
@pytest.mark.parametrize(("scene", "name"), [pair for pair in shown() if pair[1] not in LEARNED])
def test_networks_compute_what_pytorch_computes(
    scene: str, name: str, page: Any, manifest: dict[str, Any]
) -> None:
    given, about = problem(scene), manifest["methods"][scene][name]
    model, n = live.network(record_of(manifest, scene, name)), about["operations"]
    model.frame = model.transformer.frame = given.frame  # type: ignore[union-attr]
    with torch.no_grad():
        wanted = model.align(given.images, given.p)
        labels = torch.softmax(model.classifier(wanted.image), 1) if model.classifier else None
    found = in_browser(page, scene, name, given.p, n)
    warps = torch.tensor([item["p"] for item in found]).transpose(0, 1)
    assert warps.shape[0] == n + 1
    assert (warps - torch.stack(list(wanted.warps))).abs().max() < TOLERANCE
    views = torch.tensor([item["view"] for item in found])
    assert (views - wanted.image.flatten(1)).abs().max() < 10 * TOLERANCE  # a steep pixel, a warp off by 1e-5
    if labels is not None:
        assert (torch.tensor([item["labels"] for item in found]) - labels).abs().max() < TOLERANCE


@pytest.mark.browser
@pytest.mark.parametrize("name", LEARNED)
def test_learned_regressors_compute_what_pytorch_computes(
    name: str, page: Any, manifest: dict[str, Any]
) -> None:
    given, record = problem("photograph"), record_of(manifest, "photograph", name)
    w = record.weights
    if name == "SDM":
        regressors = [LinearRegressor(w[f"R.{i}"], w[f"b.{i}"]) for i in range(6)]
    else:
        template = sample(given.images[:1], torch.zeros(1, 6), given.frame, given.warp).flatten()
        grid = given.frame.grid()
        J = torch.einsum("scyxi,yxik->scyxk", w["gradients"], given.warp.jacobian(grid).view(50, 50, 2, 6))
        R = torch.linalg.pinv(J.double().flatten(1, 3)).float()
        regressors = [LinearRegressor(r, -r @ template) for r in R]
    path = descend(regressors, given.images, given.p, given.frame, given.warp, trajectory=True).trajectory
    found = in_browser(page, "photograph", name, given.p, 6)
    assert path is not None
    assert (torch.tensor([item["p"] for item in found]).transpose(0, 1) - path).abs().max() < TOLERANCE


@pytest.mark.browser
@pytest.mark.parametrize("scene", ["photograph", "digits", "signs"])
@pytest.mark.parametrize(("name", "algorithm"), [("LK", "FA"), ("IC-LK", "IC")])
def test_lucas_kanade_computes_what_the_library_computes(
    name: str, algorithm: str, scene: str, page: Any
) -> None:
    given = problem(scene)
    p = 0.1 * given.p.double()  # far off, single steps are wild, and rounding grows with each of them
    found = in_browser(page, scene, name, p, STEPS)
    for i, item in enumerate(found):
        image = given.images[i : i + 1].double()
        template = sample(image, torch.zeros_like(p[:1]), given.frame, given.warp)
        settings: dict[str, Any] = {"levels": 1, "blur": 1, "tol": 0, "min_overlap": 0}
        settings |= {"retry": False, "normalize": False}
        aligner = Aligner(
            template, given.warp, frame=given.frame, algorithm=algorithm, iterations=STEPS, **settings
        )
        path = aligner(image, p[i : i + 1], trajectory=True).trajectory
        assert path is not None
        assert len(item["p"]) == STEPS + 1
        difference = torch.tensor(item["p"], dtype=torch.float64)[: len(path)] - path[:, 0]
        assert difference.abs().max() < TOLERANCE, i
        if scene == "photograph":  # a digit can be flat along some warp
            assert corner_error(given.warp, path[-1]) / given.frame.pixel < 0.1, i


ALGEBRA = """async ([name, p, q, points, to]) => {
    const w = await import("./live/warps.js");
    const composed = (side) => [...w.compose(name, p, q, side)];
    return {
        compose: { image: composed("image"), template: composed("template") },
        inverse: [...w.inverse(name, p)],
        apply: points.map((x) => w.apply(w.matrix(name, p), x)),
        jacobian: points.map((x) => w.jacobian(name, p, x)),
        fit: [...w.fit(name, points, to)],
        error: w.cornerError(name, p, q, 30),
    };
}"""


@pytest.mark.browser
@pytest.mark.parametrize("name", FAMILIES)
def test_warps_are_those_of_the_library(name: str, page: Any, generator: torch.Generator) -> None:
    warp = family(name)
    p, q = 0.2 * torch.randn(2, warp.dim, generator=generator, dtype=torch.float64)
    points, to = torch.randn(2, 6, 2, generator=generator, dtype=torch.float64)
    found = page.evaluate(ALGEBRA, [name, *(t.tolist() for t in (p, q, points, to))])
    wanted = {
        "inverse": warp.inverse(p),
        "apply": warp.apply(p, points),
        "jacobian": warp.jacobian(points, p),
        "fit": warp.fit(points, to),
        "error": corner_error(warp, p, q) * 15,
    }
    for key, value in wanted.items():
        assert np.asarray(found[key]) == pytest.approx(value.numpy(), abs=1e-9), key
    for side in ("image", "template"):
        assert found["compose"][side] == pytest.approx(warp.compose(p, q, side=side).numpy(), abs=1e-9)  # type: ignore[arg-type]


LAYERS = """async ([layers, image]) => {
    const { forward } = await import("./live/ops.js");
    return [...forward(layers, { ...image, data: Float32Array.from(image.data) })];
}"""


@pytest.mark.browser
def test_layers_are_those_of_pytorch(page: Any, generator: torch.Generator) -> None:
    """A stack with an odd size before the pooling and a kernel that is not square."""
    x = torch.randn(1, 3, 12, 11, generator=generator)
    conv, last = torch.nn.Conv2d(3, 5, (3, 2)), torch.nn.Linear(5 * 5 * 5, 4)
    stack = torch.nn.Sequential(conv, torch.nn.MaxPool2d(2), torch.nn.ReLU(), torch.nn.Flatten(), last)
    flat = [{"weight": m.weight.flatten().tolist(), "bias": m.bias.tolist()} for m in (conv, last)]
    layers = [
        {"type": "conv", "kernel": [3, 2], "filters": 5, **flat[0]},
        {"type": "pool"},
        {"type": "relu"},
        {"type": "linear", "units": 4, **flat[1]},
    ]
    image = {"channels": 3, "height": 12, "width": 11, "data": x.flatten().tolist()}
    found = page.evaluate(LAYERS, [layers, image])
    with torch.no_grad():
        assert found == pytest.approx(stack(x)[0].tolist(), abs=1e-5)
