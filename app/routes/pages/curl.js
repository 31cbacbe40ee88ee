/** Calls as curl lines for a POSIX shell. Credentials are never in them: `$HTY_TOKEN` stands for the token. */
import { BASE } from "./credentials.js";

/** One word for the shell, whatever is in it. */
export function quote(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/** @param {{method?: string, path: string, body?: object, headers?: string[], stream?: boolean, host?: string}} call */
export function curl({ method = "GET", path, body, headers = [], stream = false, host = "" }) {
  const words = [`curl ${stream ? "-N" : "-s"} ${quote(location.origin + BASE + path)}`];
  if (method !== "GET" && !(method === "POST" && body)) words.push(`-X ${method}`);
  if (host) words.push('-H "HtySudoerToken: $HTY_TOKEN"', `-H ${quote(`HtyHost: ${host}`)}`);
  for (const header of headers) words.push(`-H ${quote(header)}`);
  if (body) words.push("-H 'Content-Type: application/json'", `--data-raw ${quote(JSON.stringify(body))}`);
  return words.join(" \\\n  ");
}
