/**
 * coze-stream.js in a WeChat mini program, which has neither fetch nor TextDecoder nor AbortController:
 *
 *   import { streamChat } from "./coze-stream.js";
 *   import { miniProgram } from "./mini_program.js";
 *   const answer = await streamChat({ ...miniProgram(wx), baseUrl, sessionId, headers, body: { message: "你好" } });
 *
 * wx.request streams with enableChunked (base library 2.20.2): headers come by onHeadersReceived, bytes by
 * onChunkReceived. The domain of `baseUrl` has to be among the mini program's request domains.
 */

/** @param {any} wx  The platform's global object. @returns Options for `streamChat` and its kin. */
export function miniProgram(wx) {
  return { fetch: (url, init) => open(wx, url, init), TextDecoder: Utf8Decoder, AbortController: Abort };
}

/** As fetch does: resolves once status and headers are there; `body` brings the rest as it arrives. */
function open(wx, url, { method = "GET", headers = {}, body, signal } = {}) {
  return new Promise((resolve, reject) => {
    const pieces = new Pieces();
    let answered = false;
    const answer = ({ statusCode, header }) => {
      if (answered || !statusCode) return;
      answered = true;
      resolve(response(statusCode, header ?? {}, pieces));
    };
    const task = wx.request({
      url,
      method,
      header: headers,
      data: body,
      enableChunked: true,
      responseType: "arraybuffer",
      timeout: 600_000, // of the whole answer: heartbeats tell whether the connection lives
      success: (result) => {
        answer(result);
        pieces.end();
      },
      fail: ({ errMsg }) => {
        reject(new Error(errMsg));
        pieces.fail(new Error(errMsg));
      },
    });
    task.onHeadersReceived(answer);
    task.onChunkReceived(({ data }) => pieces.add(new Uint8Array(data)));
    signal?.addEventListener("abort", () => task.abort());
  });
}

function response(status, header, pieces) {
  const lower = Object.fromEntries(Object.entries(header).map(([name, value]) => [name.toLowerCase(), String(value)]));
  return {
    status,
    ok: status >= 200 && status < 300,
    headers: { get: (name) => lower[name.toLowerCase()] ?? null },
    body: { getReader: () => ({ read: () => pieces.read() }) },
    async json() {
      const decoder = new Utf8Decoder();
      let text = "";
      for (;;) {
        const { done, value } = await pieces.read();
        if (done) return JSON.parse(text);
        text += decoder.decode(value);
      }
    },
  };
}

/** What has arrived and was not read yet; a read waits for more. */
class Pieces {
  #waiting = [];
  #readers = [];

  add(value) {
    this.#give(Promise.resolve({ done: false, value }));
  }

  end() {
    this.#give(Promise.resolve({ done: true, value: undefined }));
  }

  fail(error) {
    const failure = Promise.reject(error);
    failure.catch(() => {}); // it may be that nobody reads any more
    this.#give(failure);
  }

  read() {
    if (this.#waiting.length) return this.#waiting.shift();
    return new Promise((resolve) => this.#readers.push(resolve));
  }

  #give(piece) {
    const reader = this.#readers.shift();
    if (reader) reader(piece);
    else this.#waiting.push(piece);
  }
}

/** UTF-8 that arrives in pieces, cut anywhere: what is not whole waits for the next piece. */
class Utf8Decoder {
  #rest = new Uint8Array(0);

  decode(bytes = new Uint8Array(0)) {
    const all = new Uint8Array(this.#rest.length + bytes.length);
    all.set(this.#rest);
    all.set(bytes, this.#rest.length);
    let [text, at] = ["", 0];
    while (at < all.length) {
      const first = all[at];
      const length = first < 0x80 ? 1 : first >> 5 === 6 ? 2 : first >> 4 === 14 ? 3 : first >> 3 === 30 ? 4 : 0;
      if (at + length > all.length) break;
      let code = length > 1 ? first & (0xff >> (length + 1)) : first;
      for (let next = 1; next < length; next += 1) code = (code << 6) | (all[at + next] & 0x3f);
      text += length ? String.fromCodePoint(Math.min(code, 0x10ffff)) : "\ufffd";
      at += length || 1;
    }
    this.#rest = all.slice(at);
    return text;
  }
}

class Abort {
  signal = {
    aborted: false,
    listeners: [],
    addEventListener(_, listener) {
      this.listeners.push(listener);
    },
  };

  abort() {
    if (this.signal.aborted) return;
    this.signal.aborted = true;
    for (const listener of this.signal.listeners) listener();
  }
}
