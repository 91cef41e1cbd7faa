// Pictures that are not shown, and not even fetched, before somebody asks for them one by one.

import { mediaPath, post } from "./api.js";
import { button, h, t } from "./dom.js";

const DISPLAYABLE = /^image\/(jpeg|png|gif|webp|avif|bmp|tiff|apng)$/;

/** Beginnings of the content types that this server shows beside those, as `whoami` says. */
let optionalTypes = [];

export function showAlso(contentTypes) {
  optionalTypes = contentTypes;
}

const isShown = (type) => DISPLAYABLE.test(type) || optionalTypes.some((start) => type.startsWith(start));

/** Say what kind of media this is. Encrypted media are uploaded without a type, so that alone tells nothing more. */
export function kindOf(one) {
  if (one.content_type.startsWith("video/")) return "video";
  if (one.content_type.startsWith("audio/")) return "audio";
  if (isShown(one.content_type)) return "picture";
  return one.content_type === "application/octet-stream" ? "encrypted" : "file";
}

/** Make the box of a picture; the API records each look in the audit log. */
export function pictureBox(one, { large = false } = {}) {
  const kind = kindOf(one);
  const box = h("div", { class: `picture ${kind}${large ? " large" : ""}` });
  const cover = () => {
    const tint = one.sha256 === null ? 0 : parseInt(one.sha256.slice(0, 2), 16) % 6;
    const label = h("span", { class: "kind" }, t(`kind.${kind}`));
    const ask = isShown(one.content_type) && one.state === "ready"
      ? button(t("picture.show"), () => reveal(ask), { "aria-label": t("picture.show.name", { name: one.upload_name ?? one.mxc }) })
      : null;
    box.replaceChildren(h("div", { class: `cover tint${tint}` }, label, ask ?? ""));
  };
  async function reveal(ask) {
    ask.disabled = true;
    try {
      const { content_type: type, data } = await post(`${mediaPath(one.mxc)}/view`);
      const picture = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
      const url = URL.createObjectURL(new Blob([picture], { type: DISPLAYABLE.test(type) ? type : "image/png" }));
      const image = h("img", { src: url, alt: t("picture.of", { name: one.upload_name ?? one.mxc }) });
      image.addEventListener("load", () => URL.revokeObjectURL(url));
      const hide = button(t("picture.hide"), cover, { class: "hide" });
      box.replaceChildren(image, hide);
      hide.focus();
    } catch (error) {
      box.replaceChildren(h("div", { class: "cover" }, h("span", { role: "alert" }, error.message)));
    }
  }
  cover();
  return box;
}
