// Finds media, and shows all that is known of one.

import { get, mediaPath } from "./api.js";
import { auditTable } from "./audit.js";
import { badge, button, bytes, card, field, h, number, plural, select, t, tellError, time } from "./dom.js";
import { actOn, actOnAll, ACTIONS } from "./media_actions.js";
import { pictureBox } from "./pictures.js";

const FILTERS = [
  "user_id", "server_name", "content_type", "upload_name", "sha256", "state", "remote", "quarantined", "pinned", "held",
  "min_size_bytes", "max_size_bytes", "created_after_ts", "created_before_ts", "idle_since_ts",
];
const PAGE = 48;

/** Read an mxc or matrix.to address, a user, a hash, or a file name from one line of text. */
export function parseSearch(text) {
  const words = decodeURIComponentSafe(text.trim());
  const mxc = /(?:mxc:\/\/|\/(?:download|thumbnail)\/)([^/\s?#]+)\/([A-Za-z0-9_-]+)/.exec(words);
  if (mxc) return { mxc: `mxc://${mxc[1]}/${mxc[2]}` };
  const user = /(?:^|[#/])(@[^\s?#/]+:[^\s?#/]+)/.exec(words);
  if (user) return { user_id: user[1] };
  if (/^[0-9a-fA-F]{64}$/.test(words)) return { sha256: words.toLowerCase() };
  return words ? { upload_name: words } : {};
}

function decodeURIComponentSafe(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

export const detailLink = (mxc) =>
  `#/media/${mxc.slice("mxc://".length).split("/").map(encodeURIComponent).join("/")}`;

const listLink = (query) => `#/media?${new URLSearchParams(Object.entries(query).filter(([, value]) => value !== ""))}`;

export async function mediaPage({ query, signal }) {
  const filters = Object.fromEntries(FILTERS.filter((name) => query.get(name)).map((name) => [name, query.get(name)]));
  const search = { ...filters, order_by: query.get("order_by") ?? "created_ts", limit: PAGE };
  const counting = get("/media_count", { ...filters, limit: 10_000 }, signal);
  counting.catch(() => {}); // awaited below, once the page is there
  const page = await get("/media", search, signal);
  let count = null;
  const chosen = new Map();
  const grid = h("ul", { class: "grid", "aria-label": t("nav.media") });
  const bar = h("div", { class: "selection", role: "group", "aria-label": t("selection") });
  const told = h("p", { class: "quiet", role: "status" }, t("media.counting"));
  const refresh = () => bar.replaceChildren(...selectionBar(chosen, filters, count, grid));
  const more = button(t("more"), () => load());
  let next = page.next;
  function add(found) {
    grid.append(...found.media.map((one) => tile(one, chosen, refresh)));
    next = found.next;
    more.hidden = next === null;
  }
  async function load() {
    add(await get("/media", { ...search, after: next }, signal));
  }
  add(page);
  refresh();
  counting.then((answer) => {
    count = answer;
    told.textContent = count.more ? t("media.many", { count: number(count.media_count) })
      : `${plural("media", count.media_count)}, ${bytes(count.size_bytes)}`;
    refresh();
  }).catch((error) => { told.textContent = `${t("media.uncounted")} ${error.message}`; });
  return [searchForm(query), told, bar, grid,
    page.media.length === 0 ? h("p", {}, t("media.none")) : null, h("p", { class: "more" }, more)].filter(Boolean);
}

function searchForm(query) {
  const words = h("input", { type: "search", name: "words", value: "", placeholder: t("search.placeholder") });
  const yesNo = (name) => select(name, [["", t("any")], ["true", t("yes")], ["false", t("no")]], query.get(name) ?? "");
  const text = (name, attributes = {}) => h("input", { name, value: query.get(name) ?? "", ...attributes });
  const states = ["ready", "pending", "missing", "trashed"].map((name) => [name, t(`media.state.${name}`)]);
  const orders = ["created_ts", "last_access_ts", "size_bytes"].map((name) => [name, t(`order.${name}`)]);
  const dates = { created_after_ts: 0, created_before_ts: 0 };
  const date = (name) => h("input", { type: "date", name, value: query.get(name) ? dayOf(Number(query.get(name))) : "" });
  const form = h("form", {
    class: "search",
    role: "search",
    onsubmit: (event) => {
      event.preventDefault();
      const { mxc, ...found } = parseSearch(words.value);
      if (mxc) { location.hash = detailLink(mxc); return; }
      const wanted = Object.fromEntries(new FormData(form));
      delete wanted.words;
      for (const name of Object.keys(dates)) if (wanted[name]) wanted[name] = String(Date.parse(wanted[name]));
      location.hash = listLink({ ...wanted, ...found });
    },
  },
  h("div", { class: "line" }, field(t("search"), words, t("search.hint")), h("button", { type: "submit", class: "primary" }, t("search.submit"))),
  h("details", { open: FILTERS.some((name) => query.get(name)) }, h("summary", {}, t("search.more")),
    h("div", { class: "fields" },
      field(t("user"), text("user_id", { placeholder: "@user:example.org" })),
      field(t("server"), text("server_name")),
      field(t("type"), text("content_type", { placeholder: "image/" })),
      field(t("name"), text("upload_name")),
      field(t("sha256"), text("sha256", { pattern: "[0-9a-f]{64}" })),
      field(t("state"), select("state", [["", t("any")], ...states], query.get("state") ?? "")),
      field(t("remote"), yesNo("remote")),
      field(t("quarantined"), yesNo("quarantined")),
      field(t("pinned"), yesNo("pinned")),
      field(t("held"), yesNo("held")),
      field(t("size.min"), text("min_size_bytes", { type: "number", min: 0 })),
      field(t("size.max"), text("max_size_bytes", { type: "number", min: 0 })),
      field(t("created.after"), date("created_after_ts")),
      field(t("created.before"), date("created_before_ts")),
      field(t("order"), select("order_by", orders, query.get("order_by") ?? "created_ts")))));
  return form;
}

const dayOf = (ms) => new Date(ms).toISOString().slice(0, 10);

export function badges(one) {
  return [
    one.state === "ready" ? null : badge(t(`media.state.${one.state}`), one.state === "missing" ? "bad" : ""),
    one.quarantined_by ? badge(t("quarantined"), "bad") : null,
    one.held_by ? badge(t("held"), "strong") : null,
    one.pinned_by ? badge(t("pinned"), "strong") : null,
    one.protected ? badge(t("protected"), "good") : null,
    one.remote ? badge(t("remote")) : null,
  ].filter(Boolean);
}

function tile(one, chosen, refresh) {
  const name = one.upload_name ?? one.mxc.slice("mxc://".length);
  const box = h("input", {
    type: "checkbox",
    "aria-label": t("select.one", { name }),
    onchange: () => {
      if (box.checked) chosen.set(one.mxc, one);
      else chosen.delete(one.mxc);
      box.closest("li").classList.toggle("chosen", box.checked);
      refresh();
    },
  });
  return h("li", { class: "tile" }, box, pictureBox(one),
    h("a", { href: detailLink(one.mxc), title: one.mxc }, name),
    h("div", { class: "quiet" }, `${one.content_type} · ${bytes(one.size_bytes)}`),
    h("div", { class: "quiet" }, one.uploaded_by ?? one.mxc.slice("mxc://".length).split("/")[0]),
    h("div", { class: "badges" }, badges(one)));
}

function selectionBar(chosen, filters, count, grid) {
  const actions = (run, wanted) => Object.keys(ACTIONS).filter(wanted).map((name) =>
    button(t(`action.${name}`), () => run(name).catch(tellError), { class: ACTIONS[name].danger ? "danger" : null }));
  if (chosen.size > 0) {
    const clear = () => { for (const box of grid.querySelectorAll("input:checked")) box.click(); };
    return [h("span", {}, plural("selected", chosen.size)), ...actions((name) => actOn(name, [...chosen.values()]), (name) => [...chosen.values()].some(ACTIONS[name].applies)),
      button(t("selection.clear"), clear, { class: "quiet" })];
  }
  if (Object.keys(filters).length === 0 || count === null || count.media_count === 0) return [h("span", { class: "quiet" }, t("selection.hint"))];
  const what = count.more ? t("matching.many", { count: number(count.media_count) }) : plural("matching", count.media_count);
  return [h("details", {}, h("summary", {}, what), h("div", { class: "buttons" }, actions((name) => actOnAll(name, filters, count), () => true)))];
}

export async function mediaDetailPage({ parts: [, server, id], signal }) {
  const mxc = `mxc://${server}/${id}`;
  const one = await get(mediaPath(mxc), {}, signal);
  const [copies, history] = await Promise.all([
    one.sha256 === null ? { media: [one] } : get("/media", { sha256: one.sha256, limit: 100 }, signal),
    get("/audit", { target: mxc, limit: 50 }, signal),
  ]);
  const first = copies.media.reduce((oldest, other) => (other.created_ts < oldest.created_ts ? other : oldest), copies.media[0] ?? one);
  const refresh = () => dispatchEvent(new Event("hashchange"));
  const run = (name) => actOn(name, [one]).then((done) => done && refresh()).catch(tellError);
  return [
    h("p", { class: "address" }, h("code", {}, mxc), ...badges(one)),
    h("div", { class: "detail" }, pictureBox(one, { large: true }), card(t("facts"), facts(one))),
    h("div", { class: "buttons actions" }, Object.keys(ACTIONS).filter((name) => ACTIONS[name].applies(one)).map((name) =>
      button(t(`action.${name}`), () => run(name), { class: ACTIONS[name].danger ? "danger" : null }))),
    card(t("copies"), h("p", { class: "quiet" }, plural("copies.count", copies.media.length)),
      h("ul", { class: "copies" }, copies.media.map((other) => h("li", {},
        h("a", { href: detailLink(other.mxc) }, other.mxc), " ", other.uploaded_by ?? "", " ", time(other.created_ts), " ",
        other.mxc === first.mxc ? badge(t("copies.first")) : null, ...badges(other))))),
    card(t("history"), history.entries.length ? auditTable(history.entries, refresh) : h("p", { class: "quiet" }, t("history.none"))),
  ];
}

function facts(one) {
  const link = (name, value) => h("a", { href: listLink({ [name]: value }) }, value);
  const rows = [
    ["name", one.upload_name ?? "–"],
    ["type.declared", one.content_type],
    ["size", one.size_bytes === null ? "–" : `${bytes(one.size_bytes)} (${number(one.size_bytes)})`],
    ["user", one.uploaded_by ? link("user_id", one.uploaded_by) : "–"],
    ["server", link("server_name", one.mxc.slice("mxc://".length).split("/")[0])],
    ["created", time(one.created_ts)],
    ["accessed", time(one.last_access_ts)],
    ["sha256", one.sha256 ? h("code", {}, one.sha256) : "–"],
    ["authenticated", one.authenticated ? t("yes") : t("no")],
    ["quarantined", one.quarantined_by ?? t("no")],
    ["held", one.held_by ?? t("no")],
    ["pinned", one.pinned_by ?? t("no")],
    ["protected", one.protected ? t("yes") : t("no")],
    ...(one.trashed_ts === null ? [] : [["trashed", time(one.trashed_ts)]]),
  ];
  return h("dl", { class: "facts" }, rows.flatMap(([name, value]) => [h("dt", {}, t(name)), h("dd", {}, value)]));
}
