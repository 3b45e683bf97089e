"""Still pictures of the live pages, for readers without scripts: a start, and where methods leave it.

Every chapter's small copy of the live page (``<icstn-live compact scene=…>``) has its scene's still inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import live
import torch

from icstn.classical import Aligner, descend
from icstn.exhibits.films import Row, still, track
from icstn.experiments import Records, cells
from icstn.sampling import sample
from icstn.warps import affine

#: The start on the photograph, as live.js has it, and the steps that Lucas-Kanade takes.
START, STEPS = (0.12, -0.12, 0.2, 0.1, -0.06, -0.1), 30


def write(out: Path, rows: Sequence[Row], records: Records) -> list[Path]:
    """``still.png`` of all rows given, and one for each scene.

    Args:
        out: the folder.
        rows: of the digits and of the signs, in that order.
        records: where the photograph's methods come from.
    """
    pictures = {"still": rows, "still-digits": rows[:1], "still-signs": rows[1:]}
    pictures["still-photograph"] = [photograph(records)]
    return [live.write_file(out / f"{name}.png", still(shown)) for name, shown in pictures.items()]


@torch.no_grad()
def photograph(records: Records) -> Row:
    """IC-LK, SDM and IC-STN-4 from the live page's start."""
    frame, image, start = live.frame_of("photograph"), live.photograph(), torch.tensor([START])
    truth = affine.identity(1)
    template = sample(image, truth, frame, affine)
    specs = [
        next(s for s in cells(name, "full", models=[model]) if s.sigma == live.SIGMA)
        for name, model in (("baselines", "SDM"), ("table_1", "IC-STN-4"))
    ]
    sdm, icstn = (live.needed_cell(records, spec) for spec in specs)
    plain = Aligner(
        template, affine, frame=frame, algorithm="IC", iterations=STEPS, levels=1, blur=1, normalize=False,
        retry=False,
    )  # fmt: skip
    ends = {
        "IC-LK": plain(image, start).p,
        "SDM": descend(live.regressors(sdm), image, start, frame, affine).p,
        "IC-STN-4": live.network(icstn).align(image, start).warps[-1],
    }
    where = (frame, affine, truth[0])
    tracks = [track(name, torch.cat((start, end)), where) for name, end in ends.items()]
    return Row("photograph", live.scene_image(), frame, affine, tracks, truth[0])
