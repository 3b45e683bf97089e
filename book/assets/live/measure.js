// How far an alignment is from where it should be, in template pixels.

import { CORNERS, apply, inverse, matrix } from "./warps.js";

/** Below this many pixels a method has come home. */
export const HOME = { photograph: 1, digits: 2, signs: 2 };

/**
 * A function of p. On the photograph the truth is known: the root mean square distance of the box's corners
 * from it. A digit or a sign has no true box, only the place where a network that sees it undisturbed puts it:
 * the root mean square distance from there, in the template, of the picture's ink (or of a sign's disc).
 */
export function distance({ family, frame, image, measure }, rest) {
  if (measure === "corners")
    return (p) =>
      rootMeanSquare(
        CORNERS.map((x) =>
          apart(
            apply(matrix(family, p), x),
            apply(matrix(family, rest), x),
            frame,
          ),
        ),
        null,
      );
  const { points, weights } = matter(image, frame, measure);
  const home = landing(family, rest, points);
  return (p) => {
    const now = landing(family, p, points);
    return rootMeanSquare(
      now.map((x, i) => apart(x, home[i], frame)),
      weights,
    );
  };
}

/**
 * The picture's points in normalized coordinates, and how much each of
 * them counts.
 */
function matter({ height, width, data }, { center, halfExtent }, measure) {
  const points = [],
    weights = [];
  for (let i = 0; i < height * width; i++) {
    const x = [
      ((i % width) - center[0]) / halfExtent[0],
      (Math.floor(i / width) - center[1]) / halfExtent[1],
    ];
    const weight =
      measure === "ink" ? data[i] : Number(Math.hypot(...x) < 1);
    if (weight > 0) {
      points.push(x);
      weights.push(weight);
    }
  }
  return { points, weights };
}

/** Where points of the image lie in the template. */
function landing(family, p, points) {
  const m = matrix(family, inverse(family, p));
  return points.map((x) => apply(m, x));
}

const apart = (a, b, { width, height }) =>
  (((a[0] - b[0]) * width) / 2) ** 2 + (((a[1] - b[1]) * height) / 2) ** 2;

function rootMeanSquare(squares, weights) {
  const total = weights
    ? weights.reduce((a, b) => a + b, 0)
    : squares.length;
  return Math.sqrt(
    squares.reduce((sum, s, i) => sum + s * (weights ? weights[i] : 1), 0) /
      total,
  );
}
