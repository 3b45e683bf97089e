// The panels of the live page: error against step, the map of starting points, and the pad for a digit.

import { HOME } from "./measure.js";
import { drawn, element } from "./drawing.js";
import { moved } from "./starts.js";

/** Error against step, on a logarithmic scale from a hundredth of a pixel. */
export function errorChart() {
  const width = 340,
    height = 190,
    left = 34,
    bottom = 26,
    low = 0.01,
    high = 40;
  const svg = drawn("svg", {
    viewBox: `0 0 ${width} ${height}`,
    role: "img",
    class: "il-chart",
    "aria-label": "Error against step",
  });
  const node = element(
    "div",
    { class: "il-panel" },
    element("div", { class: "il-title" }, "Error against step, px"),
    svg,
  );
  const y = (error) => {
    const share =
      Math.log(Math.min(high, Math.max(low, error)) / low) /
      Math.log(high / low);
    return height - bottom - share * (height - bottom - 8);
  };
  const x = (step, steps) =>
    left + (step / Math.max(1, steps)) * (width - left - 10);
  let cursor;
  return {
    node,
    draw(runs, steps, name) {
      const lines = [0.01, 0.1, 1, 10].flatMap((value) => [
        drawn("line", {
          class: "il-grid",
          x1: left,
          x2: width - 10,
          y1: y(value),
          y2: y(value),
        }),
        drawn(
          "text",
          { x: left - 5, y: y(value) + 4, "text-anchor": "end" },
          String(value),
        ),
      ]);
      const home = drawn("line", {
        class: "il-home",
        x1: left,
        x2: width - 10,
        y1: y(HOME[name]),
        y2: y(HOME[name]),
      });
      const every = Math.ceil(steps / 10),
        ticks = Array.from({ length: steps + 1 }, (_, k) => k).filter(
          (k) => k % every === 0,
        );
      const labels = ticks.map((k) =>
        drawn(
          "text",
          { x: x(k, steps), y: height - 8, "text-anchor": "middle" },
          String(k),
        ),
      );
      const curves = runs.map((run, i) =>
        drawn(
          "g",
          { class: `il-curve il-c${i}` },
          drawn("polyline", {
            points: run.errors
              .map((e, k) => `${x(k, steps).toFixed(1)},${y(e).toFixed(1)}`)
              .join(" "),
          }),
          run.errors.map((e, k) =>
            drawn("circle", { cx: x(k, steps), cy: y(e), r: 2.6 }),
          ),
        ),
      );
      cursor = drawn("line", {
        class: "il-cursor",
        y1: 4,
        y2: height - bottom,
      });
      svg.replaceChildren(...lines, home, ...labels, cursor, ...curves);
    },
    mark(step, steps) {
      cursor?.setAttribute("x1", x(step, steps));
      cursor?.setAttribute("x2", x(step, steps));
    },
  };
}

/**
 * Which starting points get home: the box as it is, its center moved to
 * every place of a grid.
 */
export function basinMap({ choose, start }) {
  const cells = 25,
    select = element("select", {
      "aria-label": "Whose starting points",
      onchange: choose,
    });
  const canvas = element("canvas", {
    width: cells,
    height: cells,
    role: "img",
    "aria-label": "Map of starting points",
  });
  const dot = element("span", { class: "il-dot", "aria-hidden": "true" });
  const text = element("p", { class: "il-share" });
  const map = element("div", { class: "il-map" }, canvas, dot);
  const node = element(
    "div",
    { class: "il-panel" },
    element(
      "div",
      { class: "il-title" },
      "Which starting points get home? ",
      select,
    ),
    map,
    text,
  );
  let worker = null,
    timer = null,
    reach = 10,
    asked = "";
  map.addEventListener("click", (event) => {
    const box = map.getBoundingClientRect(),
      at = (v, from, size) =>
        ((2 * (v - from)) / size - 1) * reach * (cells / (cells - 1));
    start(
      at(event.clientX, box.left, box.width),
      at(event.clientY, box.top, box.height),
    );
  });
  return {
    node,
    choice: () => select.value,
    offer(names) {
      const old = select.value;
      select.replaceChildren(
        ...names.map((name) => element("option", { value: name }, name)),
      );
      select.value = names.includes(old)
        ? old
        : (names.find((name) => name.startsWith("IC-STN")) ?? names[0]);
    },
    mark({ p, scene: { frame } }) {
      const share = (v, size) =>
        Math.max(
          0,
          Math.min(
            100,
            50 + (50 * v * size) / 2 / (reach * (cells / (cells - 1))),
          ),
        );
      dot.style.left = `${share(p[2], frame.width)}%`;
      dot.style.top = `${share(p[5], frame.height)}%`;
    },
    ask({ problem, p, about, name, scene }, method, steps) {
      const shape = Array.from(
        moved(scene.family, scene.frame, p, 0, 0),
        (v) => v.toFixed(4),
      );
      const key = [
        method.name,
        method.side,
        steps,
        name,
        (problem.id ??= Math.random()),
        ...shape,
      ].join();
      reach = about.reach;
      this.mark({ p, scene });
      if (key === asked) return;
      asked = key;
      stop();
      timer = setTimeout(
        () =>
          run(
            { problem, method, p, n: steps, reach, cells },
            HOME[name],
            method.name,
          ),
        250,
      );
    },
  };

  function stop() {
    clearTimeout(timer);
    worker?.terminate();
    canvas.getContext("2d").clearRect(0, 0, cells, cells);
    canvas.setAttribute(
      "aria-label",
      "Map of starting points, being computed",
    );
    text.textContent = "…";
    node.toggleAttribute("done", false);
  }

  function run(task, limit, name) {
    worker = new Worker(new URL("./basin.js", import.meta.url), {
      type: "module",
    });
    const context = canvas.getContext("2d"),
      style = getComputedStyle(node);
    let home = 0,
      all = 0;
    worker.onmessage = ({ data: { row, ends, done } }) => {
      if (done) {
        node.toggleAttribute("done", true);
        const words = `${name} gets home from ${Math.round((100 * home) / all)} % of these starts`;
        canvas.setAttribute("aria-label", words);
        text.textContent = `${words}: within ${limit} px after ${task.n} ${task.n > 1 ? "steps" : "step"}. The map reaches ${task.reach} px to each side; press it to start there.`;
        return;
      }
      ends.forEach((error, column) => {
        all += 1;
        home += error < limit;
        context.fillStyle = style.getPropertyValue(
          error < limit ? "--il-accent" : "--il-line",
        );
        context.globalAlpha =
          error < limit ? 0.45 + 0.55 * (1 - error / limit) : 0.45;
        context.clearRect(column, row, 1, 1);
        context.fillRect(column, row, 1, 1);
      });
    };
    const { homes, id, ...problem } = task.problem;
    const {
      predictors,
      kind,
      recurrent,
      side,
      invert,
      name: called,
    } = task.method;
    worker.postMessage({
      ...task,
      problem,
      method: { predictors, kind, recurrent, side, invert, name: called },
      p: Array.from(task.p),
      job: 0,
    });
  }
}

