// Charts drawn as SVG, each with its numbers as a table. Series differ by dash and mark, not only by colour.

import { element } from "./mall.js";

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 220;
const LEAST_WIDTH = 280;
const ROW = 34;
const MARKS = 24;
let count = 0;

/** An SVG element. */
function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** Round numbers from 0 to at least `most`, about so many: `[0, 5, 10]`. Only whole ones if `whole`. */
export function ticks(most, about = 4, whole = false) {
  const raw = Math.max(most, whole ? 1 : 1e-9) / about;
  const power = 10 ** Math.floor(Math.log10(raw));
  const rounded = [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= raw * 0.999);
  const step = whole ? Math.max(1, Math.round(rounded)) : rounded;
  const end = Math.ceil(most / step - 1e-9) || 1;
  return Array.from({ length: end + 1 }, (_, at) => at * step);
}

/** As `ticks`, for seconds: full seconds, minutes and hours. */
export function secondTicks(most, about = 4) {
  const steps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400];
  const step = steps.find((one) => one * about >= most) ?? Math.ceil(most / about / 86400) * 86400;
  return Array.from({ length: (Math.ceil(most / step) || 1) + 1 }, (_, at) => at * step);
}

/** Moments from `begin` to `end` (milliseconds) at full local hours or minutes, about so many. */
function timeTicks(begin, end, about) {
  const minutes = [1, 2, 5, 10, 15, 30, 60, 120, 180, 240, 360, 720, 1440];
  const step = (minutes.find((one) => (end - begin) / (one * 60_000) <= about) ?? 1440) * 60_000;
  const midnight = new Date(begin).setHours(0, 0, 0, 0);
  const first = midnight + Math.ceil((begin - midnight) / step) * step;
  return Array.from({ length: Math.max(0, Math.floor((end - first) / step) + 1) }, (_, at) => first + at * step);
}

const clock = (at) => new Date(at).toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit" });

/** A figure that is drawn again in place. `line` and `bars` fill it. */
export class Chart {
  /** `empty` is said when there is nothing to draw. */
  constructor(into, title, { empty = "Nothing yet" } = {}) {
    const id = `chart-${count += 1}`;
    this.id = id;
    this.title = title;
    this.caption = element("h2", { id: `${id}-title` }, title);
    this.legend = element("p", { class: "chart-legend", "aria-hidden": "true" });
    this.picture = element("div", { class: "chart-picture" });
    this.value = element("p", { class: "chart-value", "aria-hidden": "true" });
    this.empty = element("p", { class: "empty" }, empty);
    this.numbers = element("div",
      { class: "table-wrap", tabindex: "0", role: "region", "aria-label": `${title}: numbers` });
    this.details = element("details", {}, element("summary", {}, "Numbers"), this.numbers);
    this.figure = element("section", { class: "card chart", "aria-labelledby": `${id}-title` },
      this.caption, this.legend, this.picture, this.value, this.empty, this.details);
    into.append(this.figure);
    this.draw = () => {};
    let width = 0;
    new ResizeObserver(([{ contentRect }]) => {
      if (Math.round(contentRect.width) === width) return;
      width = Math.round(contentRect.width);
      this.draw();
    }).observe(this.figure);
  }

  /** Call it otherwise. */
  name(title) {
    this.title = title;
    if (this.caption.textContent !== title) this.caption.textContent = title;
    this.numbers.setAttribute("aria-label", `${title}: numbers`);
  }

  get width() {
    return Math.max(LEAST_WIDTH, this.picture.clientWidth || this.figure.clientWidth - 34);
  }

  /** Lines over time, between `begin` and `end`. `points` are `{ at, values }`, with a value (or null) for each of
   * `series`; times are in milliseconds. `tell` says a value, `scale` gives the ticks for the largest. */
  line({ series, points, begin, end, tell, scale = ticks, description }) {
    const isEmpty = !points.some(({ values }) => values.some((value) => value !== null && value !== 0));
    this.fill(isEmpty, description, ["From", ...series],
      points.filter(({ values }) => values.some((value) => value !== null)).reverse() // the newest first
        .map(({ at, values }) => [clock(at), ...values.map((value) => (value === null ? "–" : tell(value)))]));
    this.legend.replaceChildren(...series.map((name, at) => element("span", { class: `series-${at}` },
      this.sample(at), name)));
    this.draw = () => !isEmpty && this.drawLine({ series, points, begin, end, tell, scale, description });
    this.draw();
  }

  drawLine({ series, points, begin, end, tell, scale, description }) {
    const { width } = this;
    const marks = scale(Math.max(...points.flatMap(({ values }) => values.map((value) => value ?? 0))));
    const labels = marks.map(tell);
    const left = Math.max(30, 12 + Math.max(...labels.map((label) => label.length)) * 7), right = width - 14;
    const top = 10, bottom = HEIGHT - 26;
    const x = (at) => left + ((at - begin) / (end - begin)) * (right - left);
    const y = (value) => bottom - (value / marks.at(-1)) * (bottom - top);
    const picture = this.canvas(width, HEIGHT, description);
    marks.forEach((mark, at) => picture.append(
      svg("line", { class: "chart-grid", x1: left, x2: right, y1: y(mark), y2: y(mark) }),
      svg("text", { x: left - 6, y: y(mark) + 4, "text-anchor": "end" }, labels[at])));
    for (const at of timeTicks(begin, end, Math.max(2, Math.floor((right - left) / 70)))) {
      picture.append(svg("line", { class: "chart-tick", x1: x(at), x2: x(at), y1: bottom, y2: bottom + 5 }));
      if (x(at) < width - 28) {
        picture.append(svg("text", { x: x(at), y: HEIGHT - 6, "text-anchor": "middle" }, clock(at)));
      }
    }
    series.forEach((_, number) => {
      let path = "", pen = false;
      for (const { at, values } of points) {
        const value = values[number];
        if (value !== null) path += `${pen ? "L" : "M"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`;
        pen = value !== null;
      }
      picture.append(svg("path", { class: `chart-line series-${number}`, d: path }));
      const set = points.filter(({ values }) => values[number] !== null);
      if (set.length <= MARKS) {
        for (const { at, values } of set) picture.append(this.mark(number, x(at), y(values[number])));
      }
    });
    const cursor = svg("line", { class: "chart-cursor", y1: top, y2: bottom, visibility: "hidden" });
    picture.append(cursor);
    this.follow(picture, points.map(({ at, values }) => ({
      x: x(at),
      says: `${clock(at)}: ${series.map((name, number) => `${name.toLowerCase()} ${
        values[number] === null ? "–" : tell(values[number])}`).join(", ")}`,
    })), cursor);
  }

