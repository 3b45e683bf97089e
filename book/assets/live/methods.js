// The methods, each a generator of states: where the warp is (p), what is seen through it (view), and the
// update that is predicted from that (dp). All of them align the same kind of problem,
//
//     {image, frame, family, template},
//
// where the template (needed by Lucas-Kanade alone) is the image at the true warp. Read them side by side:
// what differs between two methods is where the regressor comes from, how the update is applied, and what is
// sampled.

import { blank, forward, position, sample, whole } from "./ops.js";
import {
  compose,
  identity,
  inverse,
  jacobian,
  matrix,
  solve,
} from "./warps.js";

/** c-STN and IC-STN (Figs. 4 and 5): sample the source, predict, compose. */
function* compositional(
  { image, frame, family },
  p,
  { predictors, recurrent, side, invert },
) {
  for (let step = 0; ; step++) {
    const view = sample(image, matrix(family, p), frame);
    const layers = predictors[recurrent ? 0 : step];
    if (!layers) return yield { p, view };
    const dp = forward(layers, view);
    yield { p, view, dp };
    p = compose(family, p, invert ? inverse(family, dp) : dp, side);
  }
}

/** STN (Fig. 1): predict, and sample the *view*: what left it is lost. */
function* resampling(
  { image, frame, family },
  p,
  { predictors: [layers] },
) {
  let view = sample(image, matrix(family, p), frame);
  for (;;) {
    const dp = forward(layers, view);
    yield { p, view, dp };
    view = sample(
      view,
      matrix(family, dp),
      whole(frame.height, frame.width),
    );
    p = compose(family, p, dp, "template");
  }
}

/** Lucas-Kanade, eqs. (1) and (2): all of it anew at each step. */
function* lucasKanade({ image, frame, family, template }, p) {
  const slopes = gradient(image, frame);
  for (;;) {
    const m = matrix(family, p),
      view = sample(image, m, frame),
      seen = mask(image, m, frame);
    const slope = slopes.map((along) => sample(along, m, frame));
    const sd = steepestDescent(slope, family, frame, p),
      e = subtract(template, view);
    const dp = solve(
      hessian(sd, p.length, seen),
      project(sd, e, p.length, seen),
    );
    yield { p, view, dp };
    p = p.map((value, k) => value + dp[k]);
  }
}

/** IC-LK, eqs. (3) to (5): linearize the template instead, once. */
function* inverseCompositional({ image, frame, family, template }, p) {
  const k = p.length,
    slope = gradient(template, whole(frame.height, frame.width));
  const sd = steepestDescent(slope, family, frame),
    H = hessian(sd, k);
  for (;;) {
    const m = matrix(family, p),
      view = sample(image, m, frame),
      seen = mask(image, m, frame);
    const b = project(sd, subtract(view, template), k, seen);
    const dp = solve(seen ? hessian(sd, k, seen) : H, b);
    yield { p, view, dp };
    p = compose(family, p, inverse(family, dp), "template");
  }
}

/** A cascade of linear regressors (eq. 6), one for each step. */
function* cascade({ image, frame, family }, p, { predictors }) {
  for (const layers of [...predictors, null]) {
    const view = sample(image, matrix(family, p), frame);
    if (!layers) return yield { p, view };
    const dp = forward(layers, view);
    yield { p, view, dp };
    p = compose(family, p, inverse(family, dp), "template");
  }
}

const KINDS = {
  LK: lucasKanade,
  "IC-LK": inverseCompositional,
  SDM: cascade,
  "conditional-LK": cascade,
  STN: resampling,
  "c-STN": compositional,
  "IC-STN": compositional,
};

/**
 * The states of a method from step 0 to step n, or fewer where a method
 * ends or flies off by itself.
 */
export function align(method, problem, p, n) {
  const states = [];
  for (const state of KINDS[method.kind](
    problem,
    Float64Array.from(p),
    method,
  )) {
    if (!state.p.every(Number.isFinite)) break;
    states.push(state);
    if (states.length > n) break;
  }
  return states;
}

