// <icstn-live>: drag, turn and shear a box, and watch methods put it right, step by step.
//
//     <icstn-live></icstn-live>                                        everything, as on the page "Touch it"
//     <icstn-live compact scene="photograph" methods="LK IC-LK"></icstn-live>   a small copy, for a chapter
//
// Attributes, all optional:
//     scene     digits (the default), photograph or signs
//     item      which picture of the scene, from 0
//     methods   names as in the manifest, with spaces between them, four at most
//     steps     how many steps are taken
//     start     the first warp: its parameters, with spaces between them
//     compact   no choice of scene, steps or side of composition; with `basin`, still the map of starting points;
//               loaded when it comes near the screen
//
// A chapter includes it as raw HTML, with a still picture inside for readers without scripts. The order of the
// pieces here: state, then the parts of the page from top to bottom.

import {
  change,
  display,
  drawn,
  element,
  paint,
  pixels,
  player,
  points,
  quad,
  seen,
  staged,
} from "./drawing.js";
import { distance } from "./measure.js";
import { align, classify } from "./methods.js";
import { sample } from "./ops.js";
import { open } from "./store.js";
import { basinMap, digitPad, errorChart } from "./panels.js";
import { moved, perturbation, rest } from "./starts.js";
import { CORNERS, fit, identity, matrix } from "./warps.js";

const SCENES = {
  digits: {
    title: "A digit",
    methods: ["STN(b)", "c-STN-1(b)", "IC-STN-4(b)"],
    steps: 4,
    most: 12,
    margin: 0.5,
    sigma: 3.5,
    measure: "ink",
    reach: 12,
  },
  photograph: {
    title: "A photograph",
    methods: ["LK", "IC-LK", "IC-STN-4", "SDM"],
    steps: 30,
    most: 30,
    margin: 0,
    sigma: 5,
    measure: "corners",
    reach: 20,
    start: [0.12, -0.12, 0.2, 0.1, -0.06, -0.1],
  },
  signs: {
    title: "A traffic sign",
    methods: ["STN", "c-STN-1", "IC-STN-4"],
    steps: 4,
    most: 8,
    margin: 0.25,
    sigma: 3.5,
    measure: "disc",
    reach: 12,
  },
};
const MOST_LANES = 4;

class Live extends HTMLElement {
  connectedCallback() {
    if (this.state) return;
    this.state = { methods: [], side: "trained", step: 0 };
    if (this.hasAttribute("compact")) this.wait();
    else this.begin();
  }

  /** A small copy loads nothing before it comes near the screen. */
  wait() {
    const near = new IntersectionObserver(
      ([entry]) => {
        if (!entry.isIntersecting) return;
        near.disconnect();
        this.begin();
      },
      { rootMargin: "200px" },
    );
    near.observe(this);
  }

  async begin() {
    this.store = await open();
    this.build();
    await this.chooseScene(this.getAttribute("scene") ?? "digits", true);
    this.querySelector(".il-still")?.setAttribute("hidden", "");
    this.toggleAttribute("ready", true);
  }

  // State: what is aligned, from where, by what. After any change everything is computed anew.

  async chooseScene(name, first = false) {
    const about = SCENES[name],
      scene = await this.store.scene(name);
    const given = (attribute) =>
      first ? this.getAttribute(attribute) : null;
    Object.assign(this.state, {
      name,
      about,
      scene,
      steps: Number(given("steps")) || null,
    });
    await this.chooseMethods(
      given("methods")?.split(/\s+/) ?? about.methods,
    );
    this.choosePicture(
      Number(
        given("item") ?? (name === "digits" ? 8 : name === "signs" ? 1 : 0),
      ),
    );
    this.showChoices();
  }

  async chooseMethods(names) {
    this.state.methods = await Promise.all(
      names.slice(0, MOST_LANES).map(async (name) => ({
        name,
        ...(await this.store.method(this.state.name, name)),
      })),
    );
    this.showLanes();
  }

