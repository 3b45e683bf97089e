"""Classical methods on the trials of Table 1, a comparison that the paper does not make.

Each meets the photograph, the template and the test perturbations that the rows of Table 1 meet (they are
drawn from the same seed), and its error is measured alike: the RMS distance of the corners in template
pixels, averaged over all items. An item that a method itself flags as failed counts with the warp at which
it was given up; nothing is left out, so a few items that flew off can make up most of a mean. The median
stands beside it for that reason.

================  ====================================================================================
LK                the textbook form: forwards additive, Gauss-Newton, one scale, no blur
IC-LK             the same, inverse compositional
coarse-to-fine    second-order steps on a pyramid, inverse compositional ones at full size
SDM               :class:`icstn.classical.SupervisedDescent` on pixels, trained on the same noise
conditional-LK    :class:`icstn.classical.ConditionalLK`, trained likewise
best linear step  the floor under c-STN-1, on either side: :mod:`icstn.experiments.linear_step`
================  ====================================================================================

Those that learn see ``steps × samples`` perturbations, a new set for each stage, fewer than an IC-STN
of the same preset does.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from icstn.classical import Aligner, ConditionalLK, SupervisedDescent
from icstn.experiments.linear_step import best_linear_step, stepped
from icstn.experiments.planar import Planar
from icstn.experiments.provenance import gathered, now
from icstn.experiments.records import Record, Records
from icstn.experiments.spec import BaselineSpec
from icstn.experiments.task import Evaluation
from icstn.sampling import sample
from icstn.warps import Side

#: Items that are aligned at once; more would not fit into a processor's cache.
CHUNK = 64


class Found(NamedTuple):
    """What a method made of some perturbations.

    Attributes:
        warps: from the initial to the last, ``(steps + 1, items, k)``.
        status: a word for each item; what is not ``converged`` or ``finished`` has failed.
    """

    warps: Tensor
    status: list[str]


class Method(NamedTuple):
    """A method that has learned what it learns.

    Attributes:
        align: initial warps ``(items, k)`` → :class:`Found`.
        weights: what was learned.
    """

    align: Callable[[Tensor], Found]
    weights: dict[str, Tensor]


def run(
    spec: BaselineSpec,
    records: Records,
    task: Any,
    methods: Mapping[str, Callable[[BaselineSpec, Any], Method]] | None = None,
    test: Callable[[Method, Any], Evaluation] | None = None,
) -> Record:
    """Fit a method, test it on the trials of Table 1 unless told otherwise, and save its Record.

    Args:
        spec: the method.
        records: where its Record goes.
        task: the trials, of the kind that the methods expect.
        methods: how each method is made ready, :data:`METHODS` by default.
        test: measures a method, :func:`evaluate` by default.
    """
    facts = gathered(task.device) | {"seed": spec.seed, "started": now(), "data": task.data}
    before = time.monotonic()
    method = (methods or METHODS)[spec.model](spec, task)
    fitted = time.monotonic()
    metrics, outcomes, *_ = (test or evaluate)(method, task)
    facts |= {"training_seconds": fitted - before, "test_seconds": time.monotonic() - fitted}
    facts |= {"steps": spec.steps, "draws": spec.steps * spec.samples, "restarts": 0}
    weights = {name: w.detach().cpu() for name, w in method.weights.items()}
    facts["finished"] = now()
    curve: dict[str, list[float]] = {"step": [], "loss": [], "error": []}
    record = Record(spec, "finished", metrics, curve, facts, weights, outcomes)
    records.save(record)
    return record


@torch.no_grad()
def evaluate(method: Method, task: Planar) -> Evaluation:
    """As :meth:`icstn.experiments.planar.Planar.evaluate`, and how many items failed, and how.

    ``by_operations`` has an entry for each step or stage; that of a method with steps of several kinds
    (coarse to fine, second attempts) holds the first and the last warp only.
    """
    p = task.test_warps(task.spec.test_items or 10_000, 0)
    parts = [method.align(part) for part in p.split(CHUNK)]
    warps = torch.cat([found.warps for found in parts], 1)
    curve = [task.summary(w) for w in warps]
    status = Counter(word for found in parts for word in found.status)
    metrics = task.metrics(curve, len(curve) - 1) | {
        "test_items": len(p),
        "test_draws": 1,
        "failed": len(p) - status["converged"] - status["finished"],
        "status": dict(sorted(status.items())),
    }
    return Evaluation(metrics, task.pixels(warps[-1]).float()[None].cpu())


def template(task: Planar) -> Tensor:
    """T: the photograph at the true warp, ``(1, 1, height, width)``."""
    return sample(task.photograph, task.warp.identity(1, device=task.device), task.frame, task.warp)


def _plain(algorithm: str) -> Callable[[BaselineSpec, Planar], Method]:
    """Lucas-Kanade without any of what makes it reach further."""

    def prepare(spec: BaselineSpec, task: Planar) -> Method:
        settings: dict[str, Any] = {"algorithm": algorithm, "iterations": spec.steps}
        aligner = Aligner(
            template(task),
            task.warp,
            frame=task.frame,
            levels=1,
            blur=1,
            normalize=False,
            retry=False,
            **settings,
        )

        def align(p: Tensor) -> Found:
            found = aligner(task.photograph, p, trajectory=True)
            assert found.trajectory is not None
            rest = spec.steps + 1 - len(found.trajectory)  # all have stopped
            return Found(torch.cat((found.trajectory, found.p.expand(rest, -1, -1))), found.status)

        return Method(align, {})

    return prepare


def _coarse_to_fine(spec: BaselineSpec, task: Planar) -> Method:
    settings: dict[str, Any] = {"algorithm": ("ESM", "IC"), "blur": 3, "normalize": False}
    aligner = Aligner(template(task), task.warp, frame=task.frame, iterations=spec.steps, **settings)

    def align(p: Tensor) -> Found:
        found = aligner(task.photograph, p)
        return Found(torch.stack((p, found.p)), found.status)

    return Method(align, {})


def _supervised_descent(spec: BaselineSpec, task: Planar) -> Method:
    cascade = SupervisedDescent(task.frame, task.warp, **_learning(spec)).fit(task.photograph)
    weights = {f"{name}.{i}": w for i, r in enumerate(cascade.regressors_) for name, w in r._asdict().items()}
    return Method(_cascade(cascade, task), weights)


def _conditional_lk(spec: BaselineSpec, task: Planar) -> Method:
    cascade = ConditionalLK(task.frame, task.warp, **_learning(spec)).fit(task.photograph)
    return Method(_cascade(cascade, task), {"gradients": cascade.gradients_})


def _linear_step(spec: BaselineSpec, task: Planar) -> Method:
    w, side = best_linear_step(spec, task), cast(Side, spec.side)

    def align(p: Tensor) -> Found:
        return Found(torch.stack((p, stepped(task, w, p, side))), ["finished"] * len(p))

    return Method(align, {"step": w.float()})


def _learning(spec: BaselineSpec) -> dict[str, Any]:
    return {"sigma": spec.sigma, "stages": spec.steps, "samples": spec.samples, "seed": spec.seed}


def _cascade(cascade: SupervisedDescent | ConditionalLK, task: Planar) -> Callable[[Tensor], Found]:
    def align(p: Tensor) -> Found:
        found = cascade.align(task.photograph, p, trajectory=True)
        assert found.trajectory is not None
        flags = zip(found.singular.tolist(), found.left_image.tolist(), strict=True)
        words = ["singular" if bad else "left the image" if left else "finished" for bad, left in flags]
        return Found(found.trajectory, words)

    return align


#: How each method is made ready.
METHODS: dict[str, Callable[[BaselineSpec, Planar], Method]] = {
    "LK": _plain("FA"),
    "IC-LK": _plain("IC"),
    "coarse-to-fine": _coarse_to_fine,
    "SDM": _supervised_descent,
    "conditional-LK": _conditional_lk,
    "best linear step": _linear_step,
}
