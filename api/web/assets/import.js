// The import of a catalogue: choose a file, see what it would change and what is wrong with it, import it.
// The bytes that were checked are the bytes that are imported.

import { api, currency, element, field, money, Problem } from "./mall.js";

const LARGEST = 8 * 1024 * 1024; // as the API takes it
const CHANGES = {
  added: "new",
  renamed: "renamed",
  repriced: "new price",
  alternatives: "other alternatives",
  stock: "stock received",
};
const COUNTS = {
  stores_opened: "Stores opened", products_added: "New products", products_renamed: "Renamed",
  prices_changed: "New prices", alternatives_changed: "Other alternatives", stock_received: "Pieces received",
};
const number = (value) => value.toLocaleString();

const content = document.getElementById("content");
const chosen = field("Catalogue file", { type: "file", name: "file", accept: ".jsonl,.ndjson,.json,.csv,.txt" },
  "Or drop it here. JSON lines or CSV in UTF-8, at most 8 MiB.");
const stock = field("Top up stock to", { type: "number", name: "stock", min: 0, max: 1000000, step: 1 },
  "Pieces of each product, if fewer are on the shelf. Empty: stock stays as it is.");
const form = element("form", { class: "card drop" }, chosen, stock);
const progress = element("progress", { "aria-label": "Progress", hidden: true });
const status = element("p", { role: "status" });
const result = element("div");
let file; // { name, type, bytes, lines }
let asked;

content.append(
  element("p", { class: "lead" }, "Adds and changes products; it never removes any. A file is imported as ",
    "a whole, in one step: if any line is bad, nothing is. The same file again changes nothing."),
  form,
  element("details", {}, element("summary", {}, "How a file looks"),
    element("pre", {}, '{"sku": "tea-1", "store": "Grocery", "name": "Tea", "brand": "Ours", "price_cents": 450}'),
    element("p", {}, "One such line a product, or a table with its columns named on the first line:"),
    element("pre", {}, "sku,store,name,brand,price\ntea-1,Grocery,Tea,Ours,4.50"),
    element("p", {}, `Prices in a table are in ${currency}; a column price_cents may stand instead. The optional `,
      "column alternatives has skus with spaces between. A store that is new is opened.")),
  progress, status, result);

form.addEventListener("submit", (event) => event.preventDefault());
// The same file again, mended meanwhile, is no change to a browser.
chosen.querySelector("input").addEventListener("click", ({ target }) => {
  target.value = "";
});
chosen.querySelector("input").addEventListener("change", (event) => choose(event.target.files[0]));
stock.querySelector("input").addEventListener("change", () => file && check());
form.addEventListener("dragover", (event) => {
  event.preventDefault();
  form.classList.add("over");
});
form.addEventListener("dragleave", () => form.classList.remove("over"));
form.addEventListener("drop", (event) => {
  event.preventDefault();
  form.classList.remove("over");
  choose(event.dataTransfer.files[0]);
});

async function choose(given) {
  file = undefined;
  result.replaceChildren();
  if (!given) return;
  if (given.size > LARGEST) {
    status.textContent = `${given.name} is too large: 8 MiB at most. Divide it, or use mallbots catalog import.`;
    return;
  }
  const bytes = await given.arrayBuffer();
  const lines = new TextDecoder().decode(bytes).split("\n");
  const type = lines.find((line) => line.trim())?.trim().startsWith("{") ? "application/x-ndjson" : "text/csv";
  file = { name: given.name, type, bytes, lines };
  await check();
}

/** Send the file: the answer, or undefined if another file was chosen meanwhile or something went wrong. */
async function send(what, words) {
  asked?.abort();
  asked = new AbortController();
  const { signal } = asked;
  const pieces = stock.querySelector("input").value;
  status.textContent = words;
  progress.hidden = false;
  try {
    return await api("POST", `/v1/staff/catalog/${what}${pieces ? `?stock=${pieces}` : ""}`, file.bytes,
      { type: file.type, signal });
  } catch (error) {
    if (error.name === "AbortError") return undefined;
    if (!(error instanceof Problem)) throw error;
    status.textContent = "";
    result.replaceChildren(element("div", { class: "notice bad pre", role: "alert" },
      element("span", {}, error.message)));
    return undefined;
  } finally {
    if (asked.signal === signal) progress.hidden = true;
  }
}

