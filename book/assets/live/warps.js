// Warp families, as in icstn/warps.py: a family is nothing but its generators,
//
//     M(p) = I + p[0] G0 + p[1] G1 + …
//
// Points are (x, y), x right and y down, in template coordinates from -1 to 1. A 3×3 matrix is an array of
// nine numbers, row by row. p = 0 is the identity, and a homography keeps M[2][2] = 1.

const unit = (...places) =>
  Float64Array.from({ length: 9 }, (_, i) => {
    const found = places.find(([row, column]) => 3 * row + column === i);
    return found ? (found[2] ?? 1) : 0;
  });
const entries = (n) =>
  Array.from({ length: n }, (_, i) => unit([Math.floor(i / 3), i % 3]));

export const families = {
  translation: [unit([0, 2]), unit([1, 2])],
  similarity: [
    unit([0, 0], [1, 1]),
    unit([1, 0], [0, 1, -1]),
    unit([0, 2]),
    unit([1, 2]),
  ],
  affine: entries(6),
  homography: entries(8),
};

const IDENTITY = unit([0, 0], [1, 1], [2, 2]);
export const CORNERS = [
  [-1, -1],
  [1, -1],
  [1, 1],
  [-1, 1],
];

/** p = 0, the identity. */
export const identity = (family) =>
  new Float64Array(families[family].length);

/** M(p), eq. (9). */
export function matrix(family, p) {
  const m = Float64Array.from(IDENTITY);
  families[family].forEach((g, k) =>
    g.forEach((value, i) => {
      m[i] += p[k] * value;
    }),
  );
  return m;
}

/** The inverse of matrix(), for a member of the family up to scale. */
export function params(family, m) {
  const scale = family === "homography" ? m[8] : 1;
  const moved = m.map((value, i) => value / scale - IDENTITY[i]);
  return Float64Array.from(
    families[family],
    (g) => dot(moved, g) / dot(g, g),
  );
}

/**
 * Apply Δp to p: M(Δp) M(p), eq. (10), or M(p) M(Δp), the template's side.
 */
export function compose(family, p, dp, side) {
  const [left, right] = side === "image" ? [dp, p] : [p, dp];
  return params(
    family,
    multiply(matrix(family, left), matrix(family, right)),
  );
}

/** The parameters of the inverse warp, through the adjugate of M(p). */
export function inverse(family, p) {
  const m = adjugate(matrix(family, p));
  return params(
    family,
    m.map((value) => value / m[8]),
  );
}

/** W(x; p) for a matrix M(p). */
export function apply(m, [x, y]) {
  const w = offHorizon(m[6] * x + m[7] * y + m[8]);
  return [
    (m[0] * x + m[1] * y + m[2]) / w,
    (m[3] * x + m[4] * y + m[5]) / w,
  ];
}

/** ∂W(x; p)/∂p at the point: the rows of x and of y, k numbers each. */
export function jacobian(family, p, [x, y]) {
  const m = matrix(family, p),
    [u, v] = apply(m, [x, y]);
  const w = offHorizon(m[6] * x + m[7] * y + m[8]);
  const moved = families[family].map((g) =>
    [0, 3, 6].map((i) => g[i] * x + g[i + 1] * y + g[i + 2]),
  );
  return [
    moved.map((h) => (h[0] - u * h[2]) / w),
    moved.map((h) => (h[1] - v * h[2]) / w),
  ];
}

/**
 * The warp that takes four or more points to others, in the least-squares
 * sense.
 */
export function fit(family, from, to) {
  const k = families[family].length,
    a = new Float64Array(k * k),
    b = new Float64Array(k);
  from.forEach(([x, y], n) => {
    const moved = families[family].map((g) =>
      [0, 3, 6].map((i) => g[i] * x + g[i + 1] * y + g[i + 2]),
    );
    for (const axis of [0, 1]) {
      const row = moved.map((h) => h[axis] - to[n][axis] * h[2]),
        left = to[n][axis] - from[n][axis];
      addOuter(a, b, row, left);
    }
  });
  return solve(a, b);
}

/**
 * Root mean square distance between the corners of two warps, in template
 * pixels.
 */
export function cornerError(family, p, q, width) {
  const m = matrix(family, p),
    n = matrix(family, q);
  const squares = CORNERS.map((corner) => {
    const [a, b] = apply(m, corner),
      [c, d] = apply(n, corner);
    return (a - c) ** 2 + (b - d) ** 2;
  });
  return (Math.sqrt(squares.reduce((sum, s) => sum + s) / 4) * width) / 2;
}

/** One more equation row · p = left for the normal equations A p = b. */
export function addOuter(a, b, row, left) {
  for (let i = 0; i < row.length; i++) {
    b[i] += row[i] * left;
    for (let j = 0; j < row.length; j++)
      a[i * row.length + j] += row[i] * row[j];
  }
}

/**
 * A⁻¹ b for a symmetric positive definite A, by Cholesky; not a number
 * where A is singular.
 */
export function solve(a, b) {
  const n = b.length,
    l = new Float64Array(n * n),
    x = Float64Array.from(b);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) {
      let rest = a[i * n + j];
      for (let k = 0; k < j; k++) rest -= l[i * n + k] * l[j * n + k];
      l[i * n + j] = i === j ? Math.sqrt(rest) : rest / l[j * n + j];
    }
    for (let k = 0; k < i; k++) x[i] -= l[i * n + k] * x[k];
    x[i] /= l[i * n + i];
  }
  for (let i = n - 1; i >= 0; i--) {
    for (let k = i + 1; k < n; k++) x[i] -= l[k * n + i] * x[k];
    x[i] /= l[i * n + i];
  }
  return x;
}

export function multiply(a, b) {
  return Float64Array.from(IDENTITY, (_, i) => {
    const row = 3 * Math.floor(i / 3),
      column = i % 3;
    return (
      a[row] * b[column] +
      a[row + 1] * b[column + 3] +
      a[row + 2] * b[column + 6]
    );
  });
}

function adjugate(m) {
  const minor = (a, b, c, d) => m[a] * m[d] - m[b] * m[c];
  return Float64Array.of(
    minor(4, 5, 7, 8),
    minor(2, 1, 8, 7),
    minor(1, 2, 4, 5),
    minor(5, 3, 8, 6),
    minor(0, 2, 6, 8),
    minor(2, 0, 5, 3),
    minor(3, 4, 6, 7),
    minor(1, 0, 7, 6),
    minor(0, 1, 3, 4),
  );
}

export const offHorizon = (w) =>
  Math.abs(w) < 1e-6 ? (w < 0 || Object.is(w, -0) ? -1e-6 : 1e-6) : w;
const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);
