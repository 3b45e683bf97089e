"""The report of a fit on one's own images: one HTML file that reads offline, in light and in dark."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

import torch
from PIL import Image
from torch import Tensor

from icstn.evidence.fits import FitFindings
from icstn.exhibits.theme import DARK, LIGHT, Theme
from icstn.experiments.models import build_model
from icstn.experiments.records import Record
from icstn.experiments.spec import FolderSpec
from icstn.networks import capacity
from icstn.sampling import Frame

#: Most classes whose images are shown.
COLUMNS = 12


@dataclass(frozen=True)
class ReportFacts:
    """What a report says besides what was found.

    Attributes:
        title: of the page.
        classes: names of the classes by their numbers.
        files: of the held-out images, in their order.
        trained: number of images that were trained on.
        usage: lines of Python that load the network.
        command: what makes all this again.
    """

    title: str
    classes: Sequence[str]
    files: Sequence[str]
    trained: int
    usage: str
    command: str


def fit_report(found: FitFindings, records: Mapping[str, Record], facts: ReportFacts) -> str:
    """The page, as HTML; pictures are inside it, nothing is loaded from elsewhere.

    Args:
        found: what the runs show.
        records: model → its Record, without and with a transformer.
        facts: names and counts.
    """
    title = escape(facts.title)
    parts = [
        f"<h1>{title}</h1>",
        _data(records, facts),
        "<h2>Errors</h2>",
        _errors(found, records),
        f"<p class='verdict'>{escape(found.verdict)}{_difference(found)}</p>",
        "<h2>Training</h2>",
        _curves(records),
        _examples(found, facts),
        _classes(found, facts),
        _failures(found, facts),
        "<h2>Use it</h2>",
        f"<pre><code>{escape(facts.usage)}</code></pre>",
        f"<p>Made by</p><pre><code>{escape(facts.command)}</code></pre>",
    ]
    head = f"<meta charset='utf-8'><meta name='viewport' content='width=device-width'><title>{title}</title>"
    body = "\n".join(part for part in parts if part)
    top = f"<!doctype html>\n<html lang='en'><head>{head}<style>{_style()}</style></head>"
    return f"{top}\n<body>{body}</body></html>\n"


def _data(records: Mapping[str, Record], facts: ReportFacts) -> str:
    spec = next(iter(records.values())).spec
    assert isinstance(spec, FolderSpec)
    notes = {note for r in records.values() for note in r.provenance.get("data", {}).get("notes", ())}
    moved = "" if not spec.sigma else f" under {spec.test_draws} random displacements each"
    lines = [
        f"{len(facts.classes)} classes, {facts.trained} images to train on and {len(facts.files)} held out "
        f"(every sixth of each class), all {spec.size}×{spec.size} in {'gray' if spec.gray else 'color'}.",
        f"Images are displaced by σ = {spec.sigma:g} pixels (corners, and all together), anew at each "
        f"look; errors are those of the held-out images{moved}."
        if spec.sigma
        else "Images are taken as they are; errors are those of the held-out images.",
        *sorted(notes),
    ]
    return "".join(f"<p>{escape(line)}</p>" for line in lines)


def _errors(found: FitFindings, records: Mapping[str, Record]) -> str:
    rows = []
    for model, record in records.items():
        spec = record.spec
        assert isinstance(spec, FolderSpec)
        error = found.errors[model].show() if model in found.errors else f"diverged: {record.remark}"
        size = capacity(build_model(spec, Frame.full(spec.size, spec.size), 1 if spec.gray else 3))
        seconds = float(record.provenance.get("training_seconds", 0.0))
        said = "" if model not in found.errors else record.remark
        rows.append([model, error, f"{size:,}", spec.architecture, f"{seconds:.0f} s", said])
    head = ["network", "error in %, with its 95 % interval", "parameters", "architecture", "training", ""]
    return _table(head, rows)


def _difference(found: FitFindings) -> str:
    return "" if found.difference is None else f" (difference {escape(found.difference.show())})"


def _curves(records: Mapping[str, Record]) -> str:
    """Mean training error of each block, one line a network."""
    curves = {model: (r.curve["step"], r.curve["error"]) for model, r in records.items()}
    end = max(max(steps, default=1) for steps, _ in curves.values())
    top = max(max(errors, default=1.0) for _, errors in curves.values()) or 1.0
    lines = []
    for k, (steps, errors) in enumerate(curves.values()):
        points = " ".join(
            f"{600 * s / end:.1f},{160 * (1 - e / top):.1f}" for s, e in zip(steps, errors, strict=True)
        )
        marker = points.split()[-1].split(",") if points else ("0", "0")
        lines.append(f"<polyline class='c{k}' points='{points}'/>")
        lines.append(f"<circle class='c{k}' cx='{marker[0]}' cy='{marker[1]}' r='4'/>")
    words = "; ".join(
        f"{model} ends at {errors[-1]:.1f} %" for model, (_, errors) in curves.items() if errors
    )
    legend = " ".join(f"<span class='c{k}'>{escape(model)}</span>" for k, model in enumerate(curves))
    axes = f"<text x='2' y='12'>{top:.0f} %</text><text x='598' y='178' text-anchor='end'>step {end}</text>"
    return (
        f"<p>Error on the training images: {legend}</p><svg viewBox='0 0 600 182' role='img' "
        f"aria-label='Training error: {escape(words)}'><path d='M0 0V160H600'/>{''.join(lines)}{axes}</svg>"
    )


def _examples(found: FitFindings, facts: ReportFacts) -> str:
    if not found.examples:
        return ""
    chosen = range(min(COLUMNS, len(facts.classes)))
    [before, *between, after] = found.examples
    rows = {"before": before} | {f"step {k}": x for k, x in enumerate(between, 1)} | {"after": after}
    means = {"mean before": "initial", "mean after": next(m for m in found.appearance if m != "initial")}
    rows |= {label: found.appearance[key].mean.float() for label, key in means.items()}
    names = [facts.classes[c] for c in chosen]
    body = [
        [
            escape(label),
            *(_image(images[c], f"{name}, {label}") for c, name in zip(chosen, names, strict=True)),
        ]
        for label, images in rows.items()
    ]
    some = "" if len(facts.classes) <= COLUMNS else f" The first {COLUMNS} of {len(facts.classes)} classes."
    sharp = " to ".join(f"{found.appearance[key].sharpness:.4f}" for key in means.values())
    return (
        "<h2>Examples and means</h2><p>The first held-out image of each class, as the network moves it, and "
        f"the mean of all held-out images of the class.{some} Sharpness of the means: {sharp}.</p>"
        + _table(["", *names], body, raw=True)
    )


def _classes(found: FitFindings, facts: ReportFacts) -> str:
    rows = [
        [name, str(int(found.items[c])), *(f"{errors[c]:.1f}" for errors in found.by_class.values())]
        for c, name in enumerate(facts.classes)
    ]
    return "<h2>Class by class</h2>" + _table(
        ["class", "held out", *(f"{m}, error in %" for m in found.by_class)], rows
    )


def _failures(found: FitFindings, facts: ReportFacts) -> str:
    if not found.errors:
        return ""
    if not found.failures:
        return "<h2>What failed</h2><p>Nothing, or nothing that could be shown.</p>"
    rows = [
        [
            _image(found.failed[0][k], "before"),
            _image(found.failed[1][k], "after"),
            *(escape(facts.classes[c]) for c in (f.label, f.said)),
            f"{f.probability:.2f}",
            escape(facts.files[f.item]),
        ]
        for k, f in enumerate(found.failures)
    ]
    head = ["before", "after", "it is", "it was called", "how surely", "file"]
    lead = (
        "<h2>What failed</h2><p>Held-out images that the network with the transformer calls by another name, "
    )
    return f"{lead}those first of which it is surest.</p>" + _table(head, rows, raw=True)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]], raw: bool = False) -> str:
    """A table of texts, or of HTML in the body."""
    top = "".join(f"<th scope='col'>{escape(text)}</th>" for text in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{cell if raw else escape(cell)}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return f"<div class='wide'><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"


def _image(image: Tensor, alt: str) -> str:
    """An image ``(1 or 3, h, w)`` in [0, 1] as an HTML element."""
    pixels = (image.detach().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(file, "PNG", optimize=True)
    return (
        f"<img alt='{escape(alt)}' src='data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}'>"
    )


def _style() -> str:
    return (
        f":root{{color-scheme:light dark;{_colors(LIGHT)}}}"
        f"@media(prefers-color-scheme:dark){{:root{{{_colors(DARK)}}}}}"
        "body{background:var(--ground);color:var(--ink);font:16px/1.5 system-ui,sans-serif;max-width:60rem;"
        "margin:2rem auto;padding:0 1rem}h2{margin-top:2rem}.wide{overflow-x:auto}"
        "table{border-collapse:collapse}td,th{padding:.2rem .6rem;text-align:left;"
        "border-bottom:1px solid var(--grid)}img{width:72px;image-rendering:pixelated;display:block}"
        "pre{background:var(--surface);padding:.8rem;overflow-x:auto}.verdict{font-weight:600}"
        "svg{width:100%;max-width:40rem;overflow:visible}svg polyline,svg path{fill:none;stroke-width:2}"
        "svg path{stroke:var(--grid)}svg text{fill:var(--muted);font-size:12px}"
        "polyline.c0{stroke:var(--c0)}polyline.c1{stroke:var(--c1)}"
        "circle.c0{fill:var(--c0)}circle.c1{fill:var(--c1)}span.c0{color:var(--c0)}span.c1{color:var(--c1)}"
    )


def _colors(theme: Theme) -> str:
    named = {"ground": theme.background, "ink": theme.ink, "muted": theme.muted, "grid": theme.grid}
    named |= {"surface": theme.surface, "c0": theme.cycle[1], "c1": theme.cycle[4]}
    return "".join(f"--{name}:{color};" for name, color in named.items())