/**
 * A pad to draw a digit on: what is drawn becomes 28×28 pixels as MNIST's
 * are, in the middle and 20 high.
 */
export function digitPad(use) {
  const pad = element("canvas", {
    width: 168,
    height: 168,
    class: "il-pad",
    role: "img",
    "aria-label": "A pad to draw a digit on",
  });
  const context = pad.getContext("2d", { willReadFrequently: true });
  Object.assign(context, {
    lineWidth: 15,
    lineCap: "round",
    lineJoin: "round",
    strokeStyle: "#fff",
    fillStyle: "#000",
  });
  const clear = () => context.fillRect(0, 0, pad.width, pad.height);
  const at = (event) => {
    const box = pad.getBoundingClientRect();
    return [
      ((event.clientX - box.left) * pad.width) / box.width,
      ((event.clientY - box.top) * pad.height) / box.height,
    ];
  };
  pad.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    pad.setPointerCapture(event.pointerId);
    context.beginPath();
    context.moveTo(...at(event));
    context.lineTo(...at(event));
    context.stroke();
    pad.onpointermove = (move) => {
      context.lineTo(...at(move));
      context.stroke();
    };
  });
  pad.addEventListener("pointerup", () => {
    pad.onpointermove = null;
    const bytes = likeMnist(pad);
    if (bytes) use(bytes);
  });
  clear();
  return element(
    "details",
    { class: "il-draw" },
    element("summary", {}, "Draw a digit yourself"),
    element(
      "div",
      { class: "il-drawing" },
      pad,
      element("button", { type: "button", onclick: clear }, "Clear"),
    ),
  );
}

/**
 * The ink's box, scaled to 20 pixels, its center of mass in the middle of
 * 28×28.
 */
function likeMnist(pad) {
  const { width, height } = pad,
    ink = red(pad);
  const at = Array.from(ink.keys()).filter((i) => ink[i] > 40);
  if (at.length < 20) return null;
  const xs = at.map((i) => i % width),
    ys = at.map((i) => Math.floor(i / width));
  const [left, right, top, low] = [
    Math.min(...xs),
    Math.max(...xs) + 1,
    Math.min(...ys),
    Math.max(...ys) + 1,
  ];
  const scale = 20 / Math.max(right - left, low - top),
    small = element("canvas", { width: 28, height: 28 });
  const total = at.reduce((sum, i) => sum + ink[i], 0);
  const [cx, cy] = [xs, ys].map(
    (v) => at.reduce((sum, i, k) => sum + ink[i] * (v[k] + 0.5), 0) / total,
  );
  const context = small.getContext("2d", { willReadFrequently: true });
  Object.assign(context, {
    imageSmoothingQuality: "high",
    fillStyle: "#000",
  });
  context.fillRect(0, 0, 28, 28);
  context.drawImage(
    pad,
    14 - cx * scale,
    14 - cy * scale,
    width * scale,
    height * scale,
  );
  return red(small);
}

function red(canvas) {
  const { data } = canvas
    .getContext("2d", { willReadFrequently: true })
    .getImageData(0, 0, canvas.width, canvas.height);
  return Uint8Array.from(
    { length: data.length / 4 },
    (_, i) => data[4 * i],
  );
}
