// Each line that says so must be refused, and no other.
import { CozeClient } from "coze-fastapi-client";

const client = new CozeClient({ baseUrl: "" });
client.sessions.create({ bot_id: "7" }); // wrong: no user
client.chats.send("s", { message: "hi", on_bussy: "enqueue" }); // wrong: misspelt
client.chats.send("s", { message: "hi", on_busy: "wait" }); // wrong: no such value
client.chats.stream("s", "hi", { onEvent: (event, answer) => answer.txt }); // wrong: no such field
client.chats.cancel(7); // wrong: a number
client.files.upload("text", { name: "a.txt" }); // wrong: a text is no file
client.chats.result("c").then((chat) => chat.usage.token_count); // wrong: may be null
new CozeClient({ timeout: 3 }); // wrong: timeoutMs
client.chats.result("c").then((chat) => chat.content.length);
