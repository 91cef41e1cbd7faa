// Builds the page. Text only ever becomes text nodes and attributes: nothing here parses markup.

let texts = {};

export async function loadTexts(url) {
  texts = await (await fetch(url)).json();
}

/** Return a text of en.json, with {name} replaced by values. */
export function t(key, values = {}) {
  const text = texts[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (_, name) => String(values[name] ?? ""));
}

/** Return a text in the singular or the plural: key.one, key.other. */
export function plural(key, count, values = {}) {
  return t(`${key}.${count === 1 ? "one" : "other"}`, { count: number(count), ...values });
}

/** Make an element: attributes by name, `on…` for listeners, then children (text, elements, null). */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

/** The same for SVG. */
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  element.append(...children);
  return element;
}

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** Format a number of bytes. */
export function bytes(value) {
  if (value === null || value === undefined) return "–";
  let unit = 0;
  let size = Number(value);
  while (Math.abs(size) >= 1024 && unit < UNITS.length - 1) {
    size /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || Math.abs(size) >= 100 ? 0 : 1;
  return `${size.toLocaleString("en", { maximumFractionDigits: digits })}\u202f${UNITS[unit]}`;
}

export const number = (value) => Number(value).toLocaleString("en");

/** Format a time, in ms since 1970, in the reader's time zone. */
export function time(ms) {
  if (ms === null || ms === undefined) return h("span", {}, "–");
  const date = new Date(ms);
  if (Number.isNaN(date.valueOf())) return h("span", {}, String(ms));
  const text = date.toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
  return h("time", { datetime: date.toISOString(), title: date.toISOString() }, text);
}

/** Make a table; cells are text or elements. `numeric` are the places of columns that hold numbers. */
export function table(caption, head, rows, numeric = []) {
  const kind = (place) => (numeric.includes(place) ? "number" : null);
  const label = (name) => (typeof name === "string" ? name : "");
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h("table", {},
      h("caption", { class: "unseen" }, caption),
      h("thead", {}, h("tr", {}, head.map((name, place) => h("th", { scope: "col", class: kind(place) }, name)))),
      h("tbody", {}, rows.map((cells) => h("tr", {}, cells.map((cell, place) =>
        h("td", { class: kind(place), "data-label": label(head[place]) }, cell)))))));
}

export const button = (text, onclick, attributes = {}) => h("button", { type: "button", onclick, ...attributes }, text);

let fields = 0;

/** Make a labelled field around an input; gives both. */
export function field(label, input, hint = null) {
  fields += 1;
  input.id = `field-${fields}`;
  const about = hint === null ? null : h("small", { id: `hint-${fields}` }, hint);
  if (about !== null) input.setAttribute("aria-describedby", about.id);
  return h("div", { class: "field" }, h("label", { for: input.id }, label), input, about);
}

export function select(name, choices, chosen = "") {
  return h("select", { name }, choices.map(([value, text]) =>
    h("option", { value, selected: value === chosen }, text)));
}

/** Put something into the live region, so that it is seen and read out. */
export function tell(...content) {
  const place = document.getElementById("told");
  place.replaceChildren(h("div", { class: "notice" }, h("div", {}, ...content),
    button("×", () => place.replaceChildren(), { class: "quiet", "aria-label": t("close") })));
}

export function tellError(error) {
  tell(h("strong", {}, t("failed")), " ", error.message);
}

/** Ask before something is done; resolves to {reason} or null. */
export function confirm({ title, content = [], action, danger = false, reason = true }) {
  return new Promise((resolve) => {
    const why = h("textarea", { rows: 2, maxlength: 2000, name: "reason" });
    const form = h("form", { onsubmit: (event) => { event.preventDefault(); end({ reason: why.value.trim() || null }); } },
      h("h2", { id: "dialog-title" }, title), ...content,
      reason ? field(t("reason"), why, t("reason.hint")) : null,
      h("div", { class: "buttons" },
        button(t("cancel"), () => end(null)),
        h("button", { type: "submit", class: danger ? "danger" : "primary" }, action)));
    const dialog = h("dialog", { "aria-labelledby": "dialog-title", oncancel: () => end(null) }, form);
    function end(value) {
      dialog.close();
      dialog.remove();
      resolve(value);
    }
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** Make a box with a heading. */
export function card(title, ...content) {
  return h("section", { class: "card" }, h("h2", {}, title), ...content);
}

export const badge = (text, kind = "") => h("span", { class: `badge ${kind}` }, text);
