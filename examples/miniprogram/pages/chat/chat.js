import { CozeClient } from "../../coze/coze-client.js";
import { miniProgram } from "../../coze/wx-adapter.js";

const client = new CozeClient({
  // 上线时改为自己的域名：只能用 HTTPS，并且要加入小程序后台的“request 合法域名”
  baseUrl: "http://127.0.0.1:6001",
  // 上线时每个请求都要带身份：headers: () => ({ HtySudoerToken: wx.getStorageSync("token"), HtyHost: "…" }),
  ...miniProgram(wx),
});

Page({
  data: { turns: [], draft: "", running: false, notice: "" },

  onDraft({ detail }) {
    this.setData({ draft: detail.value });
  },

  // 离开页面只是不再读取：问答在服务端照常完成
  onUnload() {
    this.reading?.abort();
  },

  async send() {
    const message = this.data.draft.trim();
    if (!message || this.data.running) return;
    const place = this.data.turns.length;
    this.setData({ draft: "", notice: "", running: true, [`turns[${place}]`]: { question: message, answer: "" } });
    const { AbortController } = miniProgram(wx);
    this.reading = new AbortController();
    try {
      const answer = await client.chats.stream(await this.session(), message, {
        signal: this.reading.signal,
        onChat: (chatId) => (this.chatId = chatId),
        onEvent: (event, answer) => this.draw(place, answer.text), // 到此为止的全文
        onState: ({ state }) => this.setData({ notice: state === "lost" ? "连接断开，正在重连…" : "" }),
      });
      this.draw(place, answer.text, true);
      this.setData({ [`turns[${place}].status`]: answer.status }); // completed、failed、cancelled…
      if (answer.status === "failed") this.setData({ notice: answer.error?.message ?? "回答失败" });
    } catch (error) {
      if (this.reading.signal.aborted) return;
      // 会话已过期或已终止：下一次发送会新建一个
      if (/^COZE_SESSION_(NOT_FOUND|EXPIRED|TERMINATED)$/.test(error.code)) this.sessionId = "";
      this.setData({ notice: error.message, draft: message });
    }
    this.chatId = "";
    this.setData({ running: false });
  },

  // 停止问答本身；正在读取的流随后以 cancelled 结束
  async stop() {
    if (this.chatId) await client.chats.cancel(this.chatId).catch((error) => this.setData({ notice: error.message }));
  },

  async session() {
    this.sessionId ||= (await client.sessions.create("u-1")).session_id; // 换成自己的用户 ID
    return this.sessionId;
  },

  // setData 较慢：至多每 50 毫秒画一次
  draw(place, text, last = false) {
    this.text = text;
    if (this.timer && !last) return;
    clearTimeout(this.timer);
    const paint = () => {
      this.timer = null;
      this.setData({ [`turns[${place}].answer`]: this.text });
    };
    if (last) return paint();
    this.timer = setTimeout(paint, 50);
  },
});
