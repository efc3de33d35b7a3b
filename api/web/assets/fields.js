// A field of a form, made from its JSON schema: `node` to show, `read()` for its value, `tell(rule)` for what is
// wrong with it. A value that is undefined is not sent.

import { api, currency, element } from "./mall.js";
import { plain, resource } from "./openapi.js";

const PRICES = new Intl.NumberFormat("en", { style: "currency", currency });
const DIGITS = PRICES.resolvedOptions().maximumFractionDigits;
const LONG = 300;
let count = 0;

/** "Low At" is "Low at", and "Price Cents" is "Price". */
export function title(name, schema) {
  const said = schema.title ?? name;
  const made = said.toLowerCase().replaceAll(" ", "_") === name;
  const words = made ? said.charAt(0).toUpperCase() + said.slice(1).toLowerCase() : said;
  return isMoney(name) ? `${words.replace(/ cents$/, "")} (${currency})` : words;
}

/** Fields of this name are cents, and people see and type money. */
export const isMoney = (name) => name.endsWith("_cents");

/** Cents as they are typed, by whole numbers alone: 450 is "4.50". */
function typed(cents) {
  if (!DIGITS) return String(cents);
  const figures = String(cents).padStart(DIGITS + 1, "0");
  return `${figures.slice(0, -DIGITS)}.${figures.slice(-DIGITS)}`;
}

function cents(text) {
  const [whole, part = ""] = text.replace(",", ".").split(".");
  return Number(whole + part.padEnd(DIGITS, "0"));
}

/** A date as `datetime-local` wants it. */
function local(iso) {
  const at = new Date(iso);
  return new Date(at - at.getTimezoneOffset() * 60000).toISOString().slice(0, 16);
}

/** A pattern that the browser can check; others are left to the API. */
function pattern(schema) {
  try {
    return schema.pattern && new RegExp(schema.pattern, "v") && schema.pattern;
  } catch {
    return undefined;
  }
}

/** What an input gives when it is read: undefined if nothing is typed. */
const unlessEmpty = (input, convert) => () =>
  (input.value.trim() === "" ? undefined : convert(input.value.trim()));

/** What a schema is typed in: the elements `shown`, the `input` among them that has the label, `read()`. */
function controlOf(name, schema, attributes, value) {
  const reference = schema["x-reference"];
  const input = (more) => element("input", { ...attributes, ...more });
  const control = (made, read, ...others) => ({ shown: [made, ...others], input: made, read });
  const number = (convert, step) => {
    const made = input({ type: "number", step, min: schema.minimum, max: schema.maximum, value });
    return control(made, unlessEmpty(made, convert));
  };
  if (schema.type === "array") return several(schema, attributes, value ?? []);
  const isOpen = schema.type === "boolean" && value === null;
  if (schema.enum || isOpen || (reference && !resource(reference.resource).pages)) {
    const made = choice(schema, attributes, value);
    return control(made, () => (made.value === "" ? undefined : JSON.parse(made.value)));
  }
  if (schema.type === "boolean") {
    const made = input({ type: "checkbox", checked: value, required: false });
    return control(made, () => made.checked);
  }
  if (isMoney(name)) {
    const made = input({
      inputmode: "decimal", autocomplete: "off", title: `Such as ${typed(450)}`,
      pattern: DIGITS ? `[0-9]{1,12}([.,][0-9]{1,${DIGITS}})?` : "[0-9]{1,12}",
      value: value === null ? null : typed(value),
    });
    return control(made, unlessEmpty(made, cents));
  }
  if (schema.type === "integer") return number(Number, 1);
  if (schema.type === "number") return number(Number, "any");
  if (schema.format === "date-time") {
    const made = input({ type: "datetime-local", value: value && local(value) });
    return control(made, unlessEmpty(made, (text) => new Date(text).toISOString()));
  }
  const limits = { maxlength: schema.maxLength, minlength: schema.minLength, autocomplete: "off" };
  const made = schema.maxLength > LONG
    ? element("textarea", { ...attributes, ...limits, rows: 3 }, value ?? "")
    : input({ ...limits, pattern: pattern(schema), type: name === "q" ? "search" : "text", value });
  // An emptied text says so; one that was empty all along says nothing.
  const read = () => (made.value === "" && !value ? undefined : made.value);
  return control(made, read, ...(reference ? [suggest(made, reference)] : []));
}

/** A list to choose from: the values of an enum, yes and no, or all things of another kind. */
function choice(schema, attributes, value) {
  const made = element("select", attributes, element("option", { value: "" }, "–"));
  const add = (one, text) =>
    made.append(element("option", { value: JSON.stringify(one), selected: one === value }, String(text)));
  const reference = schema["x-reference"];
  if (reference) {
    const { path, label } = resource(reference.resource);
    const others = (items) => items.filter((item) => item[reference.field] !== value);
    if (value) add(value, value);
    // Without an answer what is chosen stays the one choice; the page's own list says what is wrong.
    api("GET", path).then(({ items }) => {
      for (const item of others(items)) add(item[reference.field], item[label]);
    }, () => {});
  } else if (schema.enum) {
    schema.enum.forEach((one) => add(one, one));
  } else {
    add(true, "Yes");
    add(false, "No");
  }
  return made;
}

/** Suggest things of another kind while somebody types; `picked` is told when one of them is chosen, `know` what
 * each is called. */
