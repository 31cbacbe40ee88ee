/**
 * 让 coze-client.js 在微信小程序里运行：小程序没有 fetch、TextDecoder 与 AbortController，这里用 wx.request 补上。
 *
 *   import { CozeClient } from "./coze-client.js";
 *   import { miniProgram } from "./wx-adapter.js";
 *   const client = new CozeClient({ baseUrl: "https://api.example.com", ...miniProgram(wx) });
 *
 * 流式读取靠 enableChunked（基础库 2.20.2 以上）：响应头来自 onHeadersReceived，内容逐段来自 onChunkReceived，
 * 切分可能落在一个汉字中间。wx.request 不支持 PATCH，所以 sessions.update 与 conversations.rename 在小程序里不可用。
 */

/** @param {any} wx 小程序的全局对象。返回 CozeClient 的三个选项。 */
export function miniProgram(wx) {
  return { fetch: (url, init) => request(wx, url, init), TextDecoder: Utf8Decoder, AbortController: Aborter };
}

/**
 * 上传一个本地文件（小程序没有 FormData，用 wx.uploadFile）。返回 file_id 等，供消息的 attachments 使用。
 * @param {any} wx
 * @param {{baseUrl: string, headers?: Record<string, string>, session_id: string, filePath: string}} options
 */
export function uploadFile(wx, { baseUrl, headers = {}, session_id, filePath }) {
  return new Promise((resolve, reject) => {
    wx.uploadFile({
      url: `${baseUrl}/coze/files?session_id=${encodeURIComponent(session_id)}`,
      name: "file",
      filePath,
      header: headers,
      success: ({ statusCode, data }) => {
        if (statusCode === 200) resolve(JSON.parse(data).data.task_result.data);
        else reject(new Error(`HTTP ${statusCode}: ${data}`));
      },
      fail: ({ errMsg }) => reject(new Error(errMsg)),
    });
  });
}

/** 与 fetch 一样：拿到状态与响应头就返回，其余内容随后从 body 逐段读出。 */
function request(wx, url, { method = "GET", headers = {}, body, redirect, signal }) {
  return new Promise((resolve, reject) => {
    const pieces = new Pieces();
    let [answered, arrived] = [false, false];
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
      enableChunked: headers.Accept === "text/event-stream",
      responseType: "arraybuffer",
      redirect, // “manual”：不跟随重定向，否则 token 会被一起带到别处（基础库 3.2.2 以上；更早的版本会忽略）
      timeout: 600_000, // 整个回答的时限；连接是否还活着，由心跳判断
      success: (result) => {
        answer(result);
        if (!arrived && result.data?.byteLength) pieces.add(new Uint8Array(result.data)); // 没有分段时，内容在这里
        pieces.end();
      },
      fail: ({ errMsg }) => {
        reject(new Error(errMsg));
        pieces.fail(new Error(errMsg));
      },
    });
    task.onHeadersReceived(answer);
    task.onChunkReceived(({ data }) => {
      arrived = true;
      pieces.add(new Uint8Array(data));
    });
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

/** 已经到达、还没有读走的内容；没有时，读取者等待。 */
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
    failure.catch(() => {}); // 也许已经没有人在读
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

/** 逐段到达的 UTF-8，可以切在任何位置：不完整的字符留到下一段。 */
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

class Aborter {
  signal = new Signal();

  abort(reason = new Error("aborted")) {
    this.signal.abort(reason);
  }
}

class Signal {
  aborted = false;
  reason = undefined;
  #listeners = new Set();

  addEventListener(_, listener) {
    this.#listeners.add(listener);
  }

  removeEventListener(_, listener) {
    this.#listeners.delete(listener);
  }

  throwIfAborted() {
    if (this.aborted) throw this.reason;
  }

  abort(reason) {
    if (this.aborted) return;
    [this.aborted, this.reason] = [true, reason];
    for (const listener of [...this.#listeners]) listener();
  }
}