  choosePicture(item, bytes = null) {
    const { scene, about, name } = this.state,
      raw = bytes ?? scene.raw(item);
    const image = scene.image(raw),
      { frame, family } = scene;
    const template = sample(image, matrix(family, identity(family)), frame);
    const problem = {
      image,
      frame,
      family,
      template,
      measure: about.measure,
    };
    const known = bytes ? { label: null } : scene.items[item];
    Object.assign(this.state, {
      item: bytes ? null : item,
      known,
      problem,
      picture: display(scene, raw),
    });
    this.showPicture();
    this.start(this.origin());
    this.setAttribute("scene-shown", name);
  }

  /** Where a picture starts: as the page says, as in its table, or anywhere. */
  origin() {
    const { name, about, known } = this.state,
      given = this.getAttribute("start");
    if (given && name === (this.getAttribute("scene") ?? "digits"))
      return given.split(/\s+/).map(Number);
    return known.p ?? about.start ?? this.perturbation();
  }

  /** A start as the paper draws them. */
  perturbation() {
    const {
      scene: { frame, family },
      about: { sigma },
    } = this.state;
    return perturbation(family, frame, sigma);
  }

  /** A new starting warp. */
  start(p) {
    if (!Array.from(p).every(Number.isFinite)) return;
    this.state.p = Float64Array.from(p);
    this.player.pause();
    this.compute();
    this.player.go(0);
    this.askBasin();
  }

  askBasin() {
    if (!this.basin) return;
    const method = this.method(this.basin.choice());
    this.basin.ask(this.state, method, this.stepsOf(method));
  }

  method(name) {
    const method =
      this.state.methods.find((m) => m.name === name) ??
      this.state.methods[0];
    return this.state.side === "trained" || !method.predictors
      ? method
      : { ...method, side: this.state.side };
  }

  compute() {
    const { methods, problem, p } = this.state;
    this.runs = methods.map(({ name }) => {
      const method = this.method(name),
        far = this.distanceOf(method);
      const states = align(method, problem, p, this.stepsOf(method));
      return {
        method,
        states,
        errors: states.map((state) => far(state.p)),
        resampled: method.kind === "STN",
      };
    });
    this.chart?.draw(this.runs, this.last(), this.state.name);
  }

  /**
   * How many steps a method takes: as many as it was trained with, unless
   * the reader chose.
   */
  stepsOf(method) {
    return this.state.steps ?? method.operations ?? this.state.about.steps;
  }

  /** The last step that any method takes. */
  last() {
    return Math.max(
      ...this.state.methods.map((method) => this.stepsOf(method)),
    );
  }

  /**
   * Its distance from home; home is found once for each picture, method
   * and number of steps.
   */
  distanceOf(method) {
    const { problem } = this.state,
      steps = this.stepsOf(method),
      key = [method.name, method.side, steps].join();
    problem.homes ??= new Map();
    if (!problem.homes.has(key))
      problem.homes.set(
        key,
        distance(problem, rest(method, problem, steps)),
      );
    return problem.homes.get(key);
  }

  // The page.

  build() {
    const compact = this.hasAttribute("compact");
    this.stage = element("div", { class: "il-stage" });
    this.lanes = element("div", { class: "il-lanes" });
    this.said = element("p", { class: "il-said", role: "status" });
    this.scenes = element(
      "div",
      {
        class: "il-scenes",
        role: "group",
        "aria-label": "What to align",
        hidden: compact,
      },
      Object.entries(SCENES).map(([key, { title }]) =>
        element(
          "button",
          { type: "button", onclick: () => this.chooseScene(key) },
          title,
        ),
      ),
    );
    this.choices = element("div", { class: "il-choices" });
    this.switches = element("div", { class: "il-switches" });
    this.chart = compact ? null : errorChart();
    this.basin =
      compact && !this.hasAttribute("basin")
        ? null
        : basinMap({
            choose: () => this.askBasin(),
            start: (x, y) =>
              this.start(
                moved(
                  this.state.scene.family,
                  this.state.scene.frame,
                  this.state.p,
                  x,
                  y,
                ),
              ),
          });
    this.player = player({
      label: "Alignment",
      last: () => this.last(),
      show: (step) => this.show(step),
    });
    this.player.node.addEventListener("click", () => this.say());
    this.player.node.addEventListener("change", () => this.say());
    this.append(
      element(
        "div",
        { class: "il-live" + (compact ? " il-compact" : "") },
        this.scenes,
        this.choices,
        element(
          "div",
          { class: "il-work" },
          element(
            "div",
            { class: "il-left" },
            this.stage,
            this.player.node,
            this.starts(),
            this.said,
          ),
          this.lanes,
        ),
        compact ? null : this.switches,
        element(
          "div",
          { class: "il-panels" },
          this.chart?.node,
          this.basin?.node,
        ),
      ),
    );
  }

