/** Files that go along with the next message: picked, pasted or dropped, and uploaded at once. */
import { explain } from "./errors.js";
import { h, icon, iconButton, t } from "./dom.js";

const PREVIEW_BYTES = 3_000_000;

/** A file as it is shown: a picture where there is one, its name, a link where it lies elsewhere. */
export function chip({ name, url, preview, state = "" }, ...more) {
  const picture = preview ? h("img", { src: preview, alt: "" }) : icon("clip");
  const label = url ? h("a", { href: url, target: "_blank", rel: "noopener noreferrer" }, name) : h("span", {}, name);
  return h("li", { class: `file ${state}` }, picture, label, ...more);
}

export class Attachments {
  /** @param {HTMLElement} list @param {(file: File) => Promise<{file_id: string}>} upload */
  constructor(list, upload) {
    this.list = list;
    this.upload = upload;
    /** @type {{name: string, preview: string, id: string, failed: any, done: Promise<void>}[]} */
    this.files = [];
  }

  async add(files) {
    await Promise.all([...files].map((file) => this.#addOne(file)));
  }

  async #addOne(file) {
    const entry = { name: file.name || t("image"), preview: "", id: "", failed: null, done: Promise.resolve() };
    this.files.push(entry);
    entry.done = (async () => {
      if (file.type.startsWith("image/") && file.size < PREVIEW_BYTES) entry.preview = await dataUrl(file);
      this.paint();
      try {
        entry.id = (await this.upload(file)).file_id;
      } catch (error) {
        entry.failed = error;
      }
      this.paint();
    })();
    this.paint();
    await entry.done;
  }

  /** Waits for what is being uploaded; what could not be is left out and stays to be seen. */
  async ready() {
    await Promise.all(this.files.map((entry) => entry.done));
    const sent = this.files.filter((entry) => entry.id);
    return sent.map(({ id, name, preview }) => ({ file_id: id, name, preview }));
  }

  get empty() {
    return !this.files.some((entry) => !entry.failed);
  }

  clear() {
    this.files = [];
    this.paint();
  }

  paint() {
    this.list.hidden = !this.files.length;
    this.list.replaceChildren(
      ...this.files.map((entry) => {
        const state = entry.failed ? "failed" : entry.id ? "" : "busy";
        const note = h("span", { class: "note" }, entry.failed ? reason(entry.failed) : entry.id ? "" : t("uploading"));
        const remove = iconButton("close", "removeFile", () => {
          this.files = this.files.filter((each) => each !== entry);
          this.paint();
        });
        return chip({ name: entry.name, preview: entry.preview, state }, note, remove);
      }),
    );
  }
}

function reason(error) {
  const { code, text, fields, hint, extra } = explain(error);
  return [`${code} ${text}`, ...fields, hint && t("hint", { hint }), ...extra].filter(Boolean).join(" · ");
}

/** The policy of the page lets pictures in as data: addresses alone. */
function dataUrl(file) {
  return new Promise((resolve) => {
    const reader = new FileReader();
    reader.onload = () => resolve(String(reader.result));
    reader.onerror = () => resolve("");
    reader.readAsDataURL(file);
  });
}