  /** Bars, one a row. `rows` are `{ name, value, says }`, `says` being what stands beside the bar; `heads` and
   * `cells` are the table's. */
  bars({ rows, heads, cells, most, description }) {
    const isEmpty = rows.length === 0;
    this.fill(isEmpty, description, heads, cells);
    this.legend.hidden = this.value.hidden = true;
    const longest = most ?? Math.max(...rows.map(({ value }) => value));
    this.draw = () => !isEmpty && this.drawBars(rows, longest, description);
    this.draw();
  }

  drawBars(rows, most, description) {
    const { width } = this;
    const right = Math.max(20, width - 14 - Math.max(...rows.map(({ says }) => says.length)) * 8.5);
    const picture = this.canvas(width, rows.length * ROW + 4, description);
    rows.forEach(({ name, value, says }, at) => {
      const y = at * ROW, long = Math.max(value > 0 ? 2 : 0, (Math.max(0, value) / (most || 1)) * right);
      picture.append(
        svg("text", { class: "chart-name", x: 0, y: y + 13 }, fitted(name, width)),
        svg("rect", { class: "chart-back", x: 0, y: y + 18, width: right, height: 10, rx: 3 }),
        svg("rect", { class: "chart-bar", x: 0, y: y + 18, width: long.toFixed(1), height: 10, rx: 3 }),
        svg("text", { class: "chart-says", x: width - 2, y: y + 28, "text-anchor": "end" }, says));
    });
    this.place(picture);
  }

  /** Make the table, and show what there is. */
  fill(isEmpty, description, heads, cells) {
    this.picture.hidden = this.value.hidden = this.legend.hidden = this.details.hidden = isEmpty;
    this.empty.hidden = !isEmpty;
    if (isEmpty) this.picture.replaceChildren();
    const [first, ...rest] = heads;
    const table = element("table", {},
      element("caption", { class: "visually-hidden" }, `${this.title}. ${description}`),
      element("thead", {}, element("tr", {}, element("th", { scope: "col" }, first),
        ...rest.map((head) => element("th", { scope: "col", class: "number" }, head)))),
      element("tbody", {}, ...cells.map(([name, ...values]) => element("tr", {},
        element("th", { scope: "row" }, name),
        ...values.map((value) => element("td", { class: "number" }, value))))));
    const { scrollTop } = this.numbers;
    this.numbers.replaceChildren(table);
    this.numbers.scrollTop = scrollTop;
  }

  canvas(width, height, description) {
    const { id } = this;
    return svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img",
      "aria-labelledby": `${id}-svg-title ${id}-desc` },
    svg("title", { id: `${id}-svg-title` }, this.title), svg("desc", { id: `${id}-desc` }, description));
  }

  /** Put a new picture in the place of the old one, at once. */
  place(picture) {
    this.picture.replaceChildren(picture);
  }

  /** Say below what is where the pointer is; for the keyboard and for screen readers there is the table. */
  follow(picture, stops, cursor) {
    const { picture: box, value } = this;
    const show = (at) => {
      this.at = at;
      const stop = stops[at];
      cursor.setAttribute("visibility", stop ? "visible" : "hidden");
      if (stop) cursor.setAttribute("x1", stop.x), cursor.setAttribute("x2", stop.x);
      value.textContent = stop?.says ?? "";
    };
    box.onpointermove = (event) => {
      const x = event.clientX - picture.getBoundingClientRect().left;
      show(stops.reduce((best, stop, at) => (Math.abs(stop.x - x) < Math.abs(stops[best].x - x) ? at : best), 0));
    };
    box.onpointerleave = () => show(-1);
    this.place(picture);
    show(Math.min(this.at ?? -1, stops.length - 1));
  }

  /** What a series looks like, for the legend. */
  sample(number) {
    const size = { viewBox: "0 0 32 12", width: 32, height: 12 };
    return svg("svg", { class: "chart-sample", "aria-hidden": "true", ...size },
      svg("path", { class: `chart-line series-${number}`, d: "M0 6L32 6" }), this.mark(number, 16, 6));
  }

  mark(number, x, y) {
    const common = { class: `chart-mark series-${number}` };
    return number === 0 ? svg("circle", { ...common, cx: x.toFixed(1), cy: y.toFixed(1), r: 2.5 })
      : svg("rect", { ...common, x: (x - 2.5).toFixed(1), y: (y - 2.5).toFixed(1), width: 5, height: 5 });
  }
}

/** A name that fits in so many pixels. */
function fitted(name, width) {
  const most = Math.floor(width / 7.5);
  return name.length > most ? `${name.slice(0, most - 1)}…` : name;
}