async function check() {
  result.replaceChildren();
  const checked = await send("check", `Checking ${file.name} …`);
  if (!checked) return;
  const { bad_lines: bad, lines, unchanged } = checked;
  const changing = lines - bad - unchanged;
  const change = changing ? number(changing) : "None";
  status.textContent = bad
    ? `${file.name}: ${number(bad)} of ${number(lines)} lines are bad, so nothing can be imported.`
    : `${file.name}: ${number(lines)} products, no line is bad. ${change} would change.`;
  result.append(facts(checked.changes, { Unchanged: unchanged, "Bad lines": bad }));
  if (!bad && changing) {
    result.append(element("div", { class: "buttons" },
      element("button", { class: "primary", onclick: bringIn }, `Import ${number(lines)} products`)));
  }
  if (bad || changing) result.append(...table(checked, changing));
}

async function bringIn() {
  const button = result.querySelector("button.primary");
  if (button.getAttribute("aria-disabled")) return;
  button.setAttribute("aria-disabled", "true");
  const count = number(file.lines.filter((line) => line.trim()).length);
  const done = await send("import", `Importing ${count} lines: all of them, or none if anything goes wrong …`);
  if (!done) return;
  status.textContent = `${file.name} is imported.`;
  result.replaceChildren(facts(done, {}), element("div", { class: "buttons" },
    element("a", { class: "button", href: "/staff/products" }, "See the products")));
}

function facts(changes, others) {
  const counted = Object.entries(COUNTS).map(([count, words]) => [words, changes[count]]);
  return element("dl", { class: "counts" }, ...[...counted, ...Object.entries(others)].map(([words, count]) =>
    element("div", { class: count ? null : "muted" },
      element("dt", {}, words), element("dd", {}, number(count)))));
}

/** The bad lines and the first of those that would change something, in the order of the file. */
function table({ problems, changed, bad_lines: bad }, changing) {
  const byLine = Map.groupBy(problems, (problem) => problem.line);
  const rows = [...[...byLine].map(([line, broken]) => [line, badRow(line, broken)]),
    ...changed.map((one) => [one.line, changedRow(one)])].sort(([a], [b]) => a - b).map(([, row]) => row);
  const body = element("tbody", {}, ...rows);
  const show = () => body.classList.toggle("only-bad", only.checked);
  const only = element("input", { type: "checkbox", onchange: show });
  const first = (shown, all) => (shown < all ? `the first ${number(shown)} of ${number(all)}` : number(all));
  const parts = [bad && `${first(byLine.size, bad)} with errors`,
    changing && `${first(changed.length, changing)} that would change something`].filter(Boolean);
  const heads = ["Line", "SKU", "Store", "Name", "Brand", "Price", "What happens"];
  return [
    element("h2", {}, bad ? "What is wrong" : "What would change"),
    element("p", { class: "muted" }, `Lines: ${parts.join(", ")}.`),
    bad ? element("div", { class: "toolbar" }, element("label", {}, only, "Only lines with errors")) : null,
    // It may scroll sideways, and has nothing else in it for the keyboard.
    element("div", { class: "table-wrap", tabindex: 0, role: "region", "aria-label": "Lines of the file" },
      element("table", {},
        element("thead", {}, element("tr", {}, ...heads.map((head) =>
          element("th", { scope: "col", class: { Line: "number", Price: "money" }[head] }, head)))),
        body)),
  ].filter(Boolean);
}

function badRow(line, broken) {
  const text = file.lines[line - 1]?.trim() ?? "";
  return element("tr", { class: "bad" }, element("th", { scope: "row", class: "number" }, String(line)),
    element("td", { colspan: 5 }, element("code", {}, text.length > 200 ? `${text.slice(0, 200)}…` : text)),
    element("td", {}, ...broken.map(({ field: where, rule }) =>
      element("div", {}, element("strong", {}, where === "line" ? "" : `${where}: `), rule))));
}

function changedRow(one) {
  const before = one.price_cents_before;
  const price = before === null || before === one.price_cents ? "" : `${money(before)} → `;
  return element("tr", {}, element("th", { scope: "row", class: "number" }, String(one.line)),
    ...[one.sku, one.store, one.name, one.brand].map((text) => element("td", {}, text)),
    element("td", { class: "money" }, price + money(one.price_cents)),
    element("td", {}, ...one.changes.map((change) => element("span", { class: "badge" }, CHANGES[change]))));
}
