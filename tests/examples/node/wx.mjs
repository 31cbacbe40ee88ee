// What a mini-program has of the platform: wx.request over HTTP, pieces cut inside characters, connections that
// break off, and neither fetch nor TextDecoder, AbortController, FormData or crypto.
import { request } from "node:http";

const lacking = ["fetch", "TextDecoder", "TextEncoder", "AbortController", "AbortSignal", "FormData", "Blob", "Headers",
  "Request", "Response", "URL", "URLSearchParams", "crypto", "navigator", "document", "Buffer", "structuredClone"];
for (const name of lacking) Object.defineProperty(globalThis, name, { value: undefined, configurable: true, writable: true });

export const requests = [];
/** Bytes of a stream after which its connection breaks off, one for each of the next streams. */
export const cuts = [];

function call(options, parts) {
  const { url, method, header, data, enableChunked, redirect = "follow", success, fail } = options;
  requests.push(`${method} ${url.replace(/^https?:\/\/[^/]+/, "").replace(/coze_\w+/g, "…")}`);
  const heard = { headers: [], chunk: [] };
  let left = enableChunked ? (cuts.shift() ?? Infinity) : Infinity;
  let over = false;
  const end = (what, result) => !over && (over = true) && what(result);
  const sent = request(url, { method, headers: header }, (response) => {
    const result = { statusCode: response.statusCode, header: response.headers };
    const { location } = response.headers;
    if (location && redirect === "follow") return call({ ...options, url: location }, parts); // all headers go along
    const whole = [];
    for (const listener of heard.headers) listener(result);
    response.on("data", (chunk) => {
      if (!enableChunked) return whole.push(...chunk);
      for (const byte of chunk) {
        if (left-- <= 0) return response.destroy();
        for (const listener of heard.chunk) listener({ data: Uint8Array.of(byte).buffer });
      }
    });
    response.on("end", () => end(success, { ...result, data: enableChunked ? "" : parts(whole) }));
    response.on("error", () => end(fail, { errMsg: "request:fail aborted" }));
    response.on("close", () => end(fail, { errMsg: "request:fail socket closed" }));
  });
  sent.on("error", (error) => end(fail, { errMsg: `request:fail ${error.message}` }));
  sent.end(data);
  return {
    abort: () => sent.destroy(),
    onHeadersReceived: (listener) => heard.headers.push(listener),
    onChunkReceived: (listener) => heard.chunk.push(listener),
  };
}

globalThis.wx = {
  request(options) {
    if (!["GET", "POST", "PUT", "DELETE"].includes(options.method)) throw new Error(`request:fail method ${options.method}`);
    return call(options, (bytes) => Uint8Array.from(bytes).buffer);
  },
  uploadFile({ name, filePath, header, ...options }) {
    const head = `--b\r\nContent-Disposition: form-data; name="${name}"; filename="${filePath.split("/").pop()}"\r\n\r\n`;
    const data = `${head}bytes of ${filePath}\r\n--b--\r\n`;
    const all = { ...header, "Content-Type": "multipart/form-data; boundary=b" };
    return call({ ...options, method: "POST", header: all, data }, (bytes) => String.fromCharCode(...bytes));
  },
};

/** Opens a page as the platform does. `path`: its module. */
export async function open(path) {
  let options;
  globalThis.Page = (given) => (options = given);
  await import(path);
  const page = Object.assign(Object.create(null), options, { data: JSON.parse(JSON.stringify(options.data)) });
  page.drawn = [];
  page.setData = (values) => {
    for (const [place, value] of Object.entries(values)) {
      const keys = place.replace(/\[(\d+)\]/g, ".$1").split(".");
      const last = keys.pop();
      keys.reduce((data, key) => data[key], page.data)[last] = value;
      if (last === "answer") page.drawn.push(value);
    }
  };
  page.loaded = page.onLoad?.({});
  return page;
}
