/** What went wrong, in the page's language; with code, fields, Coze's code and logid for whoever is asked. */
import { STRINGS } from "./strings.js";
import { t } from "./dom.js";

const GONE = new Set(["COZE_SESSION_NOT_FOUND", "COZE_SESSION_TERMINATED", "COZE_SESSION_EXPIRED"]);

/** Whether the session is over, so that nothing can be sent in it any more. */
export const isGone = (error) => GONE.has(error?.code);

/** The key of the text for an error, and its values: for `say` and `t`. */
export function errorText(error) {
  const key = `error_${error.code}`;
  return key in STRINGS.en ? [key, {}] : ["plainText", { text: error.message ?? "" }];
}

/** All there is to say: `text` in the page's language, `said` as the service wrote it where that is more. */
export function explain(error) {
  const details = error.details ?? {};
  const [key, values] = errorText(error);
  const fields = (details.fields ?? []).map(({ field, message }) => (field ? `${field}: ${message}` : message));
  const known = key !== "plainText";
  return {
    code: error.code ?? "ERROR",
    text: t(key, values),
    said: known && !fields.length && error.status ? error.message : "",
    fields,
    hint: details.hint ?? error.hint ?? "",
    extra: [
      details.coze_code ?? error.coze_code ? `Coze ${details.coze_code ?? error.coze_code}` : "",
      details.logid ?? error.logid ? `logid ${details.logid ?? error.logid}` : "",
      error.requestId ? t("requestId", { id: error.requestId }) : "",
    ].filter(Boolean),
  };
}
