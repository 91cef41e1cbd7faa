// Does something to one media, a selection, or all that a search finds; says how many first, and undoes it afterwards.

import { call, get, mediaPath } from "./api.js";
import { button, bytes, confirm, h, number, plural, t, tell, tellError } from "./dom.js";

const is = (name) => (one) => Boolean(one[name]);
const isNot = (name) => (one) => !one[name];

/** The actions on media: the opposite, whether it can be wanted of one, and whether it removes something from users. */
export const ACTIONS = {
  quarantine: { undo: "unquarantine", applies: isNot("quarantined_by"), danger: true, copies: true },
  unquarantine: { undo: "quarantine", applies: is("quarantined_by"), copies: true },
  delete: { undo: "restore", applies: isNot("trashed_ts"), danger: true },
  restore: { undo: "delete", applies: is("trashed_ts") },
  hold: { undo: "release", applies: isNot("held_by") },
  release: { undo: "hold", applies: is("held_by") },
  pin: { undo: "unpin", applies: isNot("pinned_by") },
  unpin: { undo: "pin", applies: is("pinned_by") },
  protect: { undo: "unprotect", applies: isNot("protected") },
  unprotect: { undo: "protect", applies: is("protected") },
};
const AT_ONCE = 4, MOST = 10_000, MOST_HASHES = 50;

const request = (name, mxc, reason) => (name === "delete"
  ? call("DELETE", mediaPath(mxc), { body: { reason } })
  : call("POST", `${mediaPath(mxc)}/${name}`, { body: { reason } }));

/** Count what an action will concern: for quarantine, all media with the same content. */
async function affected(name, media) {
  const hashes = [...new Set(media.map((one) => one.sha256).filter(Boolean))];
  if (!ACTIONS[name].copies || hashes.length > MOST_HASHES) return { media: media.length, exact: !ACTIONS[name].copies };
  let total = media.filter((one) => !one.sha256).length;
  for (const sha256 of hashes) total += (await get("/media_count", { sha256 })).media_count;
  return { media: total, exact: true };
}

/** Ask, and do something to these media; resolves to whether it was done. */
export async function actOn(name, media) {
  const count = await affected(name, media);
  const size = media.reduce((sum, one) => sum + (one.size_bytes ?? 0), 0);
  const about = [h("p", {}, plural(count.exact ? "affects" : "affects.atleast", count.media), ` (${bytes(size)})`)];
  if (ACTIONS[name].copies) about.push(h("p", { class: "quiet" }, t("affects.copies")));
  if (media.length === 1) about.push(h("p", {}, h("code", {}, media[0].mxc)));
  const told = await confirm({ title: t(`action.${name}.title`), content: about, action: t(`action.${name}`), danger: ACTIONS[name].danger });
  if (told === null) return false;
  await run(name, media.map((one) => one.mxc), told.reason);
  return true;
}

/** Ask, and do something to all media that a search finds. */
export async function actOnAll(name, filters, count) {
  const about = [h("p", {}, plural("affects", count.media_count), ` (${bytes(count.size_bytes)})`)];
  if (count.more) about.push(h("p", { class: "trouble" }, t("affects.most", { count: number(MOST) })));
  const told = await confirm({ title: t(`action.${name}.title`), content: about, action: t(`action.${name}`), danger: ACTIONS[name].danger });
  if (told === null) return;
  const found = [];
  for (let after = null; found.length < MOST;) {
    const page = await get("/media", { ...filters, limit: 1000, after });
    found.push(...page.media.map((one) => one.mxc));
    after = page.next;
    if (after === null) break;
  }
  await run(name, found.slice(0, MOST), told.reason);
}

/** Do something to each, a few at a time, and offer to undo what was changed. */
export async function run(name, mxcs, reason) {
  const changed = [], left = {}, queue = [...mxcs];
  let done = 0, total = 0, stopped = false, failure = null;
  async function work() {
    while (queue.length && !stopped) {
      const mxc = queue.shift();
      try {
        const answer = await request(name, mxc, reason);
        total += answer.affected;
        if (answer.affected > 0) changed.push(mxc);
        for (const [why, count] of Object.entries(answer.left_out ?? {})) left[why] = (left[why] ?? 0) + count;
      } catch (error) {
        stopped = true;
        failure = error;
      }
      done += 1;
      if (mxcs.length > 1 && !stopped && (done % 10 === 0)) {
        tell(t("progress", { done: number(done), total: number(mxcs.length) }), " ", button(t("stop"), () => { stopped = true; }));
      }
    }
  }
  await Promise.all(Array.from({ length: Math.min(AT_ONCE, mxcs.length) }, work));
  const words = [plural(`done.${name}`, total)];
  for (const [why, count] of Object.entries(left)) words.push(` ${plural("left", count)} ${t(`left.${why}`)}.`);
  if (failure !== null) words.push(` ${t("failed")} ${failure.message}`);
  const back = button(t("undo"), () => run(ACTIONS[name].undo, changed, t("undo.reason")).catch(tellError), { class: "primary" });
  tell(...words, " ", changed.length ? back : "");
  dispatchEvent(new Event("hashchange"));
}
