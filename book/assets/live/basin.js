// A worker: which starting points get home. Each start is the box as it is, moved by (x, y) pixels.

import { align } from "./methods.js";
import { distance } from "./measure.js";
import { moved, rest } from "./starts.js";

onmessage = ({ data: { job, problem, method, p, n, reach, cells } }) => {
  const { family, frame } = problem,
    at = (i) => ((2 * i) / (cells - 1) - 1) * reach;
  const home = rest(method, problem, n),
    far = distance(problem, home);
  for (const row of middleOut(cells)) {
    const ends = Array.from({ length: cells }, (_, column) => {
      const states = align(
        method,
        problem,
        moved(family, frame, p, at(column), at(row)),
        n,
      );
      return states.length > 0 ? far(states.at(-1).p) : Infinity;
    });
    postMessage({ job, row, ends });
  }
  postMessage({ job, done: true });
};

/**
 * 0 … n − 1, from the middle outwards, so that the picture grows around
 * the truth.
 */
function middleOut(n) {
  const middle = (n - 1) / 2;
  return Array.from({ length: n }, (_, i) => i).sort(
    (a, b) => Math.abs(a - middle) - Math.abs(b - middle),
  );
}