  starts() {
    const button = (text, act) =>
      element("button", { type: "button", onclick: () => act() }, text);
    return element(
      "div",
      { class: "il-starts", role: "group", "aria-label": "Where to start" },
      button("Somewhere else", () => this.start(this.perturbation())),
      button("Undisturbed", () =>
        this.start(identity(this.state.scene.family)),
      ),
      button("Reset", () => this.start(this.origin())),
    );
  }

  showChoices() {
    const { name, scene } = this.state,
      compact = this.hasAttribute("compact");
    const items =
      scene.items.length > 1
        ? scene.items.map((item, i) => this.thumbnail(item, i))
        : [];
    const pad =
      name === "digits" && !compact
        ? digitPad((bytes) => {
            this.choosePicture(null, bytes);
            this.mark();
          })
        : null;
    Object.keys(SCENES).forEach((key, i) =>
      this.scenes.children[i].setAttribute(
        "aria-pressed",
        String(key === name),
      ),
    );
    this.choices.replaceChildren(
      ...(items.length
        ? [
            element(
              "div",
              {
                class: "il-items",
                role: "group",
                "aria-label": "Which picture",
              },
              items,
            ),
          ]
        : []),
      ...(pad ? [pad] : []),
    );
    this.credit ??= this.appendChild(element("p", { class: "il-credit" }));
    this.credit.textContent = scene.credit;
    this.mark();
    this.showSwitches();
  }

  thumbnail({ label }, i) {
    const { scene } = this.state,
      canvas = element("canvas");
    paint(canvas, display(scene, scene.raw(i)));
    return element(
      "button",
      {
        type: "button",
        class: "il-item",
        "aria-label": scene.names?.[label] ?? `digit ${label}`,
        onclick: () => {
          this.choosePicture(i);
          this.mark();
        },
      },
      canvas,
    );
  }

  mark() {
    this.choices
      .querySelectorAll(".il-item")
      .forEach((button, i) =>
        button.setAttribute("aria-pressed", String(i === this.state.item)),
      );
  }

  showSwitches() {
    if (this.hasAttribute("compact")) return;
    const { name, about, methods, steps, side } = this.state;
    const names = [
      ...(name === "photograph" ? ["LK", "IC-LK"] : []),
      ...Object.keys(this.store.manifest.methods[name]),
      ...(name === "photograph" ? [] : ["LK", "IC-LK"]),
    ];
    const boxes = names.map((n) =>
      element(
        "label",
        {},
        element("input", {
          type: "checkbox",
          value: n,
          checked: methods.some((m) => m.name === n),
          onchange: () => this.pick(),
        }),
        n,
      ),
    );
    const sides = [
      ["trained", "as trained"],
      ["template", "template's side, M(p) M(Δp)"],
      ["image", "image's side, M(Δp) M(p)"],
    ];
    const radios = sides.map(([value, text]) =>
      element(
        "label",
        {},
        element("input", {
          type: "radio",
          name: `side-${this.id || "live"}`,
          value,
          checked: value === side,
          onchange: () => {
            this.state.side = value;
            this.start(this.state.p);
          },
        }),
        text,
      ),
    );
    const count = element("span", { class: "il-count-now" });
    const take = (n) => {
      Object.assign(this.state, { steps: n });
      count.textContent = n ?? "as trained";
      this.start(this.state.p);
    };
    const operations = element("input", {
      type: "range",
      min: 1,
      max: about.most,
      value: steps ?? about.steps,
      "aria-label": "Number of operations",
      oninput: () => take(Number(operations.value)),
    });
    const trained = element(
      "button",
      { type: "button", onclick: () => take(null) },
      "As trained",
    );
    count.textContent = steps ?? "as trained";
    this.switches.replaceChildren(
      element(
        "fieldset",
        {},
        element("legend", {}, `Methods (${MOST_LANES} at most)`),
        element("div", { class: "il-boxes" }, boxes),
      ),
      element(
        "fieldset",
        {},
        element("legend", {}, "Side of composition (networks)"),
        element("div", { class: "il-boxes" }, radios),
      ),
      element(
        "fieldset",
        {},
        element("legend", {}, "Number of operations"),
        element("div", { class: "il-count" }, operations, count, trained),
      ),
    );
    this.limit();
  }

