// Users by what they store.

import { get } from "./api.js";
import { bytes, field, h, number, t, table } from "./dom.js";

export async function usersPage({ query, signal }) {
  const wanted = query.get("user_id") ?? "";
  const found = await get("/usage", { by: "user_id", class: "local", user_id: wanted, limit: 500 }, signal);
  const rows = found.usage.filter((one) => one.group.user_id).map((one) => [
    h("a", { href: `#/media?${new URLSearchParams({ user_id: one.group.user_id })}` }, one.group.user_id),
    number(one.media_count), bytes(one.size_bytes),
  ]);
  const user = h("input", { name: "user_id", value: wanted, placeholder: "@user:example.org" });
  const form = h("form", {
    class: "search",
    onsubmit: (event) => {
      event.preventDefault();
      location.hash = `#/users${user.value ? `?${new URLSearchParams({ user_id: user.value.trim() })}` : ""}`;
    },
  }, h("div", { class: "line" }, field(t("user"), user), h("button", { type: "submit", class: "primary" }, t("search.submit"))));
  return [form, h("p", { class: "quiet" }, t("users.hint")),
    rows.length ? table(t("nav.users"), [t("user"), t("users.media"), t("users.bytes")], rows, [1, 2]) : h("p", {}, t("nothing"))];
}