/** The labels' probabilities for a view, by the classification network. */
export function classify(method, view) {
  const logits = forward(method.classifier, view),
    top = Math.max(...logits);
  const e = Array.from(logits, (value) => Math.exp(value - top)),
    sum = e.reduce((a, b) => a + b);
  return e.map((value) => value / sum);
}

/**
 * Gradient times ∂W/∂p (at p, or at the identity): k numbers for each
 * sample.
 */
function steepestDescent([dx, dy], family, frame, p = identity(family)) {
  const k = p.length,
    J = jacobians(family, frame, p),
    area = frame.height * frame.width;
  return dx.data.reduce(
    (sd, slope, i) => {
      for (let j = 0, at = 2 * k * (i % area); j < k; j++)
        sd[i * k + j] = slope * J[at + j] + dy.data[i] * J[at + k + j];
      return sd;
    },
    new Float64Array(dx.data.length * k),
  );
}

/** H = Σ sd sdᵀ, over the samples that lie inside the image. */
function hessian(sd, k, seen) {
  const H = new Float64Array(k * k);
  for (let at = 0; at < sd.length; at += k) {
    if (seen && !seen[(at / k) % seen.length]) continue;
    for (let i = 0; i < k; i++)
      for (let j = 0; j < k; j++) H[i * k + j] += sd[at + i] * sd[at + j];
  }
  return H;
}

/** b = Σ sd e, over the same samples. */
function project(sd, e, k, seen) {
  const b = new Float64Array(k);
  e.forEach((value, i) => {
    if (!seen || seen[i % seen.length])
      for (let j = 0; j < k; j++) b[j] += sd[i * k + j] * value;
  });
  return b;
}

const subtract = (a, b) => a.data.map((value, i) => value - b.data[i]);

/** Which samples lie inside the image; nothing where all of them do. */
function mask({ height, width }, m, frame) {
  const seen = new Uint8Array(frame.height * frame.width).map((_, i) => {
    const [u, v] = position(
      m,
      frame,
      Math.floor(i / frame.width),
      i % frame.width,
    );
    return u >= 0 && v >= 0 && u <= width - 1 && v <= height - 1;
  });
  return seen.includes(0) ? seen : null;
}

const remembered = new WeakMap();

/**
 * ∂W/∂p at every sample, x and y in turn. Only that of a homography
 * depends on p.
 */
function jacobians(family, frame, p) {
  const constant =
    family !== "homography" || p.every((value) => value === 0);
  const known = remembered.get(frame) ?? {};
  if (constant && known[family]) return known[family];
  const { height, width } = frame,
    k = p.length,
    J = new Float64Array(2 * k * height * width);
  for (let i = 0; i < height * width; i++) {
    const x = (2 * (i % width)) / (width - 1) - 1,
      y = (2 * Math.floor(i / width)) / (height - 1) - 1;
    J.set(jacobian(family, p, [x, y]).flat(), 2 * k * i);
  }
  if (constant) remembered.set(frame, { ...known, [family]: J });
  return J;
}

/**
 * Central differences along x and along y, per normalized unit of the
 * frame; the border is repeated.
 */
function gradient(image, { halfExtent: [ex, ey] }) {
  const { channels, height, width, data } = image;
  const dx = blank(channels, height, width),
    dy = blank(channels, height, width);
  for (let i = 0; i < data.length; i++) {
    const x = i % width,
      y = Math.floor(i / width) % height;
    dx.data[i] =
      ((data[x + 1 < width ? i + 1 : i] - data[x ? i - 1 : i]) / 2) * ex;
    dy.data[i] =
      ((data[y + 1 < height ? i + width : i] - data[y ? i - width : i]) /
        2) *
      ey;
  }
  return [dx, dy];
}