function suggest(input, reference, picked = () => {}, know = () => {}) {
  const { path, label } = resource(reference.resource);
  const list = element("datalist", { id: `suggested-${count += 1}` });
  let waiting;
  let asked;
  const look = async () => {
    asked = new AbortController();
    const query = new URLSearchParams({ q: input.value, limit: 12 });
    try {
      const { items } = await api("GET", `${path}?${query}`, undefined, { signal: asked.signal });
      items.forEach((item) => know(item[reference.field], item[label]));
      const options = items.map((item) => element("option", { value: item[reference.field] }, item[label]));
      list.replaceChildren(...options);
    } catch {
      // Whatever is wrong: what is typed counts, and sending it tells.
    }
  };
  input.setAttribute("list", list.id);
  input.addEventListener("input", (event) => {
    clearTimeout(waiting);
    asked?.abort();
    if (event.inputType === "insertReplacementText" || !event.inputType) picked();
    else waiting = setTimeout(look, 200);
  });
  return list;
}

/** Shows values that may name things of another kind: as they are, and soon, for those that are `there`, with the
 * thing's name. Others get it where it is suggested. */
function namesOf(reference, there) {
  const { onePath, label } = (reference && resource(reference.resource)) ?? {};
  const known = new Map();
  const said = (value) => (known.has(value) ? `${known.get(value)} (${value})` : String(value));
  const made = (value) => element("span", { "data-value": value }, said(value));
  if (onePath) {
    for (const value of there) {
      api("GET", onePath.replace(/\{\w+\}$/, encodeURIComponent(value))).then((item) => {
        known.set(value, item[label]);
        document.querySelector(`span[data-value="${CSS.escape(value)}"]`)?.replaceWith(made(value));
      }, () => {});
    }
  }
  return { made, know: (value, text) => known.set(value, text) };
}

/** Several values in order: each can be moved and taken out, and another put at the end. */
function several(schema, attributes, before) {
  const values = [...before];
  const items = plain(schema.items);
  const convert = ["integer", "number"].includes(items.type) ? Number : String;
  const list = element("ol", { class: "several" });
  const input = element("input", { ...attributes, required: false, autocomplete: "off", pattern: pattern(items) });
  const reference = schema["x-reference"];
  const names = namesOf(reference, before);
  const button = (sign, words, act, off = false) => element("button",
    { type: "button", class: "quiet small", "aria-label": words, disabled: off, onclick: act }, sign);
  const move = (from, to) => {
    values.splice(to, 0, ...values.splice(from, 1));
    show();
    list.children[to].querySelector("button:not([disabled])").focus();
  };
  const take = (at) => {
    values.splice(at, 1);
    show();
    input.focus();
  };
  const add = () => {
    const text = input.value.trim();
    if (!text || !input.checkValidity()) return;
    if (!values.includes(convert(text))) values.push(convert(text));
    input.value = "";
    show();
  };
  function show() {
    list.replaceChildren(...values.map((one, at) => element("li", {}, names.made(one),
      button("↑", `Move ${one} up`, () => move(at, at - 1), at === 0),
      button("↓", `Move ${one} down`, () => move(at, at + 1), at === values.length - 1),
      button("×", `Take out ${one}`, () => take(at)))));
  }
  input.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !input.value.trim()) return;
    event.preventDefault();
    add();
  });
  const suggested = reference ? [suggest(input, reference, add, names.know)] : [];
  const adding = element("div", { class: "adding" }, input,
    element("button", { type: "button", onclick: add }, "Add"));
  show();
  return {
    shown: [list, adding, ...suggested],
    input,
    read() {
      add();
      return values.length || before.length ? [...values] : undefined;
    },
  };
}

/** A field of a form. `value` is what it has at first; `now` is what is known of it, and seen beside it. */
export function formField(name, declared, { value, required = false, now } = {}) {
  const schema = plain(declared);
  if (schema.const !== undefined) return { name, node: null, read: () => schema.const, tell() {} };
  const first = value ?? schema.default ?? null;
  const id = `field-${name}-${count += 1}`;
  const known = now === undefined || now === null ? "" : `Now ${isMoney(name) ? typed(now) : now}.`;
  const hint = [schema.description?.replaceAll("`", ""), known].filter(Boolean).join(". ");
  // Null says "leave it" to a change, so that what has a value keeps one, but for a text that may be empty.
  const mayBeEmpty = schema.type === "string" && !schema.enum && !schema.minLength;
  const needed = required || (value !== undefined && value !== null && schema.nullable && !mayBeEmpty);
  const { shown, input, read } = controlOf(name, schema, { id, name, required: needed }, first);
  const hinted = hint ? element("small", { id: `${id}-hint` }, hint) : null;
  const wrong = element("p", { class: "error", id: `${id}-wrong`, hidden: true });
  if (hinted) input.setAttribute("aria-describedby", hinted.id);
  return {
    name,
    input,
    read,
    initial: value ?? undefined,
    node: element("div", { class: "field" }, element("label", { for: id }, title(name, schema)), ...shown, hinted,
      wrong),
    /** Say what is wrong with it, or that nothing is. */
    tell(rule) {
      wrong.textContent = rule ?? "";
      wrong.hidden = !rule;
      const described = [hinted, rule ? wrong : null].filter(Boolean).map((one) => one.id).join(" ");
      const attributes = { "aria-describedby": described, "aria-invalid": rule ? "true" : "" };
      for (const [attribute, of] of Object.entries(attributes)) {
        if (of) input.setAttribute(attribute, of);
        else input.removeAttribute(attribute);
      }
    },
  };
}
