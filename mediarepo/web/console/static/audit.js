// Who did what, when, and from where.

import { get } from "./api.js";
import { button, confirm, field, h, number, t, table, tellError, time } from "./dom.js";
import { detailLink } from "./media.js";
import { ACTIONS, run } from "./media_actions.js";

const KNOWN = [
  "view", "quarantine", "unquarantine", "delete", "restore", "hold", "release", "pin", "unpin", "protect", "unprotect",
  "quarantine_user", "quarantine_server", "unquarantine_server", "quarantine_hash", "arm_retention", "disarm_retention",
];
const MOST_ROWS = 100_000;

export async function auditPage({ query, signal }) {
  const filters = {};
  for (const name of ["admin", "action", "target"]) filters[name] = query.get(name) ?? "";
  for (const name of ["since", "until"]) if (query.get(name)) filters[`${name}_ts`] = Date.parse(query.get(name));
  const place = h("div");
  let entries = [];
  const more = button(t("more"), () => load().catch(tellError));
  async function load() {
    const found = await get("/audit", { ...filters, limit: 100, before_id: entries.at(-1)?.entry_id }, signal);
    entries = [...entries, ...found.entries];
    more.hidden = found.entries.length < 100;
    place.replaceChildren(entries.length ? auditTable(entries) : h("p", {}, t("nothing")));
  }
  await load();
  return [form(query, () => exportCsv(filters).catch(tellError)), place, h("p", { class: "more" }, more)];
}

function form(query, save) {
  const text = (name, attributes = {}) => h("input", { name, value: query.get(name) ?? "", ...attributes });
  const shown = h("form", {
    class: "search",
    onsubmit: (event) => {
      event.preventDefault();
      const given = [...new FormData(shown)].filter(([, value]) => value !== "");
      location.hash = `#/audit?${new URLSearchParams(given)}`;
    },
  }, h("div", { class: "fields" },
    field(t("audit.admin"), text("admin")),
    field(t("audit.action"), text("action", { list: "actions" })),
    field(t("audit.target"), text("target", { placeholder: "mxc://…" })),
    field(t("audit.since"), text("since", { type: "date" })),
    field(t("audit.until"), text("until", { type: "date" }))),
  h("datalist", { id: "actions" }, KNOWN.map((name) => h("option", { value: name }))),
  h("div", { class: "buttons" }, h("button", { type: "submit", class: "primary" }, t("search.submit")),
    button(t("audit.csv"), save)));
  return shown;
}

/** Make the table of entries, with a button to undo where there is an opposite. */
export function auditTable(entries, refresh = null) {
  const head = ["audit.when", "audit.admin", "audit.action", "audit.target", "audit.affected", "audit.reason", "audit.from", "audit.undo"];
  const rows = entries.map((one) => [
    time(one.created_ts), one.admin, one.action,
    one.target.startsWith("mxc://") ? h("a", { href: detailLink(one.target) }, one.target) : one.target,
    number(one.affected), one.reason ?? "–", one.client_address ?? "–",
    ACTIONS[one.action] && one.target.startsWith("mxc://") && one.affected > 0 ? undoButton(one, refresh) : "",
  ]);
  return table(t("nav.audit"), head.map((name) => t(name)), rows, [4]);
}

function undoButton(entry, refresh) {
  return button(t("undo"), async () => {
    const told = await confirm({
      title: t(`action.${ACTIONS[entry.action].undo}.title`),
      content: [h("p", {}, h("code", {}, entry.target))],
      action: t(`action.${ACTIONS[entry.action].undo}`),
    });
    if (told === null) return;
    await run(ACTIONS[entry.action].undo, [entry.target], told.reason);
    refresh?.();
  }, { class: "small" });
}

const COLUMNS = ["created_ts", "admin", "homeserver", "action", "target", "affected", "reason", "client_address", "entry_id"];

/** Write a value for a CSV file; spreadsheets must not take it for a formula. */
export function csvCell(value) {
  let text = value === null ? "" : String(value);
  if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

async function exportCsv(filters) {
  const lines = [COLUMNS.join(",")];
  for (let before = null; lines.length <= MOST_ROWS;) {
    const { entries } = await get("/audit", { ...filters, limit: 1000, before_id: before });
    for (const one of entries) {
      lines.push(COLUMNS.map((name) => csvCell(name === "created_ts" ? new Date(one[name]).toISOString() : one[name])).join(","));
    }
    if (entries.length < 1000) break;
    before = entries.at(-1).entry_id;
  }
  const url = URL.createObjectURL(new Blob([`${lines.join("\r\n")}\r\n`], { type: "text/csv" }));
  const link = h("a", { href: url, download: "audit.csv" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
