// Where space and requests go, and what needs attention.

import { get } from "./api.js";
import { badge, bytes, card, h, number, plural, t, table, time } from "./dom.js";
import { bars, stackedPlot } from "./plot.js";

const DAY_MS = 86_400_000;

export async function overviewPage({ me, signal }) {
  const operator = me.server_name === null;
  const [classes, users, days, status, stores, jobs, tasks] = await Promise.all([
    get("/usage", { by: "class,server_name", limit: 200 }, signal),
    get("/usage", { by: "user_id", class: "local", limit: 10 }, signal),
    get("/usage_days", { days: 90 }, signal),
    operator ? get("/status", {}, signal) : null,
    operator ? get("/stores", {}, signal) : null,
    operator ? get("/jobs", {}, signal) : null,
    operator ? get("/tasks", { limit: 20 }, signal) : null,
  ]);
  return [
    status === null ? null : attention(status, jobs.jobs),
    totals(classes.usage, stores),
    h("div", { class: "columns" }, growth(days, status), largest(users.usage)),
    h("div", { class: "columns" },
      status === null ? null : backlog(status),
      jobs === null ? null : background(jobs.jobs, tasks.tasks)),
  ].filter(Boolean);
}

function attention(status, jobs) {
  const found = Object.entries(status.problems).map(([name, why]) => h("li", {}, h("strong", {}, name), ": ", why));
  for (const job of jobs.filter((one) => one.error !== null)) {
    found.push(h("li", {}, h("a", { href: "#/tasks" }, t("attention.job", { name: job.name })), ": ", job.error));
  }
  const { set_aside: aside = {}, ...rest } = status.attention;
  for (const [queue, count] of Object.entries(aside)) {
    found.push(h("li", {}, h("a", { href: "#/tasks" }, plural("attention.aside", count, { queue }))));
  }
  for (const [name, what] of Object.entries(rest)) {
    found.push(h("li", {}, h("strong", {}, t(`attention.${name}`)), ": ", JSON.stringify(what)));
  }
  if (found.length === 0) return h("p", { class: "allright" }, t("attention.none"));
  return h("section", { class: "card warning" }, h("h2", {}, t("attention")), h("ul", {}, found));
}

function totals(usage, stores) {
  const of = (name) => usage.filter((one) => one.group.class === name);
  const sum = (rows) => rows.reduce((total, one) => [total[0] + one.media_count, total[1] + one.size_bytes], [0, 0]);
  const boxes = ["local", "remote", "trashed"].map((name) => {
    const [count, size] = sum(of(name));
    return h("div", { class: "figure" }, h("dt", {}, t(`class.${name}`)), h("dd", {}, bytes(size)),
      h("dd", { class: "quiet" }, plural("media", count)));
  });
  const objects = stores?.stores.flatMap((store) => store.objects) ?? [];
  if (stores !== null) {
    const size = objects.filter((one) => one.object_class !== "borrowed").reduce((total, one) => total + one.size_bytes, 0);
    const count = objects.reduce((total, one) => total + one.object_count, 0);
    boxes.unshift(h("div", { class: "figure" }, h("dt", {}, t("stored")), h("dd", {}, bytes(size)),
      h("dd", { class: "quiet" }, plural("objects", count))));
  }
  return h("dl", { class: "figures" }, boxes);
}

/** Make one series for each class and homeserver, with 0 on days that lack it. */
function growth({ media, objects }, status) {
  const operator = status !== null;
  const rows = operator && objects.length ? objects.map((one) => [one.day, t(`object.${one.object_class}`), one.size_bytes])
    : media.map((one) => [one.day, one.server_name || t(`class.${one.usage_class}`), one.size_bytes]);
  const days = [...new Set(rows.map(([day]) => day))].sort();
  const names = [...new Set(rows.map(([, name]) => name))].sort();
  if (days.length === 0) return card(t("growth"), h("p", { class: "quiet" }, t("growth.none")));
  const series = names.map((name) => ({
    name,
    values: days.map((day) => rows.filter((row) => row[0] === day && row[1] === name).reduce((sum, row) => sum + row[2], 0)),
  }));
  const total = days.map((_, place) => series.reduce((sum, one) => sum + one.values[place], 0));
  return card(t("growth"), stackedPlot(t(operator ? "growth.stored" : "growth.media"), days, series),
    h("p", { class: "quiet" }, forecast(days, total, status)));
}

/** Say what the last 30 days mean for the next 30. */
function forecast(days, total, status) {
  const last = Date.parse(days.at(-1));
  const from = days.findIndex((day) => Date.parse(day) >= last - 30 * DAY_MS);
  const span = (last - Date.parse(days[from])) / DAY_MS;
  if (span < 1) return t("growth.soon");
  const perDay = (total.at(-1) - total[from]) / span;
  const then = Math.max(total.at(-1) + perDay * 30, 0);
  const rate = t("growth.rate", { rate: bytes(perDay * 30), days: number(span), then: bytes(then) });
  return status?.monthly_price_per_gib ? `${rate} ${cost(total.at(-1), then, status)}` : rate;
}

function cost(now, then, { monthly_price_per_gib: price, currency }) {
  const money = (size) => ((size / 2 ** 30) * price).toLocaleString("en", { style: "currency", currency });
  return t("growth.cost", { now: money(now), then: money(then) });
}

function largest(usage) {
  const rows = usage.filter((one) => one.group.user_id).map((one) => ({
    label: h("a", { href: `#/media?${new URLSearchParams({ user_id: one.group.user_id, order_by: "size_bytes" })}` }, one.group.user_id),
    value: one.size_bytes,
    text: bytes(one.size_bytes),
  }));
  return card(t("largest"), rows.length ? bars(t("largest"), rows) : h("p", { class: "quiet" }, t("nothing")));
}

function backlog(status) {
  const requests = Object.entries(status.requests).sort().map(([name, count]) => [t(`requests.${name}`), number(count)]);
  const waiting = Object.entries(status.backlog).map(([name, count]) => [t(`backlog.${name}`), number(count)]);
  return card(t("requests"), table(t("requests"), [t("requests.kind"), t("count")], requests, [1]),
    h("p", { class: "quiet" }, t("requests.hint")),
    h("h3", {}, t("backlog")), table(t("backlog"), [t("backlog.queue"), t("count")], waiting, [1]));
}

function background(jobs, tasks) {
  const fsck = tasks.find((one) => one.kind === "fsck");
  const rows = ["sweep", "journal", "retention", "usage_day"].map((name) => {
    const job = jobs.find((one) => one.name === name);
    if (!job) return [t(`job.${name}`), badge(t("never")), "–"];
    const state = job.error ? badge(t("state.failed"), "bad") : badge(t("state.done"), "good");
    return [t(`job.${name}`), state, time(job.finished_ts ?? job.started_ts)];
  });
  rows.splice(1, 0, [t("job.fsck"), fsck ? badge(t(`state.${fsck.state}`)) : badge(t("never")),
    time(fsck?.finished_ts ?? fsck?.created_ts)]);
  return card(t("background"), table(t("background"), [t("job"), t("state"), t("last")], rows),
    h("p", {}, h("a", { href: "#/tasks" }, t("background.more"))));
}
