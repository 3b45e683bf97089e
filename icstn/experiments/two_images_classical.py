"""Classical methods on the pairs of :mod:`icstn.experiments.two_images`.

Each gets the template, the image and the perturbed warp that the networks get, and its error is measured
alike. What a method itself gives up counts with the warp at which it did so; nothing is left out. All of them
compare up to gain and offset.

==================  ==================================================================================
coarse-to-fine      :class:`icstn.classical.Aligner` at its defaults
ECC                 OpenCV's ``findTransformECC``
multi-scale-ECC     OpenCV's ``findTransformECCMultiScale`` (OpenCV 5), with as many levels as
                    :data:`LEVELS`: its default of four would shrink the template to 4×4 pixels
==================  ==================================================================================

The size of ECC's Gaussian blur, :data:`BLUR`, and :data:`LEVELS` are those with the fewest failures on the
validation photographs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from icstn.classical import Aligner
from icstn.experiments import baselines
from icstn.experiments.baselines import Found, Method
from icstn.experiments.records import Record, Records
from icstn.experiments.spec import BaselineSpec
from icstn.experiments.task import Evaluation
from icstn.experiments.two_images import SIGMAS, TwoImages
from icstn.extras import package
from icstn.sampling import sample

#: Side of ECC's Gaussian in pixels; levels of its multi-scale form.
BLUR, LEVELS = 1, 2


def run(spec: BaselineSpec, records: Records, task: TwoImages) -> Record:
    """Test a method on the pairs, and save its Record."""
    return baselines.run(spec, records, task, METHODS, evaluate)


@torch.no_grad()
def evaluate(method: Method, task: TwoImages) -> Evaluation:
    """As :meth:`icstn.experiments.two_images.TwoImages.evaluate`, and how many items failed, and how."""
    trials, status = task.trials(), Counter[str]()
    truth, errors = task.truth(trials.pairs), []
    for sigma in SIGMAS:
        start = task.batch(trials.pairs, task.moved(sigma * trials.noise)).p.cpu()
        found = method.align(start)
        errors.append(torch.stack([task.pixels(w, truth) for w in found.warps]))
        status.update(found.status)
    tested = task.evaluation(torch.stack(errors, 1), 1)
    failed = sum(status.values()) - status["converged"]
    tested.metrics.update(failed=failed, status=dict(sorted(status.items())))
    return Evaluation(tested.metrics, tested.outcomes)


def template(task: TwoImages, reference: Tensor) -> Tensor:
    """T: the references at the identity, ``(n, 1, height, width)``."""
    return sample(reference, task.warp.identity(len(reference)), task.frame, task.warp)


def _coarse_to_fine(spec: BaselineSpec, task: TwoImages) -> Method:
    pairs = task.trials().pairs
    aligner = Aligner(template(task, pairs.reference), task.warp, frame=task.frame, iterations=spec.steps)

    def align(p: Tensor) -> Found:
        found = aligner(pairs.image, p)
        return Found(torch.stack((p, found.p)), found.status)

    return Method(align, {})


def _ecc(multiscale: bool) -> Callable[[BaselineSpec, TwoImages], Method]:
    def prepare(spec: BaselineSpec, task: TwoImages) -> Method:
        cv2: Any = package("classical", "cv2")
        if multiscale and not hasattr(cv2, "findTransformECCMultiScale"):
            raise ImportError("multi-scale ECC needs OpenCV 5: pip install 'opencv-python-headless>=5'")
        pairs = task.trials().pairs
        templates, images = (_bytes(x) for x in (template(task, pairs.reference), pairs.image))

        def one(i: int, start: np.ndarray) -> tuple[np.ndarray, str]:
            how = _multiscale if multiscale else _single
            try:
                return how(cv2, spec.steps, templates[i], images[i], start), "converged"
            except cv2.error:  # it says so when it fails
                return start, "failed"

        def align(p: Tensor) -> Found:
            m = task.frame.matrix(task.warp, p)
            starts = (m / m[:, 2:, 2:]).float().numpy()
            found = [one(i, start) for i, start in enumerate(starts)]
            matrices = torch.from_numpy(np.stack([matrix for matrix, _ in found])).double()
            return Found(
                torch.stack((p, task.frame.params(task.warp, matrices).float())), [w for _, w in found]
            )

        return Method(align, {})

    return prepare


def _single(cv2: Any, steps: int, template: Any, image: Any, start: np.ndarray) -> np.ndarray:
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, steps, 1e-6)
    motion, everywhere = cv2.MOTION_HOMOGRAPHY, None
    return cv2.findTransformECC(template, image, start.copy(), motion, stop, everywhere, BLUR)[1]


def _multiscale(cv2: Any, steps: int, template: Any, image: Any, start: np.ndarray) -> np.ndarray:
    how = cv2.ECCParameters()
    how.motionType, how.nlevels, how.gaussFiltSize = cv2.MOTION_HOMOGRAPHY, LEVELS, BLUR
    how.criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, steps, 1e-6)
    return cv2.findTransformECCMultiScale(template, image, start.copy(), how)[1]


def _bytes(images: Tensor) -> np.ndarray:
    """Of 8 bits, as OpenCV expects them, ``(n, height, width)``."""
    return (images[:, 0].clamp(0, 1) * 255).round().byte().numpy()


#: How each method is made ready.
METHODS: dict[str, Callable[[BaselineSpec, Any], Method]] = {
    "coarse-to-fine": _coarse_to_fine,
    "ECC": _ecc(False),
    "multi-scale-ECC": _ecc(True),
}
