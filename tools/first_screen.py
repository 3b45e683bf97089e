"""The book's first screen: a film of two alignments and one result, both from the published Records.

    python tools/first_screen.py OUT      write OUT/first_screen.md, which book/intro.md includes

The numbers and the pictures change when the networks are published anew.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import live
import stills
import torch
from torch import Tensor

from icstn.evidence.collection import Cell, Evidence
from icstn.evidence.estimates import coverage
from icstn.exhibits.films import Row, Track, film
from icstn.experiments import Model, Record, Records
from icstn.sampling import sample
from icstn.transformers import STN
from icstn.warps import family

#: The networks of the first screen, three of (almost) equally many weights for each scene.
FIRST = (
    ("digits", {"STN": "STN(b)", "c-STN": "c-STN-1(b)", "IC-STN": "IC-STN-4(b)"}),
    ("signs", {"STN": "STN", "c-STN": "c-STN-1", "IC-STN": "IC-STN-4"}),
)
FIRST_ALT = (
    "A displaced digit and a displaced traffic sign, aligned by three networks. STN and c-STN move each "
    "once, IC-STN moves it four times, each time closer to the middle and upright."
)
CAPTION = (
    "Two test images with the displacements that they have in Tables 2 and 3. Each network starts from the "
    "same box (outlined on the picture) and sees what is in it. In pixels: how far the digit or sign is from "
    "where that network leaves it when nothing is displaced. Δp: the update it predicts next, a bar for each "
    "warp parameter."
)


def write(out: Path, records: Records | None = None) -> list[Path]:
    """The page's part, and the live pages' stills; a file that would not change keeps its time."""
    records = records or Records(live.RECORDS)
    rows = [contrast(records, *names) for names in FIRST]
    page = live.write_file(out / "first_screen.md", first_screen(records, rows).encode())
    return [page, *stills.write(out, rows, records)]


def first_screen(records: Records, rows: Sequence[Row]) -> str:
    """The book's first film and its one result, as Markdown: both from the Records, whatever they hold."""
    html = film(rows, alt=FIRST_ALT, caption=CAPTION)
    return f"{sentence(records)}\n\n```{{raw}} html\n{html}\n```\n"


def sentence(records: Iterable[Record]) -> str:
    """The one result: two networks of one size, each over its seeds."""
    stn, icstn = Evidence(records).cells("table_2", ("STN(b)", "IC-STN-4(b)"))
    times = live.operations(icstn.runs[0].spec)
    assert stn.capacity == icstn.capacity, "the two networks of the first screen differ in size: say so there"
    return (
        f"On displaced MNIST digits a spatial transformer of {stn.capacity:,} weights is wrong about "
        f"**{_percent(stn)}**. As many weights, applied {times} times to the source image: "
        f"**{_percent(icstn)}** ({{doc}}`Table 2 <../figures/table_2>`; 95 % intervals; "
        f"{coverage(len(cell.runs) for cell in (stn, icstn))})."
    )


@torch.no_grad()
def contrast(records: Records, scene: str, models: dict[str, str]) -> Row:
    """The networks side by side on the test image whose fate under the first and the last differs most."""
    networks = {
        name: live.network(live.needed(records, live.TABLES[scene], model)) for name, model in models.items()
    }
    items = [follow(scene, i, networks) for i in range(len(live.items(scene)))]
    return max(items, key=lambda row: row.tracks[0].errors[-1] - row.tracks[-1].errors[-1])


def follow(scene: str, item: int, networks: dict[str, Model]) -> Row:
    """A film's row: each network's way from the perturbation that the test image has in its table."""
    about, frame, warp = live.items(scene)[item], live.frame_of(scene), family(live.WARPS[scene])
    raw, start = live.picture(scene, item), torch.tensor([about["p"]])
    image = live.prepared(scene, raw)
    tracks = []
    for name, model in networks.items():
        path, home = (list(model.align(image, p).warps) for p in (start, 0 * start))
        label = model.classifier(model.align(image, start).image).argmax(1)  # type: ignore[misc]
        error = distance(scene, image[0], torch.cat(path), home[-1])
        notes = [""] * (len(path) - 1) + [f"seen as {live.named(scene, int(label))}"]
        resampled = isinstance(model.transformer, STN)
        tracks.append(Track(name, torch.cat(path), updates(model, image, path), error, notes, resampled))
    name = live.named(scene, about["label"])
    return Row(f"digit {name}" if scene == "digits" else name, raw / 255, frame, warp, tracks)


def distance(scene: str, image: Tensor, p: Tensor, home: Tensor) -> list[float]:
    """Pixels from where the ink (or the sign's disc) ends when it is undisturbed, as measure.js has it."""
    frame, warp = live.frame_of(scene), family(live.WARPS[scene])
    y, x = (torch.arange(float(n)) for n in image.shape[-2:])
    points = frame.to_normalized(torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).view(-1, 2))
    weight = image[0].flatten() if scene == "digits" else (points.norm(dim=1) < 1).float()
    now, then = (warp.apply(warp.inverse(q), points) / frame.pixel for q in (p, home))
    return ((now - then).square().sum(-1) @ weight / weight.sum()).sqrt().tolist()


def updates(model: Model, image: Tensor, path: Sequence[Tensor]) -> Tensor:
    """What the network predicts at each step (of an STN: at its only one)."""
    own = model.transformer
    assert own is not None
    views = [sample(image, p, model.frame, model.warp) for p in path[:-1]]
    return torch.cat([own.update(step, view) for step, view in enumerate(views)])


def _percent(cell: Cell) -> str:
    """Mean error over the seeds, and its interval."""
    return f"{cell.error.value:.2f} % [{cell.error.low:.2f}, {cell.error.high:.2f}]"


if __name__ == "__main__":
    print(write(Path(sys.argv[1])))
