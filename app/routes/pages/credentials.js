/** Who asks: the dialog for it, and the answer. It is held here, in memory, and nowhere else. */
import { $, h } from "./dom.js";

/** What stands before /coze: empty, or a proxy's prefix. */
export const BASE = location.pathname.replace(/\/coze\/(playground|console)\/?$/, "");

export class Credentials {
  #token = "";
  #held = new AbortController();
  host = "";

  /** Ends with these credentials: what was asked with them is nothing that the next ones may be shown. */
  get signal() {
    return this.#held.signal;
  }

  get given() {
    return this.#token !== "";
  }

  /** @returns {Record<string, string>} */
  get headers() {
    return this.#token ? { HtySudoerToken: this.#token, HtyHost: this.host } : {};
  }

  /** Puts the dialog into the page. */
  constructor() {
    const field = (id, name, more = {}) => [
      h("label", { for: id }, name),
      h("input", { id, autocomplete: "off", autocapitalize: "off", spellcheck: "false", ...more }),
    ];
    const form = h(
      "form",
      { id: "credentials-form", onsubmit: (event) => (event.preventDefault(), this.#save()) },
      h("h2", { id: "credentials-title", t: "credentials" }),
      h("p", { id: "credentials-needed", class: "problem", role: "alert", t: "credentialsNeeded", hidden: true }),
      h("p", { id: "credentials-said", class: "small", lang: "en" }),
      h("p", { class: "note", t: "credentialsText" }),
      ...field("token", "HtySudoerToken", { class: "secret" }),
      ...field("host", "HtyHost"),
      h(
        "div",
        { class: "row end" },
        h("button", { type: "button", id: "forget", class: "plain", t: "forget", onclick: () => ($("token").value = "", this.#save()) }),
        h("span", { class: "spacer" }),
        h("button", { type: "button", class: "plain", t: "cancel", onclick: () => $("credentials-dialog").close("") }),
        h("button", { type: "submit", class: "primary", t: "save" }),
      ),
    );
    document.body.append(h("dialog", { id: "credentials-dialog", "aria-labelledby": "credentials-title" }, form));
  }

  /** @returns {Promise<boolean>} Whether headers were given. `needed`: what was refused without them. */
  ask(needed) {
    $("credentials-needed").hidden = !needed;
    $("credentials-said").textContent = needed?.message ? `${needed.code}: ${needed.message}` : "";
    $("host").value = this.host || location.hostname;
    const dialog = $("credentials-dialog");
    if (!dialog.open) dialog.showModal();
    $("token").focus();
    return new Promise((resolve) => {
      dialog.addEventListener("close", () => resolve(dialog.returnValue === "saved"), { once: true });
      dialog.returnValue = "";
    });
  }

  #save() {
    this.#held.abort();
    this.#held = new AbortController();
    this.#token = $("token").value.trim();
    this.host = $("host").value.trim();
    $("token").value = ""; // from here on it is in one place
    document.body.classList.toggle("signed", this.given);
    $("credentials-dialog").close("saved");
  }
}
