// Plots of amounts over days, as SVG, with the same figures in a table.

import { bytes, h, number, svg, t, table } from "./dom.js";

const WIDTH = 640, HEIGHT = 240, LEFT = 64, RIGHT = 12, TOP = 12, BOTTOM = 28;

/** Choose round marks from 0 to at least `most`; in powers of 1024 for bytes. */
export function ticks(most, inBytes) {
  let unit = 1;
  if (inBytes) while (unit * 1024 <= most) unit *= 1024;
  const scaled = Math.max(most / unit, inBytes ? 0 : 1) / 4;
  const power = 10 ** Math.floor(Math.log10(scaled || 1));
  const step = ([1, 2, 5, 10].find((one) => one * power >= scaled) ?? 10) * power * unit;
  return Array.from({ length: Math.ceil(most / step) + 1 }, (_, place) => place * step);
}

/**
 * Plot series over days, each on top of the one before.
 * series: [{name, values}], values as many as days (YYYY-MM-DD, not necessarily all of them).
 */
export function stackedPlot(title, days, series, { inBytes = true } = {}) {
  const show = inBytes ? bytes : number;
  const sums = days.map((_, place) => series.reduce((sum, one) => sum + one.values[place], 0));
  const marks = ticks(Math.max(...sums, 1), inBytes);
  const times = days.map((day) => Date.parse(day));
  const span = Math.max(times.at(-1) - times[0], 1);
  const x = (place) => LEFT + (days.length === 1 ? 0.5 : (times[place] - times[0]) / span) * (WIDTH - LEFT - RIGHT);
  const y = (value) => HEIGHT - BOTTOM - (value / marks.at(-1)) * (HEIGHT - TOP - BOTTOM);
  const drawing = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "plot", role: "img", "aria-label": title });
  for (const mark of marks) {
    const text = svg("text", { x: LEFT - 8, y: y(mark) + 4, class: "y" }, show(mark));
    drawing.append(svg("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(mark), y2: y(mark), class: "grid" }), text);
  }
  const count = Math.min(days.length, 4);
  for (let mark = 0; mark < count; mark += 1) {
    const place = count === 1 ? 0 : Math.round((mark * (days.length - 1)) / (count - 1));
    const anchor = days.length === 1 ? "middle" : mark === 0 ? "start" : mark === count - 1 ? "end" : "middle";
    drawing.append(svg("text", { x: x(place), y: HEIGHT - 8, "text-anchor": anchor }, shortDay(days[place])));
  }
  drawing.append(...layers(series, days, x, y));
  return h("figure", {}, h("figcaption", {}, title), legend(series), drawing, figures(title, days, series, show));
}

function layers(series, days, x, y) {
  const below = days.map(() => 0);
  return series.map((one, colour) => {
    const bottom = days.map((_, place) => [x(place), y(below[place])]);
    one.values.forEach((value, place) => { below[place] += value; });
    const top = days.map((_, place) => [x(place), y(below[place])]);
    if (days.length === 1) {
      const [[at, high]] = top;
      return svg("rect", { x: at - 24, width: 48, y: high, height: Math.max(bottom[0][1] - high, 0), class: `c${colour % 6}` });
    }
    const path = [...top, ...bottom.reverse()].map((point) => point.map((one) => one.toFixed(1)).join(",")).join("L");
    return svg("path", { d: `M${path}Z`, class: `c${colour % 6}` });
  });
}

const shortDay = (day) =>
  new Date(`${day}T00:00:00Z`).toLocaleDateString("en-GB", { day: "numeric", month: "short", timeZone: "UTC" });

function legend(series) {
  return h("ul", { class: "legend" }, series.map((one, colour) =>
    h("li", {}, h("span", { class: `swatch c${colour % 6}` }), one.name)));
}

function figures(title, days, series, show) {
  const rows = days.map((day, place) => [day, ...series.map((one) => show(one.values[place]))]).reverse();
  return h("details", {}, h("summary", {}, t("plot.figures")),
    table(title, [t("day"), ...series.map((one) => one.name)], rows, series.map((_, place) => place + 1)));
}

/** Show a list of amounts as bars. */
export function bars(title, rows) {
  const most = Math.max(...rows.map((row) => row.value), 1);
  return h("ul", { class: "bars", "aria-label": title }, rows.map((row) => {
    const width = Math.max((row.value / most) * 100, 0.5);
    const bar = svg("svg", { viewBox: "0 0 100 4", preserveAspectRatio: "none", "aria-hidden": "true" },
      svg("rect", { width: 100, height: 4, class: "track" }), svg("rect", { width, height: 4, class: "c0" }));
    return h("li", {}, h("div", {}, row.label, h("span", { class: "number" }, row.text)), bar);
  }));
}
