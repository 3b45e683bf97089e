// Small pieces of a picture that the live page and the films share. Colors are CSS variables (live.css), so that
// everything follows the theme without being drawn again.

import { sample, whole } from "./ops.js";
import { CORNERS, apply, matrix } from "./warps.js";

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element with attributes and children; `on…` attributes are listeners,
 * null and false ones are left out.
 */
export function element(name, attributes = {}, ...children) {
  return dress(document.createElement(name), attributes, children);
}

/** The same for a drawing. */
export function drawn(name, attributes = {}, ...children) {
  return dress(document.createElementNS(SVG, name), attributes, children);
}

function dress(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(
    ...children
      .flat()
      .filter((child) => child !== null && child !== undefined),
  );
  return node;
}

/**
 * Bytes as numbers from 0 to 1: what is shown, in the picture's own
 * colors.
 */
export function display({ channels, height, width }, bytes) {
  return {
    channels,
    height,
    width,
    data: Float32Array.from(bytes, (value) => value / 255),
  };
}

/**
 * Put an image of one or three channels, from 0 to 1, on a canvas of its
 * own size.
 */
export function paint(canvas, { channels, height, width, data }) {
  if (canvas.width !== width || canvas.height !== height)
    Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d"),
    picture = context.createImageData(width, height);
  const n = height * width,
    green = channels === 3 ? n : 0,
    blue = 2 * green;
  for (let i = 0; i < n; i++) {
    picture.data[4 * i] = 255 * data[i];
    picture.data[4 * i + 1] = 255 * data[i + green];
    picture.data[4 * i + 2] = 255 * data[i + blue];
    picture.data[4 * i + 3] = 255;
  }
  context.putImageData(picture, 0, 0);
}

/**
 * What a method sees at a step, in the picture's own colors. An STN
 * samples its own output again and again.
 */
export function seen(picture, { family, frame, resampled }, states, step) {
  if (!resampled)
    return sample(picture, matrix(family, states[step].p), frame);
  let view = sample(picture, matrix(family, states[0].p), frame);
  for (let i = 0; i < step; i++)
    view = sample(
      view,
      matrix(family, states[i].dp),
      whole(frame.height, frame.width),
    );
  return view;
}

/** Corners of the warped template, in pixels of the image. */
export function quad({ family, frame }, p) {
  const m = matrix(family, p);
  return CORNERS.map((corner) => {
    const [x, y] = apply(m, corner);
    return [
      x * frame.halfExtent[0] + frame.center[0],
      y * frame.halfExtent[1] + frame.center[1],
    ];
  });
}

export const points = (corners) =>
  corners.map(([x, y]) => `${x.toFixed(3)},${y.toFixed(3)}`).join(" ");

/**
 * An update as bars, one for each warp parameter, up or down from a line;
 * longer than `scale` is cut off.
 */
function bars(dp, scale = 0.4) {
  const k = dp.length,
    height = 22,
    width = 7 * k;
  const rects = Array.from(dp, (value, i) => {
    const length = Math.min(1, Math.abs(value) / scale) * (height / 2 - 1);
    return drawn("rect", {
      x: 7 * i + 1,
      width: 5,
      height: Math.max(0.6, length),
      y: height / 2 - (value > 0 ? length : 0),
    });
  });
  return drawn(
    "svg",
    {
      class: "il-bars",
      viewBox: `0 0 ${width} ${height}`,
      width,
      height,
      "aria-hidden": "true",
    },
    drawn("line", { x1: 0, x2: width, y1: height / 2, y2: height / 2 }),
    rects,
  );
}

const norm = (dp) =>
  Math.sqrt(Array.from(dp).reduce((sum, value) => sum + value * value, 0));

/**
 * A picture on a stage that shows a region of the plane around it, and a
 * drawing over it in the picture's pixels.
 */
