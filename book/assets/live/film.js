// <icstn-film>: an alignment step by step, from warps that were computed when the page was made.
//
// Inside the element there is a still picture, for where scripts are off, and a <script type="application/json">
// with what icstn.exhibits.films wrote:
//
//     {rows: [{name, picture: {channels, height, width, bytes (base64)}, frame, family, truth,
//              tracks: [{name, resampled, p: […], dp: […], errors: […], notes: […]}]}], unit, autoplay}
//
// It plays by itself only while it is on the screen, and never for readers who ask for less motion.

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
  still,
} from "./drawing.js";
import { sample } from "./ops.js";
import { matrix } from "./warps.js";

class Film extends HTMLElement {
  connectedCallback() {
    if (this.controls) return;
    const film = JSON.parse(this.querySelector("script").textContent);
    const rows = film.rows.map((row) => new Row(row));
    const last = Math.max(...rows.map((row) => row.last));
    this.controls = player({
      label: this.getAttribute("label") ?? "Film",
      last: () => last,
      loop: true,
      show: (step) => rows.forEach((row) => row.show(step)),
    });
    this.querySelector(".il-still")?.setAttribute("hidden", "");
    this.prepend(
      element(
        "div",
        { class: "il-film" },
        rows.map((row) => row.node),
        this.controls.node,
      ),
    );
    this.controls.go(0);
    if (film.autoplay && !still()) this.watch();
  }

  watch() {
    const seenNow = new IntersectionObserver(
      ([entry]) => {
        if (entry.isIntersecting) this.controls.play();
        else this.controls.pause();
      },
      { threshold: 0.4 },
    );
    this.controls.node.addEventListener(
      "click",
      () => seenNow.disconnect(),
      { once: true },
    );
    seenNow.observe(this);
  }
}

class Row {
  constructor(row) {
    const { picture } = row,
      bytes = Uint8Array.from(atob(picture.bytes), (c) => c.charCodeAt(0));
    this.row = row;
    this.picture = display(picture, bytes);
    this.tracks = row.tracks.map((track, i) => this.track(track, i));
    this.last = Math.max(...row.tracks.map((track) => track.p.length - 1));
    const { canvas, over, ratio } = staged(
      this.picture,
      margin(row, this.picture),
    );
    if (row.truth)
      over.append(
        drawn("polygon", {
          class: "il-truth",
          points: points(quad(row, row.truth)),
        }),
      );
    over.append(...this.tracks.map((track) => track.outline));
    const stage = element(
      "div",
      { class: "il-stage", style: `aspect-ratio:${ratio}` },
      canvas,
      over,
    );
    this.node = element(
      "div",
      { class: "il-row", role: "group", "aria-label": row.name },
      element(
        "div",
        { class: "il-source" },
        stage,
        element("span", { class: "il-name" }, row.name),
      ),
      this.tracks.map((track) => track.node),
    );
  }

  track(track, i) {
    const canvas = element("canvas", { class: "il-tile" }),
      text = element("span", { class: "il-note" });
    const parts = [canvas],
      states = track.p.map((p, k) => ({ p, dp: track.dp[k] }));
    const residual =
      this.row.truth && track.residual
        ? element("canvas", { class: "il-tile" })
        : null;
    const update = element("span", { class: "il-change" });
    if (residual) parts.push(residual);
    return {
      outline: drawn("polygon", { class: `il-outline il-c${i}` }),
      node: element(
        "div",
        { class: `il-lane il-c${i}` },
        element("span", { class: "il-name" }, track.name),
        element("div", { class: "il-tiles" }, parts),
        text,
        update,
      ),
      show: (step, outline) => {
        const k = Math.min(step, states.length - 1),
          view = seen(this.picture, { ...this.row, ...track }, states, k);
        paint(canvas, view);
        if (residual) paint(residual, this.difference(view));
        outline.setAttribute("points", points(quad(this.row, states[k].p)));
        text.textContent = [pixels(track.errors[k]), track.notes?.[k]]
          .filter(Boolean)
          .join(" · ");
        update.replaceChildren(...change(states[k].dp, "done"));
      },
    };
  }

  difference(view) {
    this.template ??= sample(
      this.picture,
      matrix(this.row.family, this.row.truth),
      this.row.frame,
    );
    return {
      ...view,
      data: view.data.map(
        (value, i) => (value - this.template.data[i] + 1) / 2,
      ),
    };
  }

  show(step) {
    this.tracks.forEach((track) => track.show(step, track.outline));
  }
}

/**
 * The part of the plane to show: the picture and whatever the boxes reach,
 * up to a third more on each side.
 */
function margin(row, { height, width }) {
  const all = row.tracks.flatMap((track) =>
    track.p.flatMap((p) => quad(row, p)),
  );
  const reach = (values, size) => [
    Math.max(-size / 3, Math.min(0, ...values) - 1),
    Math.min((4 * size) / 3, Math.max(size, ...values) + 1),
  ];
  const [left, right] = reach(
      all.map(([x]) => x),
      width,
    ),
    [top, bottom] = reach(
      all.map(([, y]) => y),
      height,
    );
  return { x: left, y: top, width: right - left, height: bottom - top };
}

customElements.define("icstn-film", Film);
