// Calls the admin API, and the homeserver for signing in. The token lives in this tab's session only.

const API = "/_mediarepo/admin/v1";
const TOKEN = "mediarepo.token";
const FROM_HOMESERVER = "mediarepo.token.homeserver";

export const session = {
  get token() { return sessionStorage.getItem(TOKEN); },
  get homeserver() { return sessionStorage.getItem(FROM_HOMESERVER); },
  begin(token, homeserver = null) {
    sessionStorage.setItem(TOKEN, token);
    if (homeserver === null) sessionStorage.removeItem(FROM_HOMESERVER);
    else sessionStorage.setItem(FROM_HOMESERVER, homeserver);
  },
  end() {
    sessionStorage.removeItem(TOKEN);
    sessionStorage.removeItem(FROM_HOMESERVER);
  },
};

export class ApiError extends Error {
  constructor(status, errcode, message) {
    super(message);
    this.status = status;
    this.errcode = errcode;
  }
}

async function send(url, { method = "GET", body, token, signal }) {
  const headers = {};
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const request = { method, headers, credentials: "omit", cache: "no-store", redirect: "error", signal };
  if (body !== undefined) request.body = JSON.stringify(body);
  let answer;
  try {
    answer = await fetch(url, request);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "", "The server cannot be reached.");
  }
  const document = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new ApiError(answer.status, document.errcode ?? "", document.error ?? `HTTP ${answer.status}`);
  return document;
}

/** Call the admin API; `query` leaves out what is null or empty. */
export async function call(method, path, { query = {}, body, signal } = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const search = given.length ? `?${new URLSearchParams(given)}` : "";
  try {
    return await send(`${API}${path}${search}`, { method, body, token: session.token, signal });
  } catch (error) {
    if (error.status === 401) {
      session.end();
      dispatchEvent(new Event("signedout"));
    }
    throw error;
  }
}

export const get = (path, query, signal) => call("GET", path, { query, signal });
export const post = (path, body = {}) => call("POST", path, { body });

/** Give the path of media in the API. */
export function mediaPath(mxc) {
  const [server, id] = mxc.slice("mxc://".length).split("/");
  return `/media/${encodeURIComponent(server)}/${encodeURIComponent(id)}`;
}

const CLIENT = "/_matrix/client/v3";

/** Say how the homeserver lets people sign in; nothing when it does not answer. */
export async function loginFlows(homeserver) {
  try {
    return (await send(`${homeserver}${CLIENT}/login`, {})).flows.map((flow) => flow.type);
  } catch {
    return [];
  }
}

async function login(homeserver, body) {
  const named = { initial_device_display_name: "mediarepo console", ...body };
  return (await send(`${homeserver}${CLIENT}/login`, { method: "POST", body: named })).access_token;
}

export const passwordLogin = (homeserver, user, password) =>
  login(homeserver, { type: "m.login.password", identifier: { type: "m.id.user", user }, password });

export const tokenLogin = (homeserver, token) => login(homeserver, { type: "m.login.token", token });

export const ssoUrl = (homeserver) =>
  `${homeserver}${CLIENT}/login/sso/redirect?redirectUrl=${encodeURIComponent(location.origin + location.pathname)}`;

/** Call the homeserver's own admin API (Synapse's), as the admin who signed in there. */
export const homeserverAdmin = (method, path, signal) =>
  send(`${session.homeserver}/_synapse/admin/v1${path}`, { method, token: session.token, signal });

/** End the session; one that the homeserver gave is ended there as well. */
export async function signOut() {
  const { token, homeserver } = session;
  session.end();
  if (homeserver === null) return;
  await send(`${homeserver}${CLIENT}/logout`, { method: "POST", body: {}, token }).catch(() => {});
}