  async pick() {
    const names = [
      ...this.switches.querySelectorAll("input[type=checkbox]:checked"),
    ].map((box) => box.value);
    if (names.length === 0) return this.showSwitches();
    this.limit();
    await this.chooseMethods(names);
    this.start(this.state.p);
  }

  limit() {
    const boxes = [
      ...this.switches.querySelectorAll("input[type=checkbox]"),
    ];
    const full = boxes.filter((box) => box.checked).length >= MOST_LANES;
    boxes.forEach((box) => {
      box.disabled = full && !box.checked;
    });
  }

  // The picture with the box on it.

  showPicture() {
    const { picture, about, scene, name } = this.state,
      { height, width } = picture,
      m = about.margin;
    const region = {
      x: -m * width,
      y: -m * height,
      width: (1 + 2 * m) * width,
      height: (1 + 2 * m) * height,
    };
    const { canvas, over, ratio } = staged(picture, region);
    this.outlines = over;
    this.handles = HANDLES.map((handle) => this.handle(handle));
    this.stage.style.aspectRatio = ratio;
    this.stage.setAttribute("role", "group");
    this.stage.setAttribute(
      "aria-label",
      `${about.title}, and the box on it`,
    );
    this.stage.replaceChildren(canvas, this.outlines, ...this.handles);
    this.region = region;
    this.truth =
      name === "photograph"
        ? points(quad(scene, identity(scene.family)))
        : null;
  }

