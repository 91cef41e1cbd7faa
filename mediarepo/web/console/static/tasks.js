// Background tasks and scheduled jobs, and the items that they have set aside.

import { get, post } from "./api.js";
import { badge, button, card, confirm, h, number, t, table, tell, tellError, time } from "./dom.js";

const ENDED = new Set(["done", "failed", "cancelled"]);
const POLL_MS = 1000;

const wait = (ms, signal) => new Promise((resolve, reject) => {
  const timer = setTimeout(resolve, ms);
  signal.addEventListener("abort", () => { clearTimeout(timer); reject(new DOMException("left", "AbortError")); }, { once: true });
});

/** Wait for a task to end; stops when the page is left. */
export async function finished(taskId, signal, onProgress = () => {}) {
  for (;;) {
    const task = await get(`/tasks/${taskId}`, {}, signal);
    onProgress(task);
    if (ENDED.has(task.state)) return task;
    await wait(POLL_MS, signal);
  }
}

export async function tasksPage({ signal }) {
  const [{ tasks }, { jobs }, { failed_items: failed }, { imports }] = await Promise.all([
    get("/tasks", { limit: 50 }, signal), get("/jobs", {}, signal), get("/failed_items", { limit: 100 }, signal),
    get("/imports", {}, signal),
  ]);
  const importing = h("div", {}, importsTable(imports));
  if (imports.some(isRunning)) {
    follow(signal, async () => {
      const found = (await get("/imports", {}, signal)).imports;
      importing.replaceChildren(importsTable(found));
      return !found.some(isRunning);
    });
  }
  const place = h("div", {}, tasksTable(tasks));
  if (tasks.some((one) => !ENDED.has(one.state))) {
    follow(signal, async () => {
      const found = (await get("/tasks", { limit: 50 }, signal)).tasks;
      place.replaceChildren(tasksTable(found));
      return found.every((one) => ENDED.has(one.state));
    });
  }
  return [
    card(t("tasks"), place, h("div", { class: "buttons" }, button(t("tasks.fsck"), () => startFsck().catch(tellError)))),
    card(t("imports"), importing, h("p", { class: "quiet" }, t("imports.hint"))),
    card(t("tasks.failed"), failed.length ? failedTable(failed) : h("p", { class: "quiet" }, t("tasks.failed.none"))),
    card(t("jobs"), table(t("jobs"), [t("job"), t("state"), t("last"), t("result")], jobs.map((job) => [
      job.name,
      job.error ? badge(t("state.failed"), "bad") : badge(job.finished_ts === null ? t("state.running") : t("state.done"), "good"),
      time(job.finished_ts ?? job.started_ts), job.error ?? shortly(job.result)]))),
  ];
}

/** Look again every second until there is nothing more to see, or the page is left. */
async function follow(signal, look) {
  try {
    do await wait(POLL_MS, signal); while (!(await look()));
  } catch (error) {
    if (error.name !== "AbortError") tellError(error);
  }
}

const SILENT_MS = 120_000;
const isRunning = (one) => one.finished_ts === null && Date.now() - one.heartbeat_ts < SILENT_MS;

function importState(one) {
  if (isRunning(one)) return badge(t("state.running"));
  if (one.error !== null) return badge(t("state.failed"), "bad");
  return one.complete ? badge(t("state.done"), "good") : badge(t("imports.stopped"), "bad");
}

function importsTable(imports) {
  if (imports.length === 0) return h("p", { class: "quiet" }, t("imports.none"));
  const head = ["imports.source", "state", "imports.started", "imports.reported", "tasks.progress"].map((name) => t(name));
  return table(t("imports"), head, imports.map((one) => [
    `${one.source} (${one.command})`, importState(one), time(one.started_ts), time(one.finished_ts ?? one.heartbeat_ts),
    one.error ?? shortly(one.figures)]));
}

const shortly = (value) => (value === null || Object.keys(value).length === 0 ? "–" : h("code", {}, JSON.stringify(value)));
const refresh = () => dispatchEvent(new Event("hashchange"));

function tasksTable(tasks) {
  if (tasks.length === 0) return h("p", { class: "quiet" }, t("tasks.none"));
  const head = ["tasks.kind", "state", "tasks.by", "tasks.when", "tasks.progress", "audit.undo"].map((name) => t(name));
  return table(t("tasks"), head, tasks.map((one) => [
    `${one.kind}${one.arguments.policy ? ` ${one.arguments.policy}` : ""}`,
    badge(t(`state.${one.state}`), one.state === "failed" ? "bad" : one.state === "done" ? "good" : ""),
    one.created_by, time(one.created_ts), one.error ?? shortly(one.result ?? one.progress),
    ENDED.has(one.state) || one.cancelling ? "" : button(t("cancel"), () => cancel(one).catch(tellError), { class: "small" }),
  ]));
}

async function cancel(task) {
  await post(`/tasks/${task.task_id}/cancel`);
  refresh();
}

async function startFsck() {
  if (await confirm({ title: t("tasks.fsck"), content: [h("p", {}, t("tasks.fsck.about"))], action: t("tasks.start"), reason: false }) === null) return;
  await post("/tasks", { kind: "fsck" });
  refresh();
}

function failedTable(failed) {
  const head = ["backlog.queue", "tasks.item", "tasks.error", "tasks.attempts", "tasks.retry.when", "audit.undo"].map((name) => t(name));
  return table(t("tasks.failed"), head, failed.map((one) => [
    one.queue, h("code", {}, one.item_key), one.error, number(one.attempts), time(one.retry_ts),
    button(t("retry"), () => retry(one).catch(tellError), { class: "small" })]), [3]);
}

async function retry(one) {
  await post("/failed_items/retry", { queue: one.queue, item_key: one.item_key });
  tell(t("retry.done"));
}
