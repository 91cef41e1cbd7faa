// Retention policies: plan, look at the plan, run or arm.

import { get, post } from "./api.js";
import { badge, button, bytes, card, confirm, h, number, plural, t, tell, tellError, time } from "./dom.js";
import { finished } from "./tasks.js";

export async function retentionPage({ signal }) {
  const { policies } = await get("/retention", {}, signal);
  if (policies.length === 0) return [h("p", {}, t("retention.none"))];
  return [h("p", { class: "quiet" }, t("retention.hint")), ...policies.map((one) => policyCard(one, signal))];
}

function policyCard(one, signal) {
  const path = `/retention/${encodeURIComponent(one.name)}`;
  const refresh = () => dispatchEvent(new Event("hashchange"));
  const start = async (what) => {
    const task = await post(`${path}/${what}`);
    tell(t(`retention.${what}.started`));
    const end = await finished(task.task_id, signal);
    tell(end.state === "done" ? t(`retention.${what}.done`) : `${t("failed")} ${end.error ?? t(`state.${end.state}`)}`);
    refresh();
  };
  const change = async (what, title, danger) => {
    const told = await confirm({ title, content: planned(one.plan), action: t(`retention.${what}`), danger, reason: false });
    if (told === null) return;
    if (what === "run") await start("run");
    else { await post(`${path}/${what}`); tell(t(`retention.${what}.done`)); refresh(); }
  };
  const rules = Object.entries(one.policy).filter(([name, value]) => name !== "name" && value !== null && String(value) !== "");
  return card(one.name,
    h("p", { class: "badges" }, one.armed ? badge(t("retention.armed", { admin: one.armed_by ?? "" }), "strong") : badge(t("retention.disarmed"))),
    h("dl", { class: "facts" }, rows(rules)),
    h("h3", {}, t("retention.plan.title")), ...planned(one.plan),
    one.plan === null ? null : h("p", { class: "quiet" }, t("retention.planned"), " ", time(one.planned_ts)),
    h("div", { class: "buttons" },
      button(t("retention.plan"), () => start("plan").catch(tellError), { class: "primary" }),
      button(t("retention.run"), () => change("run", t("retention.run.title", { name: one.name }), true).catch(tellError), { disabled: one.plan === null, class: "danger" }),
      one.armed ? button(t("retention.disarm"), () => change("disarm", t("retention.disarm.title", { name: one.name }), false).catch(tellError))
        : button(t("retention.arm"), () => change("arm", t("retention.arm.title", { name: one.name }), true).catch(tellError), { disabled: one.plan === null })));
}

const DAY_MS = 86_400_000;

function rows(rules) {
  return rules.flatMap(([name, value]) => {
    let shown = String(value);
    if (typeof value === "boolean") shown = t(value ? "yes" : "no");
    if (name.endsWith("_ms")) shown = plural("days", Math.round((value / DAY_MS) * 10) / 10);
    if (name.endsWith("_bytes")) shown = bytes(value);
    return [h("dt", {}, t(`policy.${name}`)), h("dd", {}, shown)];
  });
}

function planned(plan) {
  if (plan === null) return [h("p", {}, t("retention.unplanned"))];
  return [
    h("p", {}, t("retention.would", { count: number(plan.count), size: bytes(plan.size_bytes), freed: bytes(plan.freed_bytes) })),
    plan.kept_avatars + plan.kept_unknown === 0 ? null
      : h("p", { class: "quiet" }, t("retention.kept", { avatars: number(plan.kept_avatars), unknown: number(plan.kept_unknown) })),
    plan.examples.length === 0 ? null : h("details", {}, h("summary", {}, t("retention.examples")),
      h("ul", {}, plan.examples.map((example) => h("li", {}, h("code", {}, example))))),
  ].filter(Boolean);
}
