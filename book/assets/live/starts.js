// Where a method starts, and where it ends when nothing is displaced.

import { align } from "./methods.js";
import { compose, fit, identity, CORNERS } from "./warps.js";

/**
 * Where the method leaves the undisturbed picture: the truth, for all that
 * know a template.
 */
export function rest(method, problem, n) {
  const zero = identity(problem.family);
  return problem.measure === "corners" || !method.predictors
    ? zero
    : align(method, problem, zero, n).at(-1).p;
}

/** The warp p with its center at (x, y) pixels from the true one. */
export function moved(family, frame, p, x, y) {
  const shift = identity(family),
    to = [(2 * x) / frame.width, (2 * y) / frame.height],
    [tx, ty] = [2, 5];
  shift[tx] = to[0] - p[tx];
  shift[ty] = to[1] - p[ty];
  return compose(family, p, shift, "image");
}

/**
 * The paper's noise: each corner, and all of them together, moved by σ
 * pixels.
 */
export function perturbation(family, frame, sigma) {
  const normal = () =>
    Math.sqrt(-2 * Math.log(1 - Math.random())) *
    Math.cos(2 * Math.PI * Math.random());
  const scale = [(2 * sigma) / frame.width, (2 * sigma) / frame.height],
    shared = [normal(), normal()];
  return fit(
    family,
    CORNERS,
    CORNERS.map((x) =>
      x.map((v, axis) => v + scale[axis] * (normal() + shared[axis])),
    ),
  );
}
