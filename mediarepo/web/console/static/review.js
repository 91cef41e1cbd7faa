// Decides on what users reported to the homeserver, one report at a time, by keyboard if wanted.
//
// The homeserver keeps the reports; a decision closes one there. Acting on media twice changes nothing, and a report that
// is gone when it is closed was decided by somebody else: so two moderators at once do not undo one another.

import { call, get, homeserverAdmin, mediaPath, post } from "./api.js";
import { button, card, h, number, t, tell, tellError, time } from "./dom.js";
import { badges, detailLink } from "./media.js";
import { run } from "./media_actions.js";
import { pictureBox } from "./pictures.js";

const PAGE = 50;
const MXC = /^mxc:\/\/[^/\s]+\/[A-Za-z0-9_-]+$/;

/** Collect the media that an event's content names, wherever they stand in it. */
export function mediaOf(content, found = new Set(), depth = 0) {
  if (typeof content === "string" && MXC.test(content)) found.add(content);
  else if (content !== null && typeof content === "object" && depth < 8) {
    for (const value of Object.values(content)) mediaOf(value, found, depth + 1);
  }
  return [...found];
}

export async function reviewPage({ signal }) {
  let reports;
  try {
    reports = (await homeserverAdmin("GET", `/event_reports?limit=${PAGE}&dir=b`, signal)).event_reports;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    return [h("p", { class: "trouble", role: "alert" }, t("review.unavailable"), " ", error.message)];
  }
  const place = h("div", { class: "review", tabindex: "-1" });
  const queue = { reports, at: 0, place, signal, busy: false, media: [] };
  addEventListener("keydown", (event) => onKey(event, queue), { signal });
  await showReport(queue);
  return [h("p", { class: "quiet" }, t("review.hint")), place];
}

function onKey(event, queue) {
  const typing = event.target.closest?.("input, textarea, select, dialog");
  if (typing || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const key = event.key.toLowerCase();
  if (key === "n") next(queue).catch(tellError);
  else if (key in DECISIONS) decide(DECISIONS[key], queue);
}

const DECISIONS = { k: "keep", h: "hide", d: "delete" };

async function next(queue) {
  if (queue.busy) return;
  queue.at = queue.reports.length ? (queue.at + 1) % queue.reports.length : 0;
  await showReport(queue);
  queue.place.focus();
}

async function showReport(queue) {
  const { reports, at, place, signal } = queue;
  if (reports.length === 0) {
    place.replaceChildren(h("p", { class: "allright" }, t("review.none")));
    return;
  }
  const report = reports[at];
  const detail = await homeserverAdmin("GET", `/event_reports/${encodeURIComponent(report.id)}`, signal);
  const mxcs = mediaOf(detail.event_json?.content ?? {});
  const found = await Promise.all(mxcs.map((mxc) => get(mediaPath(mxc), {}, signal).catch((error) => {
    if (error.status !== 404) throw error;
    return { mxc, unknown: true };
  })));
  queue.media = found.filter((one) => !one.unknown);
  const buttons = Object.values(DECISIONS).map((name) => button(t(`review.${name}`), () => decide(name, queue), {
    class: name === "keep" ? null : "danger",
    disabled: name !== "keep" && queue.media.length === 0,
  }));
  place.replaceChildren(
    card(t("review.of", { place: number(at + 1), total: number(reports.length) }),
      h("dl", { class: "facts" }, [
        ["review.reported", time(report.received_ts)], ["review.why", report.reason || "–"],
        ["review.by", report.user_id], ["review.sender", report.sender], ["review.room", report.name ?? report.room_id],
      ].flatMap(([name, value]) => [h("dt", {}, t(name)), h("dd", {}, value)])),
      found.length === 0 ? h("p", {}, t("review.nomedia")) : h("ul", { class: "grid" }, found.map(reportedMedia)),
      h("div", { class: "buttons" }, ...buttons, button(t("review.next"), () => next(queue).catch(tellError)))));
}

function reportedMedia(one) {
  if (one.unknown) return h("li", { class: "tile" }, h("code", {}, one.mxc), h("div", { class: "quiet" }, t("review.gone")));
  return h("li", { class: "tile" }, pictureBox(one), h("a", { href: detailLink(one.mxc) }, one.upload_name ?? one.mxc),
    h("div", { class: "badges" }, badges(one)));
}

async function decide(name, queue) {
  const report = queue.reports[queue.at];
  if (queue.busy || !report || (name !== "keep" && queue.media.length === 0)) return;
  queue.busy = true;
  try {
    const { affected, changed, left } = await act(name, queue.media, report);
    if (left.length > 0) {
      tell(t("review.refused", { reasons: left.map((why) => t(`left.${why}`)).join(", ") }));
      return;
    }
    const words = t({ keep: "review.kept", hide: "review.hidden", delete: "review.deleted" }[name], { count: number(affected) });
    const undo = { hide: "unquarantine", delete: "restore" }[name];
    const back = changed.length ? button(t("undo"), () => run(undo, changed, t("undo.reason")).catch(tellError)) : "";
    tell(await close(report) ? words : t("review.collided"), " ", back);
    queue.reports.splice(queue.at, 1);
    queue.at = Math.min(queue.at, Math.max(queue.reports.length - 1, 0));
    await showReport(queue);
    queue.place.focus();
  } catch (error) {
    if (error.name !== "AbortError") tellError(error);
  } finally {
    queue.busy = false;
  }
}

/** Hide or delete the media of a report; gives what was changed, and why something was left out. */
async function act(name, media, report) {
  const changed = [], left = new Set();
  let affected = 0;
  if (name === "keep") return { affected, changed, left: [] };
  const reason = t("review.reason", { event: report.event_id, why: report.reason ?? "" }).slice(0, 2000);
  for (const one of media) {
    const answer = name === "hide" ? await post(`${mediaPath(one.mxc)}/quarantine`, { reason })
      : await call("DELETE", mediaPath(one.mxc), { body: { reason } });
    affected += answer.affected;
    if (answer.affected > 0) changed.push(one.mxc);
    for (const why of Object.keys(answer.left_out ?? {})) if (why !== "still_in_force") left.add(why);
  }
  return { affected, changed, left: [...left] };
}

/** Close a report at the homeserver; false when it was closed already. */
async function close(report) {
  try {
    await homeserverAdmin("DELETE", `/event_reports/${encodeURIComponent(report.id)}`);
    return true;
  } catch (error) {
    if (error.status === 404) return false;
    throw error;
  }
}
