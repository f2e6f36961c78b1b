/** White space that ends or moves a line. */
const SPACES = /[\t\n\v\f\r\u0085\u2028\u2029]+/gu;
/**
 * Characters that are not seen, or that change how others are seen: control characters, marks that turn
 * text around, half characters. Variation selectors, which belong to many emoji, stay.
 */
const UNSEEN = /(?![\ufe00-\ufe0f])[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\p{DI}]/gu;
/** U+FFFD: says that a character was there. */
const REPLACEMENT = "\ufffd";

/** A text on one line, with a visible sign in place of each character that is not seen. */
export function plain(text: string): string {
  return text.replace(SPACES, " ").replace(UNSEEN, REPLACEMENT);
}

/** The same of a text that may have several lines. */
export function plainLines(text: string): string {
  return text.split(/\r?\n/).map(plain).join("\n");
}

/** JSON in which no character is unseen, and that is read as before. */
export function plainJson(json: string): string {
  const escape = (unit: string) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`;
  return json.replace(UNSEEN, (character) =>
    character === "\n" ? character : character.split("").map(escape).join(""),
  );
}

/**
 * A text on one line that Slack shows as it is written: without mentions, links, emphasis, code and
 * emoji (https://docs.slack.dev/messaging/formatting-message-text). Slack knows no escape for the
 * characters of its emphasis, so look-alikes stand in their place.
 */
export function mrkdwn(text: string): string {
  const shown = plain(text)
    .replaceAll("`", "'")
    .replaceAll("*", "∗")
    .replaceAll("~", "∼")
    .replace(/(?<![\p{L}\p{N}])_|_(?![\p{L}\p{N}])/gu, "＿")
    .replace(/:(?=[a-z0-9_+'-]+:)/g, "∶");
  return escapeEntities(shown);
}

/** A text in which Slack finds neither mention nor link, for a block of code. */
export function escapeEntities(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
