// The operations that a spatial transformer is made of, without any library: sample, convolve, pool, ReLU and
// linear here; compose, the sixth, is in warps.js.
//
// An image is {channels, height, width, data}, its numbers channel by channel and row by row. A frame says
// where the template's square [-1, 1]² lies in an image, as in icstn/sampling.py:
// {height, width, center: [x, y], halfExtent: [x, y]}, where -1 and 1 are the *centers* of the border samples.

import { offHorizon } from "./warps.js";

export function blank(channels, height, width) {
  return {
    channels,
    height,
    width,
    data: new Float32Array(channels * height * width),
  };
}

/** The frame that is the whole image. */
export function whole(height, width) {
  const half = [(width - 1) / 2, (height - 1) / 2];
  return { height, width, center: half, halfExtent: half };
}

/** I(p), the image at W(x; p): backward, bilinear, zeros outside. */
export function sample(image, m, frame) {
  const out = blank(image.channels, frame.height, frame.width);
  for (let row = 0, at = 0; row < frame.height; row++) {
    for (let column = 0; column < frame.width; column++, at++) {
      const [u, v] = position(m, frame, row, column);
      bilinear(image, u, v, out, at);
    }
  }
  return out;
}

/** Where the template's sample lies in the image, in pixels. */
export function position(m, frame, row, column) {
  const x = (2 * column) / (frame.width - 1) - 1,
    y = (2 * row) / (frame.height - 1) - 1;
  const w = offHorizon(m[6] * x + m[7] * y + m[8]);
  return [
    ((m[0] * x + m[1] * y + m[2]) / w) * frame.halfExtent[0] +
      frame.center[0],
    ((m[3] * x + m[4] * y + m[5]) / w) * frame.halfExtent[1] +
      frame.center[1],
  ];
}

function bilinear({ channels, height, width, data }, u, v, out, at) {
  if (!(u > -1 && v > -1 && u < width && v < height)) return;
  const x = Math.floor(u),
    y = Math.floor(v),
    right = u - x,
    below = v - y;
  const size = height * width,
    n = out.height * out.width,
    first = y * width + x;
  const left = x >= 0,
    more = x + 1 < width,
    top = y >= 0,
    under = y + 1 < height;
  for (let c = 0; c < channels; c++) {
    const i = c * size + first;
    let value = 0;
    if (top && left) value += data[i] * (1 - right) * (1 - below);
    if (top && more) value += data[i + 1] * right * (1 - below);
    if (under && left) value += data[i + width] * (1 - right) * below;
    if (under && more) value += data[i + width + 1] * right * below;
    out.data[c * n + at] = value;
  }
}

/** conv(h×w, filters), stride 1; weight is (filters, channels, h, w). */
export function convolve(
  image,
  { weight, bias, kernel: [kh, kw], filters },
) {
  const out = blank(filters, image.height - kh + 1, image.width - kw + 1);
  const n = out.height * out.width;
  for (let f = 0, k = 0; f < filters; f++) {
    out.data.fill(bias[f], f * n, (f + 1) * n);
    for (let c = 0; c < image.channels; c++)
      for (let i = 0; i < kh; i++)
        for (let j = 0; j < kw; j++, k++)
          addShifted(out, f, image, c, i, j, weight[k]);
  }
  return out;
}

/** One filter's output += factor · one channel, moved by (i, j). */
function addShifted(out, f, image, c, i, j, factor) {
  const { height, width, data } = out;
  for (let row = 0; row < height; row++) {
    let to = (f * height + row) * width,
      from = (c * image.height + row + i) * image.width + j;
    for (const end = to + width; to < end;)
      data[to++] += factor * image.data[from++];
  }
}

/** 2×2 max-pooling; an odd last line is dropped. */
export function pool(image) {
  const out = blank(image.channels, image.height >> 1, image.width >> 1);
  for (let c = 0, at = 0; c < out.channels; c++)
    for (let row = 0; row < out.height; row++)
      for (let column = 0; column < out.width; column++, at++) {
        const i = (c * image.height + 2 * row) * image.width + 2 * column,
          j = i + image.width;
        const { data } = image;
        out.data[at] = Math.max(data[i], data[i + 1], data[j], data[j + 1]);
      }
  return out;
}

export function relu(image) {
  return { ...image, data: image.data.map((value) => Math.max(0, value)) };
}

/** FC(units): weight is (units, inputs). */
export function linear(image, { weight, bias, units }) {
  const inputs = image.data.length,
    out = blank(units, 1, 1);
  for (let u = 0; u < units; u++) {
    let sum = bias[u];
    for (let i = 0, k = u * inputs; i < inputs; i++, k++)
      sum += weight[k] * image.data[i];
    out.data[u] = sum;
  }
  return out;
}

const LAYERS = { conv: convolve, pool, relu, linear };

/** A stack of layers, each {type, …}: what the last one gives. */
export function forward(layers, image) {
  return layers.reduce((x, layer) => LAYERS[layer.type](x, layer), image)
    .data;
}
