// The management pages: a table of the things of a kind, and a dialog for all that can be done to them. Both are
// made from the OpenAPI document, so that a new resource needs no code here (see api/staff/resources.py).

import { api, element, may, money, newKey, Problem, say, time } from "./mall.js";
import { formField, isMoney } from "./fields.js";
import { resource } from "./openapi.js";

const content = document.getElementById("content");
const name = content.dataset.resource ?? decodeURIComponent(location.pathname.split("/").pop());
const kind = resource(name);

if (kind) show();
else content.append(element("p", { class: "empty" }, `There is nothing called ${name} to manage.`));

function show() {
  const columns = Object.entries(kind.columns);
  const buttons = kind.buttons.filter((button) => may(button.action));
  const making = buttons.filter((button) => !button.ofOne);
  const ofOne = buttons.filter((button) => button.ofOne).sort((a, b) => a.danger - b.danger);
  const given = new URLSearchParams(location.search);
  const filters = kind.filters.map((one) => formField(one.name, { description: one.description, ...one.schema },
    { value: fromAddress(given.get(one.name), one.schema) }));
  const rows = element("tbody");
  const status = element("p", { class: "muted", role: "status" });
  const more = element("button", { type: "button", hidden: true }, "Show more");
  const form = element("form", { class: "toolbar filters", role: "search", "aria-label": kind.title },
    ...filters.map((filter) => filter.node),
    ...making.map((button) =>
      element("button", { type: "button", class: "primary end", onclick: () => act(button) }, button.label)));
  let asked;
  let waiting;

  document.title = `${kind.title} · MallBots`;
  document.querySelector("h1").textContent = kind.title;
  content.append(form, status, element("div", { class: "table-wrap" }, element("table", {},
    element("caption", { class: "visually-hidden" }, kind.title),
    element("thead", {}, element("tr", {},
      ...columns.map(([column, heading]) => element("th", { scope: "col", class: classOf(column) }, heading)),
      element("th", { scope: "col" }, element("span", { class: "visually-hidden" }, "What can be done")))),
    rows)), more);
  more.addEventListener("click", () => load(more.dataset.next));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    load();
  });
  form.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(load, 250);
  });
  load();

  /** Show what the filters find; with `next`, the page of that address below what is there. */
  async function load(next) {
    clearTimeout(waiting);
    asked?.abort();
    asked = new AbortController();
    const query = new URLSearchParams(filters.map((filter) => [filter.name, filter.read()])
      .filter(([, value]) => value !== undefined && value !== "" && value !== false));
    const address = query.size ? `?${query}` : location.pathname;
    try {
      const page = await api("GET", next ?? `${kind.path}${query.size ? `?${query}` : ""}`, undefined,
        { signal: asked.signal });
      if (!next) {
        history.replaceState(null, "", address);
        rows.replaceChildren();
      }
      const added = page.items.map(row);
      rows.append(...added);
      if (next) added[0]?.querySelector("button")?.focus();
      more.hidden = !page.next;
      more.dataset.next = page.next ?? "";
      const shown = rows.children.length;
      status.textContent = shown ? `${shown} shown${page.next ? ", there are more" : ""}` : "Nothing is found.";
    } catch (error) {
      if (error.name === "AbortError") return;
      if (!(error instanceof Problem)) throw error;
      status.textContent = error.message;
    }
  }

  function classOf(column) {
    if (isMoney(column)) return "money";
    return ["integer", "number"].includes(kind.properties[column].type) ? "number" : null;
  }

  function row(item) {
    const cells = columns.map(([column], at) =>
      element(at ? "td" : "th", { scope: at ? null : "row", class: classOf(column) }, shownAs(column, item)));
    const label = item[kind.label];
    const small = (words, attributes) => element("button",
      { type: "button", class: "quiet small", "aria-label": `${words} ${label}`, ...attributes }, words);
    const line = element("tr", { dataset: { key: item[kind.key] } }, ...cells);
    const [first, ...others] = ofOne.map((button) => small(button.label, {
      class: `quiet small${button.danger ? " danger" : ""}`, "data-act": button.id,
      onclick: () => act(button, item, line),
    }));
    const trail = kind.trail && may("trail.read") && small("History", { onclick: () => tellTrail(item, line) });
    const behind = [...others.slice(0, -1), trail, ...others.slice(-1)].filter(Boolean);
    const opening = behind.length ? menu(small, behind) : null;
    line.append(element("td", {}, element("div", { class: "buttons" }, first, opening)));
    return line;
  }

  /** A button that shows these buttons. */
  function menu(small, buttons) {
    const list = element("div", { popover: "auto", class: "menu" }, ...buttons);
    const opener = small("More", { class: "quiet small more" });
    opener.popoverTargetElement = list;
    list.addEventListener("toggle", ({ newState }) => {
      const { bottom, right, top } = opener.getBoundingClientRect();
      const height = list.offsetHeight;
      list.style.left = `${Math.max(8, right - list.offsetWidth)}px`;
      list.style.top = `${bottom + height > innerHeight ? top - height : bottom}px`;
      if (newState === "open") buttons[0].focus();
    });
    return [opener, list];
  }

  /** Give the focus back to a row: to the button of what was done, or to the menu that has it. */
  function focusOn(line, button) {
    const made = button && line.querySelector(`[data-act="${button.id}"]`);
    (made?.checkVisibility() ? made : line.querySelector(".more") ?? line.querySelector("button"))?.focus();
  }

  function shownAs(column, item) {
    const value = item[column];
    if (value === null || value === undefined) return "–";
    if (isMoney(column)) return money(value, item.currency);
    if (typeof value === "boolean") {
      const [no, yes] = kind.words?.[column] ?? ["no", "yes"];
      // Where only "true" has a word, it is the exception.
      const mood = no ? (value ? "good" : "muted") : "warn";
      return value || no ? element("span", { class: `badge ${mood}` }, value ? yes : no) : "";
    }
    if (Array.isArray(value)) return value.join(", ");
    return kind.properties[column].format === "date-time" ? time(value) : String(value);
  }

  /** Do something to an item (in this row), or make one: ask for what it takes, and show what became of it. */
  async function act(button, item, line) {
    const answer = await askFor(button, item);
    if (answer === undefined) {
      if (line) focusOn(line, button);
      return;
    }
    say(`${button.summary}: done${item ? ` (${item[kind.label]})` : ""}`);
    if (button.method === "DELETE") {
      const next = line.nextElementSibling ?? line.previousElementSibling;
      line.remove();
      if (next) focusOn(next);
    } else if (answer?.[kind.key] === item?.[kind.key] && line) {
      const changed = row(answer);
      changed.className = "changed";
      line.replaceWith(changed);
      focusOn(changed, button);
    } else {
      await load();
    }
  }

  async function tellTrail(item, line) {
    const subject = kind.trail.replace(/\{(\w+)\}/g, (_, field) => item[field]);
    const list = element("ol", { class: "history" }, element("li", {}, "…"));
    const dialog = element("dialog", { "aria-labelledby": "trail-title" },
      element("h2", { id: "trail-title" }, `History of ${item[kind.label]}`), list,
      element("form", { method: "dialog" }, element("div", { class: "buttons" }, element("button", {}, "Close"))));
    dialog.addEventListener("close", () => {
      dialog.remove();
      focusOn(line);
    });
    document.body.append(dialog);
    dialog.showModal();
    try {
      const { entries } = await api("GET", `/v1/staff/trail?${new URLSearchParams({ subject })}`);
      list.replaceChildren(...entries.map((entry) => element("li", {},
        element("time", { datetime: entry.recorded_at }, time(entry.recorded_at)),
        ` ${entry.who} ${entry.what}`)));
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      const none = error.status === 404 ? "Nobody has changed anything yet." : error.message;
      list.replaceChildren(element("li", {}, none));
    }
  }
}

