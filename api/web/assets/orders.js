// The orders, the newest first: a search whose state is the page's address, so that it can be kept and sent.

import { Problem, api, element, money } from "./mall.js";
import { STATUSES, badge, sentence, when } from "./order-words.js";

const LIMIT = 50;
const FIELDS = ["code", "customer", "kiosk", "status"];
const OPEN = "pending,approved,ready";
const ORDER_ID = /^(order-)?([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})$/i;

const form = document.getElementById("search");
const content = document.getElementById("content");
const paging = document.getElementById("paging");
const said = document.getElementById("said");
let latest = 0;

form.elements.status.append(
  element("option", { value: "" }, "any"), element("option", { value: OPEN }, "open: pending, approved or ready"),
  ...STATUSES.map((status) => element("option", { value: status }, status)),
);

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const asked = new URLSearchParams();
  for (const name of FIELDS) {
    const value = form.elements[name].value.trim();
    if (value) asked.set(name, value);
  }
  const id = ORDER_ID.exec(asked.get("code") ?? "");
  if (id) return location.assign(`/staff/orders/${id[2].toLowerCase()}`);
  go(asked);
});
form.elements.status.addEventListener("change", () => form.requestSubmit());
addEventListener("popstate", show);

function go(asked) {
  history.pushState(null, "", asked.size ? `?${asked}` : location.pathname);
  show();
}

async function show() {
  const asked = new URLSearchParams(location.search);
  for (const name of FIELDS) form.elements[name].value = asked.get(name) ?? "";
  const query = new URLSearchParams({ limit: LIMIT });
  if (asked.get("code")) query.set("pickup_code", asked.get("code"));
  for (const name of ["customer", "kiosk", "before"]) if (asked.get(name)) query.set(name, asked.get(name));
  for (const status of (asked.get("status") ?? "").split(",")) if (status) query.append("status", status);
  const mine = ++latest;
  content.setAttribute("aria-busy", "true");
  try {
    const page = await api("GET", `/v1/staff/orders?${query}`);
    if (mine === latest) draw(page, asked);
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    if (mine !== latest) return;
    said.textContent = "";
    paging.replaceChildren();
    content.replaceChildren(element("p", { class: "notice bad", role: "alert" }, sentence(error.message)),
      element("p", {}, element("button", { onclick: show }, "Try again")));
  } finally {
    if (mine === latest) content.removeAttribute("aria-busy");
  }
}

function draw({ items, next }, asked) {
  const further = asked.has("before");
  said.textContent = items.length === 0 ? "" :
    `${items.length} ${items.length === 1 ? "order" : "orders"}, the newest first` +
    (next ? "; there are more" : "");
  content.replaceChildren(items.length ? table(items) :
    element("p", { class: "empty" }, further ? "There are no more." : "There is no such order."));
  const following = new URLSearchParams(asked);
  following.set("before", next);
  const newest = new URLSearchParams(asked);
  newest.delete("before");
  paging.replaceChildren(...[further && link("To the newest", newest), next && link("Older orders", following)]
    .filter(Boolean));
}

function link(label, asked) {
  return element("a", {
    class: "button", href: asked.size ? `?${asked}` : location.pathname,
    onclick: (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      go(asked);
      scrollTo(0, 0);
    },
  }, label);
}

function table(items) {
  const titles = ["Placed", "Status", "Customer", "Kiosk", "Pickup code"];
  return element("div", { class: "table-wrap" }, element("table", {},
    element("caption", { class: "visually-hidden" }, "Orders, the newest first"),
    element("thead", {}, element("tr", {}, ...titles.map((title) => element("th", { scope: "col" }, title)),
      element("th", { scope: "col", class: "money" }, "Total"))),
    element("tbody", {}, ...items.map(row))));
}

function row(order) {
  const open = element("a", { href: `/staff/orders/${order.order_id}` }, when(order.placed_at));
  return element("tr", {},
    element("th", { scope: "row" }, open),
    element("td", {}, badge(order.status)),
    element("td", {}, order.customer ?? element("span", { class: "muted" }, "not told")),
    element("td", {}, order.kiosk),
    element("td", { class: "code" }, order.pickup_code ?? "–"),
    element("td", { class: "money" }, money(order.total_cents, order.currency)));
}

show();
