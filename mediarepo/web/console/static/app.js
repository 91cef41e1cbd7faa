// Signs in, and shows the page that the address names.

import { ApiError, get, loginFlows, passwordLogin, session, signOut, ssoUrl, tokenLogin } from "./api.js";
import { auditPage } from "./audit.js";
import { button, field, h, loadTexts, t, tellError } from "./dom.js";
import { mediaDetailPage, mediaPage } from "./media.js";
import { overviewPage } from "./overview.js";
import { showAlso } from "./pictures.js";
import { retentionPage } from "./retention.js";
import { reviewPage } from "./review.js";
import { tasksPage } from "./tasks.js";
import { usersPage } from "./users.js";

const everybody = () => true;
const operators = () => me.server_name === null;

/** The pages, and who sees them. */
const PAGES = [
  ["overview", overviewPage, everybody],
  ["review", reviewPage, () => session.homeserver !== null],
  ["media", mediaPage, everybody],
  ["users", usersPage, everybody],
  ["retention", retentionPage, operators],
  ["tasks", tasksPage, operators],
  ["audit", auditPage, everybody],
];

let site = { server_name: null, homeserver_url: "" };
let me = null;
let leaving = new AbortController();

async function start() {
  document.title = t("title");
  addEventListener("hashchange", () => show());
  addEventListener("signedout", () => { me = null; signInPage(t("signin.ended")); });
  site = await (await fetch("site.json")).json();
  const returned = new URLSearchParams(location.search).get("loginToken");
  if (returned !== null) {
    history.replaceState(null, "", location.pathname);
    await enter(async () => [await tokenLogin(site.homeserver_url, returned), site.homeserver_url]);
  } else if (session.token === null) signInPage();
  else await enter(async () => [session.token, session.homeserver]);
}

/** Obtain a token, see whether it is an admin's, and open the console. */
async function enter(obtain) {
  try {
    session.begin(...(await obtain()));
    me = await get("/whoami");
    showAlso(me.optional_types);
  } catch (error) {
    await signOut();
    signInPage(error.errcode === "M_FORBIDDEN" && me === null ? `${t("signin.refused")} ${error.message}` : error.message);
    return;
  }
  frame();
  await show();
}

function signInPage(problem = null) {
  const trouble = h("p", { role: "alert", class: "trouble" }, problem ?? "");
  const busy = async (event, obtain) => {
    event.preventDefault();
    await enter(obtain);
  };
  const token = h("input", { type: "password", name: "token", required: true, autocomplete: "off" });
  const user = h("input", { name: "user", required: true, autocomplete: "username", autocapitalize: "none" });
  const password = h("input", { type: "password", name: "password", required: true, autocomplete: "current-password" });
  const account = h("form", {
    onsubmit: (event) => busy(event, async () =>
      [await passwordLogin(site.homeserver_url, user.value.trim(), password.value), site.homeserver_url]),
  }, field(t("signin.user"), user), field(t("signin.password"), password),
  h("button", { type: "submit", class: "primary" }, t("signin.submit")));
  const sso = h("p", { hidden: true },
    button(t("signin.sso"), () => location.assign(ssoUrl(site.homeserver_url))));
  const operator = h("form", { onsubmit: (event) => busy(event, async () => [token.value.trim(), null]) },
    field(t("signin.token"), token, t("signin.token.hint")),
    h("button", { type: "submit", class: site.server_name ? null : "primary" }, t("signin.token.submit")));
  document.body.replaceChildren(h("main", { class: "signin" },
    h("h1", {}, h("img", { src: "icon.svg", alt: "", width: 36, height: 36 }), t("title")),
    h("p", { class: "lead" }, site.server_name ? t("signin.lead", { server: site.server_name }) : t("signin.lead.operator")),
    trouble,
    site.server_name ? h("section", { class: "card" }, h("h2", {}, t("signin.account")), account, sso) : null,
    h("section", { class: "card" }, h("h2", {}, t("signin.operator")), operator),
    h("p", { class: "quiet" }, t("signin.session"))));
  (site.server_name ? user : token).focus();
  if (site.server_name) {
    loginFlows(site.homeserver_url).then((flows) => { sso.hidden = !flows.includes("m.login.sso"); });
  }
}

function frame() {
  const pages = PAGES.filter(([, , isShown]) => isShown());
  document.body.replaceChildren(
    h("a", { class: "skip", href: "#main", onclick: (event) => { event.preventDefault(); document.getElementById("main").focus(); } }, t("skip")),
    h("header", {},
      h("a", { class: "brand", href: "#/overview" }, h("img", { src: "icon.svg", alt: "", width: 24, height: 24 }), t("brand")),
      h("nav", { "aria-label": t("nav") }, pages.map(([name]) => h("a", { href: `#/${name}` }, t(`nav.${name}`)))),
      h("div", { class: "who" },
        h("span", { title: me.role }, me.name, h("small", {}, me.server_name ?? t("all.homeservers"))),
        button(t("signout"), async () => { await signOut(); me = null; signInPage(); }))),
    h("div", { id: "told", role: "status", "aria-live": "polite" }),
    h("main", { id: "main", tabindex: "-1" }));
}

/** Show the page of the address, and stop what the one before was doing. */
async function show() {
  if (me === null) return;
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  const [path, search = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const parts = path.split("/").map(decodeURIComponent);
  const name = PAGES.some(([one, , isShown]) => one === parts[0] && isShown()) ? parts[0] : "overview";
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#/${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const main = document.getElementById("main");
  const heading = h("h1", {}, t(`nav.${name}`));
  document.title = `${t(`nav.${name}`)} · ${t("title")}`;
  main.replaceChildren(heading, h("p", { class: "quiet" }, t("loading")));
  const page = parts.length === 3 && name === "media" ? mediaDetailPage : PAGES.find(([one]) => one === name)[1];
  try {
    const content = await page({ me, parts, query: new URLSearchParams(search), signal });
    if (!signal.aborted) main.replaceChildren(heading, ...content);
  } catch (error) {
    if (signal.aborted || me === null) return;
    main.replaceChildren(heading, h("p", { role: "alert", class: "trouble" }, error.message));
    if (!(error instanceof ApiError)) throw error;
  }
}

addEventListener("unhandledrejection", (event) => {
  if (document.getElementById("told") && event.reason?.name !== "AbortError") tellError(event.reason);
});
await loadTexts("en.json");
await start();
