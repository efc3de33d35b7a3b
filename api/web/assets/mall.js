// What every page's module needs: the REST API, elements made of text and never of markup, words for money and time.

const page = document.body.dataset;

export const currency = page.currency;
export const may = (action) => page.actions.split(" ").includes(action);

/** A new Idempotency-Key. randomUUID is not there on a page that came without TLS. */
export const newKey = () =>
  [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

/** A problem (RFC 9457) that the API answered, or that it could not be reached (status 0). */
export class Problem extends Error {
  constructor(status, problem, retryAfter = null) {
    super(problem.detail ?? problem.title ?? "The mall does not answer");
    this.status = status;
    this.code = problem.code ?? "unreachable";
    this.errors = problem.errors ?? [];
    this.problem = problem;
    this.retryAfter = retryAfter; // seconds, if the API said so
  }
}

/** Ask the REST API: the answer's JSON (null if it has none). `key` is the Idempotency-Key; with a `type`, the
 * body is sent as it is. Throws `Problem`. Who is not signed in (any more) is led to the sign-in page, and back. */
export async function api(method, path, body, { key, signal, type } = {}) {
  const headers = { Accept: "application/json" };
  if (body !== undefined) headers["Content-Type"] = type ?? "application/json";
  if (key) headers["Idempotency-Key"] = key;
  let response, text;
  try {
    response = await fetch(path, {
      method, headers, signal, credentials: "same-origin",
      body: body === undefined || type ? body : JSON.stringify(body),
    });
    text = await response.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, {});
  }
  let answer = null;
  try {
    answer = text ? JSON.parse(text) : null;
  } catch {
    answer = { detail: `The mall answered ${response.status}` };
  }
  if (response.status === 401 && location.pathname.startsWith("/staff")) {
    location.assign(`/sign-in?next=${encodeURIComponent(location.pathname + location.search)}`);
  }
  if (!response.ok) {
    throw new Problem(response.status, answer ?? {}, Number(response.headers.get("Retry-After")) || null);
  }
  return answer;
}

/** An element: `element("td", { class: "money", onclick: f }, "text", child)`. Text stays text. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "dataset") Object.assign(made.dataset, value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

const formats = new Map();

/** Cents as people write them: 1298 is "$12.98". */
export function money(cents, of = currency) {
  if (cents === null || cents === undefined) return "–";
  if (!formats.has(of)) formats.set(of, new Intl.NumberFormat(undefined, { style: "currency", currency: of }));
  const format = formats.get(of);
  return format.format(cents / 10 ** format.resolvedOptions().maximumFractionDigits);
}

/** So many seconds in a word: "45 s", "3 min", "2 h 5 min". */
export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min`;
  const hours = Math.floor(whole / 3600);
  return hours < 48 ? `${hours} h ${Math.floor((whole % 3600) / 60)} min` : `${Math.floor(hours / 24)} days`;
}

/** A time, with its date unless that is today. */
export function time(iso) {
  const at = new Date(iso);
  const today = at.toDateString() === new Date().toDateString();
  return at.toLocaleString(undefined, { timeStyle: "medium", ...(today ? {} : { dateStyle: "medium" }) });
}

/** Say something at the foot of the page; "bad" stays until it is closed. Screen readers hear it. */
export function say(message, kind = "good") {
  const notice = element("div", { class: `notice ${kind}` }, element("span", {}, message),
    element("button", { class: "quiet", "aria-label": "Close", onclick: () => notice.remove() }, "×"));
  document.getElementById("notices").append(notice);
  if (kind !== "bad") setTimeout(() => notice.remove(), 6000);
}

/** Do something and say what went wrong. Gives undefined then. `button` can not be pressed meanwhile. */
export async function attempt(work, button) {
  if (button?.getAttribute("aria-disabled") === "true") return undefined;
  button?.setAttribute("aria-disabled", "true");
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    say(error.message, "bad");
    return undefined;
  } finally {
    button?.removeAttribute("aria-disabled");
  }
}

/** Ask in a dialog: `fields` are elements. Gives the form's data, or null if it was closed without an answer. */
export function ask(title, fields, { confirm = "OK", danger = false } = {}) {
  return new Promise((resolve) => {
    const form = element("form", { method: "dialog" }, element("h2", { id: "dialog-title" }, title), ...fields,
      element("div", { class: "buttons" },
        element("button", { type: "button", class: "quiet", onclick: () => dialog.close("no") }, "Back"),
        element("button", { value: "yes", class: danger ? "danger" : "primary" }, confirm)));
    const dialog = element("dialog", { "aria-labelledby": "dialog-title" }, form);
    dialog.addEventListener("close", () => {
      const answer = dialog.returnValue === "yes" ? new FormData(form) : null;
      dialog.remove();
      resolve(answer);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** A labelled input for `ask` and forms: `field("Reason", { name: "reason", required: true })`. */
export function field(label, attributes, hint) {
  const id = `field-${attributes.name}-${field.count = (field.count ?? 0) + 1}`;
  const input = attributes.options
    ? element("select", { ...attributes, options: null, id },
        ...attributes.options.map(([value, text]) => element("option", { value }, text)))
    : element(attributes.rows ? "textarea" : "input", { ...attributes, id });
  if (hint) input.setAttribute("aria-describedby", `${id}-hint`);
  return element("div", { class: "field" }, element("label", { for: id }, label), input,
    hint ? element("small", { id: `${id}-hint` }, hint) : null);
}