  handle({ name, label, drag, keys }) {
    const node = element("button", {
      type: "button",
      class: `il-handle il-${name}`,
      "aria-label": label,
      title: label,
    });
    const act = (event, change) => {
      event.preventDefault();
      this.reshape(change);
    };
    node.addEventListener("keydown", (event) => {
      const size = event.shiftKey ? 5 : 1,
        by = ARROWS[event.key]?.map((v) => v * size);
      if (by) act(event, (corners, family) => keys(corners, by, family));
    });
    node.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      node.focus({ preventScroll: true });
      node.setPointerCapture(event.pointerId);
      const from = this.place(event),
        corners = quad(this.state.scene, this.state.p);
      node.onpointermove = (move) =>
        this.soon(() =>
          this.reshape((_, family) =>
            drag(corners, from, this.place(move), family),
          ),
        );
    });
    const end = () => {
      node.onpointermove = null;
    };
    node.addEventListener("pointerup", end);
    node.addEventListener("pointercancel", end);
    return node;
  }

  /** At most one change for each frame that is drawn. */
  soon(act) {
    if (!this.next)
      requestAnimationFrame(() => {
        const next = this.next;
        this.next = null;
        next();
      });
    this.next = act;
  }

  /** Where on the picture an event is, in its pixels. */
  place(event) {
    const box = this.stage.getBoundingClientRect(),
      { x, y, width, height } = this.region;
    return [
      x - 0.5 + ((event.clientX - box.left) / box.width) * width,
      y - 0.5 + ((event.clientY - box.top) / box.height) * height,
    ];
  }

  /**
   * The box gets new corners, in pixels (null where one is free to
   * follow): the warp that fits them.
   */
  reshape(change) {
    const { family, frame } = this.state.scene,
      corners = change(quad(this.state.scene, this.state.p), family);
    const kept = CORNERS.map((x, i) => [x, corners[i]]).filter(
      ([, to]) => to,
    );
    const target = kept.map(([, to]) =>
      to.map(
        (v, axis) => (v - frame.center[axis]) / frame.halfExtent[axis],
      ),
    );
    this.start(
      fit(
        family,
        kept.map(([x]) => x),
        target,
      ),
    );
  }

  // A step: outlines, lanes, words.

  showLanes() {
    this.tiles = this.state.methods.map(
      ({ name, weights, operations, error, unit }, i) => {
        const canvas = element("canvas", {
          role: "img",
          "aria-label": `what ${name} sees`,
        });
        const note = element("span", { class: "il-note" }),
          update = element("span", { class: "il-change" });
        const about = weights
          ? `${weights.toLocaleString("en")} weights, trained with ${operations} ${operations > 1 ? "steps" : "step"}`
          : "no weights: knows the template";
        const tested =
          error === undefined
            ? ""
            : ` Test error of its Record: ${error.toPrecision(3)} ${unit}.`;
        const node = element(
          "div",
          { class: `il-lane il-c${i}` },
          element(
            "span",
            { class: "il-name", title: about + "." + tested },
            name,
          ),
          element("div", { class: "il-view" }, canvas),
          note,
          update,
          element("span", { class: "il-about" }, about),
        );
        canvas.classList.add("il-tile");
        return { canvas, note, update, node };
      },
    );
    this.lanes.replaceChildren(...this.tiles.map(({ node }) => node));
    this.basin?.offer(this.state.methods.map(({ name }) => name));
  }

  show(step) {
    this.state.step = step;
    if (!this.runs) return;
    const { scene, picture, p } = this.state,
      corners = quad(scene, p);
    const path = this.runs.map((run, i) => {
      const now = run.states[Math.min(step, run.states.length - 1)],
        last = run.states.at(-1);
      return [
        ["il-final", last],
        ["il-outline", now],
      ].map(
        ([kind, state]) =>
          state &&
          drawn("polygon", {
            class: `${kind} il-c${i}`,
            points: points(quad(scene, state.p)),
          }),
      );
    });
    this.outlines.replaceChildren(
      ...(this.truth
        ? [drawn("polygon", { class: "il-truth", points: this.truth })]
        : []),
      drawn("polygon", { class: "il-box", points: points(corners) }),
      ...path.flat().filter(Boolean),
    );
    this.handles.forEach((node, i) =>
      this.put(node, HANDLES[i].at(corners)),
    );
    this.runs.forEach((run, i) =>
      this.showLane(run, this.tiles[i], step, picture),
    );
    this.chart?.mark(step, this.last());
    this.basin?.mark(this.state);
  }

  put(node, [x, y]) {
    const { region } = this,
      share = (v, from, size) =>
        Math.max(1, Math.min(99, (100 * (v + 0.5 - from)) / size));
    node.style.left = `${share(x, region.x, region.width)}%`;
    node.style.top = `${share(y, region.y, region.height)}%`;
  }

  showLane(run, { canvas, note, update }, step, picture) {
    const k = Math.min(step, run.states.length - 1),
      state = run.states[k];
    if (!state) return;
    const { family, frame } = this.state.scene;
    paint(
      canvas,
      seen(
        picture,
        { family, frame, resampled: run.resampled },
        run.states,
        k,
      ),
    );
    note.textContent = [pixels(run.errors[k]), this.verdict(run, state)]
      .filter(Boolean)
      .join(" · ");
    const { dp } = state,
      next = dp && k < run.states.length - 1;
    update.title = next
      ? `Δp = (${Array.from(dp, (v) => v.toFixed(3)).join(", ")})`
      : "";
    update.replaceChildren(
      ...change(
        next ? dp : null,
        `after ${k} ${k === 1 ? "step" : "steps"}`,
      ),
    );
  }

  verdict(run, state) {
    if (!run.method.classifier?.length) return "";
    const chances = (state.chances ??= classify(run.method, state.view)),
      best = chances.indexOf(Math.max(...chances));
    const sign = this.state.scene.names?.[best] ?? `a ${best}`;
    return `${sign}, ${Math.round(100 * chances[best])} %`;
  }

  /** One sentence for readers who do not see the picture. */
  say() {
    const parts = this.runs.map((run) => {
      const k = Math.min(this.state.step, run.states.length - 1);
      const verdict = run.states[k] ? this.verdict(run, run.states[k]) : "";
      return `${run.method.name} ${pixels(run.errors[k])} off${verdict ? `, sees ${verdict}` : ""}`;
    });
    if (!this.player.playing)
      this.said.textContent = `Step ${this.state.step}: ${parts.join("; ")}.`;
  }
}