/** A filter as it stands in the page's address. */
function fromAddress(text, schema) {
  if (text === null) return undefined;
  return schema.type === "boolean" ? text === "true" : text;
}

/** Ask in a dialog for what an operation takes, and do it: the answer, or undefined if nothing was done. What is
 * wrong is said at its field, and all that was typed stays. */
function askFor(button, item) {
  const changes = ["PATCH", "PUT"].includes(button.method);
  const key = newKey();
  const path = button.path.replace(/\{\w+\}/, () => encodeURIComponent(item[kind.key]));
  const fields = Object.entries(button.properties).map(([field, schema]) => formField(field, schema, {
    value: changes ? item?.[field] : undefined,
    now: changes ? undefined : item?.[field],
    required: button.required.includes(field),
  }));
  const wrong = element("div", { class: "notice bad", role: "alert", hidden: true });
  const send = element("button", { class: button.danger ? "danger" : "primary" }, button.label);
  const form = element("form", { method: "dialog" },
    element("h2", { id: "act-title" }, item ? `${button.label}: ${item[kind.label]}` : button.summary), wrong,
    fields.length ? null : element("p", {}, button.description.replaceAll("`", "")),
    ...fields.map((field) => field.node),
    element("div", { class: "buttons" },
      element("button", { type: "button", class: "quiet", onclick: () => dialog.close() }, "Back"), send));
  const dialog = element("dialog", { "aria-labelledby": "act-title" }, form);
  let answer;

  const tell = (message) => {
    wrong.textContent = message ?? "";
    wrong.hidden = !message;
  };

  const toSend = () => {
    const read = fields.map((field) => [field.name, field.read(), field.initial]);
    const different = ([, value, initial]) => JSON.stringify(value) !== JSON.stringify(initial);
    return Object.fromEntries(read.filter((one) => one[1] !== undefined && (!changes || different(one))));
  };

  const tellAll = (problem) => {
    // "alternatives[0]" is of the field "alternatives".
    const at = (field) => fields.find((one) => one.name === field.match(/^\w*/)[0]);
    const errors = problem.errors.map(({ field, rule }) => [at(field), rule]);
    if (errors.length && errors.every(([field]) => field)) {
      for (const [field, rule] of errors) field.tell(rule);
      errors[0][0].input?.focus();
    } else {
      tell(problem.message);
    }
  };

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (send.getAttribute("aria-disabled")) return;
    tell();
    fields.forEach((field) => field.tell());
    const body = button.takesBody ? toSend() : undefined;
    if (changes && !Object.keys(body).length) {
      tell("Nothing is different yet.");
      return;
    }
    send.setAttribute("aria-disabled", "true");
    try {
      answer = await api(button.method, path, body, button.takesKey ? { key } : {});
      dialog.close();
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      tellAll(error);
    } finally {
      send.removeAttribute("aria-disabled");
    }
  });

  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(answer);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}