export function staged(picture, region) {
  const canvas = element("canvas", { "aria-hidden": "true" }),
    share = (part, all) => `${(100 * part) / all}%`;
  paint(canvas, picture);
  canvas.style.cssText =
    `left:${share(-region.x, region.width)};top:${share(-region.y, region.height)};` +
    `width:${share(picture.width, region.width)};height:${share(picture.height, region.height)}`;
  const over = drawn("svg", {
    viewBox: `${region.x - 0.5} ${region.y - 0.5} ${region.width} ${region.height}`,
    "aria-hidden": "true",
  });
  return { canvas, over, ratio: `${region.width} / ${region.height}` };
}

/** An update as bars and its size; words where there is none. */
export const change = (dp, words) =>
  dp
    ? [bars(dp), `‖Δp‖ ${norm(dp).toFixed(norm(dp) < 0.0095 ? 4 : 2)}`]
    : [words];

/** A number of pixels in few digits. */
export const pixels = (value) =>
  !Number.isFinite(value)
    ? "lost"
    : value > 99
      ? "> 99 px"
      : `${value.toFixed(value < 0.095 ? 3 : value < 9.95 ? 2 : 1)} px`;

export const still = () =>
  matchMedia("(prefers-reduced-motion: reduce)").matches;

const ICONS = {
  first: "M5 4h2.500v16H5zM20 4v16L8.500 12z",
  back: "M18 4v16L6 12z",
  next: "M5 4v16l9-8zM15.500 4H18v16h-2.500z",
  play: "M7 4v16l13-8z",
  pause: "M6 4h4v16H6zM14 4h4v16h-4z",
};
const icon = (name) =>
  drawn(
    "svg",
    {
      viewBox: "0 0 24 24",
      width: 16,
      height: 16,
      "aria-hidden": "true",
      fill: "currentColor",
    },
    drawn("path", { d: ICONS[name] }),
  );

/**
 * Play, single steps, back to the start, and a slider: the same controls
 * everywhere.
 */
export function player({
  show,
  last,
  seconds = 0.7,
  rest = 2,
  loop = false,
  label,
}) {
  let step = 0,
    timer = null;
  const slider = element("input", {
    type: "range",
    min: 0,
    max: last(),
    value: 0,
    step: 1,
    "aria-label": `${label}: step`,
    oninput: () => {
      pause();
      go(Number(slider.value));
    },
  });
  const text = element("span", { class: "il-step" });
  const playing = element("button", {
    type: "button",
    class: "il-play",
    onclick: () => (timer ? pause() : play()),
  });
  const button = (sign, name, act) =>
    element(
      "button",
      {
        type: "button",
        "aria-label": name,
        title: name,
        onclick: () => {
          pause();
          act();
        },
      },
      icon(sign),
    );
  const node = element(
    "div",
    { class: "il-player", role: "group", "aria-label": `${label}: player` },
    button("first", "Back to the start", () => go(0)),
    button("back", "One step back", () => go(step - 1)),
    playing,
    button("next", "One step on", () => go(step + 1)),
    slider,
    text,
  );
  function go(to) {
    step = Math.max(0, Math.min(last(), to));
    slider.max = last();
    slider.value = step;
    slider.setAttribute("aria-valuetext", `step ${step} of ${last()}`);
    text.textContent = `step ${step} of ${last()}`;
    show(step);
  }
  function tick() {
    const end = step >= last();
    if (end && !loop) return pause();
    go(end ? 0 : step + 1);
    timer = setTimeout(
      tick,
      1000 * (step >= last() ? rest : step === 0 ? 1.4 * seconds : seconds),
    );
  }
  function play() {
    if (step >= last()) go(0);
    timer = setTimeout(tick, 1000 * seconds);
    mark();
  }
  function pause() {
    clearTimeout(timer);
    timer = null;
    mark();
  }
  function mark() {
    playing.replaceChildren(icon(timer ? "pause" : "play"));
    playing.setAttribute("aria-label", timer ? "Pause" : "Play");
    playing.title = timer ? "Pause" : "Play";
  }
  mark();
  return {
    node,
    go,
    play,
    pause,
    get step() {
      return step;
    },
    get playing() {
      return timer !== null;
    },
  };
}