// The handles: where they lie, what dragging does to the corners, and what an arrow key does.

const ARROWS = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, -1],
  ArrowDown: [0, 1],
};
const plus = ([a, b], [c, d]) => [a + c, b + d];
const minus = ([a, b], [c, d]) => [a - c, b - d];
const middle = (...all) =>
  [0, 1].map(
    (axis) => all.reduce((sum, x) => sum + x[axis], 0) / all.length,
  );
const turn = (corners, angle) => {
  const center = middle(...corners),
    [c, s] = [Math.cos(angle), Math.sin(angle)];
  return corners.map((x) => {
    const [u, v] = minus(x, center);
    return plus(center, [c * u - s * v, s * u + c * v]);
  });
};
const angleOf = (corners, x) => {
  const [u, v] = minus(x, middle(...corners));
  return Math.atan2(v, u);
};
const shear = (corners, by) => {
  const along = minus(corners[1], corners[0]),
    length = Math.hypot(...along),
    e = along.map((v) => v / length);
  const move = (e[0] * by[0] + e[1] * by[1]) / 2,
    sign = [-1, -1, 1, 1];
  return corners.map((x, i) =>
    plus(
      x,
      e.map((v) => sign[i] * move * v),
    ),
  );
};
/**
 * Corner i goes to a place. An affine box keeps its neighbors, and the
 * opposite corner is free to follow.
 */
const pull = (corners, i, to, family) =>
  corners.map((x, j) =>
    j === i ? to : family === "affine" && j === (i + 2) % 4 ? null : x,
  );

const HANDLES = [
  {
    name: "move",
    label: "Move the box: drag it, or arrow keys (with Shift five pixels)",
    at: (c) => middle(...c),
    drag: (c, from, to) => c.map((x) => plus(x, minus(to, from))),
    keys: (c, by) => c.map((x) => plus(x, by)),
  },
  {
    name: "turn",
    label: "Turn the box: drag, or arrow keys",
    at: (c) =>
      plus(
        middle(c[0], c[1]),
        middle(c[0], c[1]).map((v, a) => 0.22 * (v - middle(...c)[a])),
      ),
    drag: (c, from, to) => turn(c, angleOf(c, to) - angleOf(c, from)),
    keys: (c, [x, y]) => turn(c, ((x + y) * Math.PI) / 90),
  },
  {
    name: "shear",
    label: "Shear the box: drag, or arrow keys",
    at: (c) => middle(c[2], c[3]),
    drag: (c, from, to) =>
      shear(
        c,
        minus(to, from).map((v) => 2 * v),
      ),
    keys: (c, by) =>
      shear(
        c,
        by.map((v) => 2 * v),
      ),
  },
  ...["top left", "top right", "bottom right", "bottom left"].map(
    (where, i) => ({
      name: "corner",
      label: `Pull the ${where} corner: drag, or arrow keys`,
      at: (c) => c[i],
      drag: (c, from, to, family) =>
        pull(c, i, plus(c[i], minus(to, from)), family),
      keys: (c, by, family) => pull(c, i, plus(c[i], by), family),
    }),
  ),
];

customElements.define("icstn-live", Live);
