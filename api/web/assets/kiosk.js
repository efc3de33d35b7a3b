// The kiosk's page: a customer chooses, says what to do if something is missing, pays, and waits for the robot.

import { begin, forget, keep, line, most, put, state, sum } from "./kiosk-basket.js";
import { ENDED, follow, persist } from "./kiosk-order.js";
import { clearStatus, drawStatus } from "./kiosk-status.js";
import { api, ask, element, money } from "./mall.js";

const PAGE = 24;
const TYPING_MS = 150;
const PATIENT_FOR = 4;
const CHOOSING = ["shop", "missing", "pay"];
const SCREENS = ["start", ...CHOOSING, "refused", "sending", "order", "stranger"];
const WISHES = [
  ["skip", "Leave it out"],
  ["substitute", "Bring something like it"],
  ["cancel", "Cancel the whole order"],
];
const REFUSED = {
  insufficient_stock: ["Not enough is left", "Somebody was faster. Nothing is ordered, and nothing is charged."],
  store_closed: ["A store has closed", "It sells nothing now. Nothing is ordered, and nothing is charged."],
  unknown_product: ["Something is not sold any more", "Nothing is ordered, and nothing is charged."],
};
const UNPAID = {
  payment_declined: "The card was declined, and nothing is charged. Please choose another way to pay.",
  insufficient_funds: "There is not enough on this card. Nothing is charged. Please choose another way to pay.",
  hold_lapsed: "The card does not hold the money any more. Please choose another way to pay.",
};

const by = (id) => document.getElementById(id);
const idle = Number(by("kiosk").dataset.idleSeconds);

// Screens

function show(name) {
  for (const screen of SCREENS) by(screen).hidden = screen !== name;
  by("choosing").hidden = !CHOOSING.includes(name);
  by("go-on").hidden = name !== "shop";
  state.screen = name;
  keep();
  const heading = by(name).querySelector("h1");
  document.title = `${heading.textContent} · MallBots`;
  scrollTo(0, 0);
  heading.focus({ preventScroll: true });
  stirred();
}

function start() {
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  followed?.stop();
  followed = null;
  forget();
  for (const id of ["words", "customer"]) by(id).value = "";
  by("pay-news").replaceChildren();
  store = null;
  drawBasket();
  show("start");
}

function shop() {
  show("shop");
  listStores();
  find();
}

function missing() {
  drawWishes();
  show("missing");
}

/** Let the customer pay; `because` are sentences on why it did not work before. */
async function pay(...because) {
  by("customer").value = state.customer;
  tellAtPay(...because);
  show("pay");
  const [news, lines] = await comparedWithStores();
  if (state.screen !== "pay") return undefined;
  drawBasket();
  if (!lines.length) return tellAtPay(...because, ...news);
  const code = lines.some((one) => one.available === undefined) ? "unknown_product" : "insufficient_stock";
  return refused(code, lines);
}

// What is there to be had

let store = null;
let finding = new AbortController();
let typing;
let shown = new Map();

async function listStores() {
  let stores;
  try {
    ({ items: stores } = await persist("GET", "/v1/stores"));
  } catch (error) {
    return stranger(error);
  }
  const chip = (name, label, closed) => element("button", {
    "aria-pressed": String(store === name), onclick: () => choose(name), dataset: { store: name ?? "" },
  }, label, closed ? element("small", {}, " closed") : null);
  const chips = stores.map((one) => chip(one.name, one.name, !one.open));
  by("stores").replaceChildren(chip(null, "All stores"), ...chips);
  closed = new Set(stores.filter((one) => !one.open).map((one) => one.name));
  drawProducts();
  return undefined;
}

let closed = new Set();

function choose(name) {
  store = name;
  for (const chip of by("stores").children) {
    chip.setAttribute("aria-pressed", String(chip.dataset.store === (name ?? "")));
  }
  find();
}

/** Find products by store and words, or the next ones at `following`. A later search ends an earlier one. */
async function find(following) {
  finding.abort();
  finding = new AbortController();
  const { signal } = finding;
  const words = by("words").value.trim();
  const query = new URLSearchParams({ limit: PAGE, ...(words && { q: words }), ...(store && { store }) });
  let page;
  try {
    page = await persist("GET", following ?? `/v1/products?${query}`, undefined, {
      signal, again: () => { by("found").textContent = "The mall does not answer. We are asking again …"; },
    });
  } catch (error) {
    if (signal.aborted) return undefined;
    by("found").textContent = error.message;
    return stranger(error);
  }
  if (!following) {
    shown = new Map();
    by("products").replaceChildren();
  }
  const first = shown.size;
  for (const product of page.items) {
    shown.set(product.sku, productCard(product));
    by("products").append(shown.get(product.sku).card);
  }
  drawProducts();
  by("more").hidden = !page.next;
  by("more").onclick = () => find(page.next);
  const number = shown.size === 1 ? "1 product" : `${shown.size} products`;
  const all = number + (page.next ? ", and there are more" : "");
  by("found").textContent = shown.size ? all : "There is nothing like that.";
  if (following) [...by("products").children][first]?.querySelector("button").focus();
  return undefined;
}

function productCard(product) {
  const left = element("span", { class: "muted" });
  const chosen = element("span");
  const add = element("button", { onclick: () => changeQuantity(product, 1) },
    element("span", {}, "Add", element("span", { class: "visually-hidden" }, ` ${product.name}`), chosen));
  const card = element("li", { class: "card" },
    element("h2", {}, product.name),
    element("p", { class: "muted" }, [product.brand, product.store].filter(Boolean).join(" · ")),
    element("p", {}, element("strong", { class: "money" }, money(product.price_cents)), " ", left),
    add);
  return { product, card, left, add, chosen };
}

/** What can be added, after the basket or the stores changed. */
function drawProducts() {
  for (const { product, card, left, add, chosen } of shown.values()) {
    const quantity = line(product.sku)?.quantity ?? 0;
    const shut = closed.has(product.store);
    card.classList.toggle("kiosk-gone", shut || product.available < 1);
    left.textContent = shut ? "Closed now" : product.available < 1 ? "Sold out" : `${product.available} left`;
    chosen.textContent = quantity ? ` · ${quantity} chosen` : "";
    add.disabled = shut || quantity >= most(product);
  }
}

// The basket

const rows = new Map();

function changeQuantity(product, by_) {
  const quantity = Math.min((line(product.sku)?.quantity ?? 0) + by_, most(product));
  put(product, quantity);
  drawBasket();
  by("basket-said").textContent = `${product.name}: ${quantity} in the basket. Together ${money(sum())}`;
}

function drawBasket() {
  for (const [sku, row] of rows) {
    if (!line(sku)) {
      const next = row.row.nextElementSibling ?? row.row.previousElementSibling;
      const near = next?.querySelector("button:last-of-type") ?? by("basket-title");
      if (row.row.contains(document.activeElement)) near.focus();
      row.row.remove();
      rows.delete(sku);
    }
  }
  for (const one of state.lines) {
    if (!rows.has(one.sku)) {
      rows.set(one.sku, basketRow(one));
      by("lines").append(rows.get(one.sku).row);
    }
    const row = rows.get(one.sku);
    row.number.textContent = one.quantity;
    row.price.textContent = money(one.quantity * one.price_cents);
    row.more.disabled = one.quantity >= most(one);
  }
  by("empty").hidden = state.lines.length > 0;
  for (const id of ["sum", "to-be-paid"]) by(id).textContent = money(sum());
  by("go-on").disabled = !state.lines.length;
  drawProducts();
  if (!state.lines.length && ["missing", "pay"].includes(state.screen)) shop();
  else if (state.screen === "missing") drawWishes();
}

function basketRow(product) {
  const number = element("output");
  const price = element("span", { class: "money" });
  const button = (label, text, change) => element("button", {
    class: "quiet", "aria-label": `${label} ${product.name}`, onclick: () => change(line(product.sku)),
  }, text);
  const more = button("One more", "+", (one) => changeQuantity(one, 1));
  const row = element("li", {}, element("span", { class: "kiosk-name" }, product.name), price,
    element("span", { class: "kiosk-quantity" },
      button("One less", "−", (one) => changeQuantity(one, -1)), number, more,
      button("Remove", "Remove", (one) => changeQuantity(one, -one.quantity))));
  return { row, number, price, more };
}

// What if something is missing

function drawWishes() {
  const focused = document.activeElement?.id;
  by("wishes").replaceChildren(...state.lines.map((one) => element("fieldset", { class: "kiosk-wish" },
    element("legend", {}, `${one.quantity} × ${one.name}`),
    ...WISHES.map(([wish, text]) => choice("radio", `${one.sku}-${wish}`, text, one.if_missing === wish, () => {
      one.if_missing = wish;
      if (wish !== "substitute") one.dearer_substitute = false;
      keep();
      drawWishes();
    }, one.sku)).toSpliced(2, 0, one.if_missing === "substitute" ? dearerToo(one) : null))));
  if (focused) by(focused)?.focus();
}

function dearerToo(one) {
  return choice("checkbox", `${one.sku}-dearer`, "It may cost more", one.dearer_substitute, (checked) => {
    one.dearer_substitute = checked;
    keep();
  });
}

function choice(type, id, text, checked, change, name) {
  const input = element("input", { type, id: `wish-${id}`, name, checked, onchange: () => change(input.checked) });
  return element("label", { class: type }, input, text);
}

// Paying

/** News of what is in the basket, as it is in the stores now: sentences on changed prices, and the lines that can
 * not be had. If the mall does not answer, it will tell when it is ordered. */
async function comparedWithStores() {
  const news = [];
  const lines = [];
  await Promise.all(state.lines.map(async (one) => {
    try {
      const now = await api("GET", `/v1/products/${one.sku}`, undefined, { signal: AbortSignal.timeout(4000) });
      if (now.price_cents !== one.price_cents) {
        news.push(`${one.name} costs ${money(now.price_cents)} now; it was ${money(one.price_cents)}.`);
      }
      const { quantity } = one;
      Object.assign(one, { price_cents: now.price_cents, available: now.available });
      if (now.available < quantity) lines.push({ sku: one.sku, quantity, available: now.available });
    } catch (problem) {
      if (problem.status === 404) lines.push({ sku: one.sku, quantity: one.quantity });
    }
  }));
  keep();
  return [news, lines];
}

function tellAtPay(...sentences) {
  by("pay-news").replaceChildren(...sentences.map((text) => element("p", { class: "notice bad" }, text)));
}

function payBy(token) {
  if (state.screen !== "pay" || !state.lines.length) return;
  state.customer = by("customer").value.trim();
  begin(token === "at_pickup" ? { method: token } : { method: "card", token });
  send();
}

/** Send what is being ordered until the answer is known: the same, with the same key. */
async function send() {
  const { attempt } = state;
  by("sending-news").textContent = "One moment, please.";
  by("give-up").hidden = true;
  show("sending");
  let answer;
  try {
    answer = await persist("POST", "/v1/orders", attempt.body, {
      key: attempt.key,
      again: (failures) => {
        if (attempt.unwanted) return;
        by("sending-news").textContent = "There is no answer yet. We are asking again: it stays one order.";
        by("give-up").hidden = failures < PATIENT_FOR;
      },
    });
  } catch (error) {
    if (error.status === 401) return stranger(error);
    state.attempt = null;
    keep();
    return notOrdered(error.code, error.message, error.problem?.lines);
  }
  state.attempt = null;
  state.order = { id: answer.id, unwanted: attempt.unwanted };
  keep();
  return followOrder();
}

function notOrdered(code, detail, lines) {
  state.order = null;
  if (REFUSED[code] && lines?.length) return refused(code, lines);
  return pay(UNPAID[code] ?? detail);
}

function refused(code, lines) {
  [by("refused").querySelector("h1").textContent, by("why").textContent] = REFUSED[code];
  by("to-blame").replaceChildren(...lines.map(({ sku, quantity, available }) => element("li", {},
    element("span", { class: "kiosk-name" }, line(sku)?.name ?? sku),
    element("strong", {}, available ? `${available} left, you chose ${quantity}` : "none left"))));
  const some = lines.some((one) => one.available > 0) || state.lines.length > lines.length;
  by("take-what-is-there").hidden = !some;
  by("take-what-is-there").onclick = () => {
    for (const { sku, available } of lines) if (line(sku)) put(line(sku), available ?? 0);
    drawBasket();
    pay();
  };
  for (const { sku, available } of lines) if (line(sku)) line(sku).available = available ?? 0;
  drawBasket();
  show("refused");
}

// The order

let followed = null;
let order = null;

function followOrder() {
  order = null;
  show("order");
  clearStatus();
  followed = follow(state.order.id, drawOrder, (problem) => {
    by("order-news").textContent = problem.message;
    by("done").hidden = false;
    state.order.lost = true;
    keep();
    stranger(problem);
  });
  if (state.order.unwanted || state.order.cancelling) cancel();
}

function drawOrder(now, saga, reached) {
  if (!reached) by("order-news").textContent = "The mall does not answer. Your order is safe; we ask again …";
  if (!now) return;
  const changed = order?.status !== now.status;
  order = now;
  if (now.status === "rejected") {
    followed.stop();
    notOrdered(now.refusal.code, now.refusal.detail, now.refusal.lines);
    return;
  }
  if (now.status !== "pending" && state.lines.length) {
    // It is theirs now: what comes next is another basket.
    state.ordered = state.lines;
    state.lines = [];
    keep();
    drawBasket();
  }
  drawStatus(now, saga, reached);
  document.title = `${by("order-title").textContent} · MallBots`;
  if (changed) stirred();
}

async function cancel() {
  state.order.cancelling = true;
  keep();
  const { id } = state.order;
  try {
    await persist("POST", `/v1/orders/${id}/cancel`, {}, {
      again: () => { by("order-news").textContent = "The mall does not answer. We are asking again …"; },
    });
  } catch (problem) {
    if (state.order?.id !== id) return;
    state.order.tooLate = problem.code === "shopping_began";
    if (!state.order.tooLate) by("order-news").textContent = problem.message;
  }
  if (state.order?.id !== id) return;
  Object.assign(state.order, { unwanted: false, cancelling: false });
  keep();
  followed.look();
}

function stranger(problem) {
  if (problem.status === 401 || problem.status === 403) show("stranger");
}

// Left alone

let stirredAt = Date.now();

function stirred() {
  stirredAt = Date.now();
}

/** After how many seconds the page goes back to the start unless somebody is there; never while an order has no
 * answer, for then the customer has no pickup code yet. */
function patience() {
  if (CHOOSING.includes(state.screen) || state.screen === "refused") return idle;
  if (state.screen === "order" && (state.order?.lost || (order && order.status !== "pending"))) return idle * 1.5;
  return Infinity;
}

function watch() {
  const alone = (Date.now() - stirredAt) / 1000 - patience();
  const dialog = by("idle");
  const grace = idle / 4;
  if (alone >= grace) {
    dialog.close();
    start();
  } else if (alone >= 0) {
    const goesOn = state.screen === "order" && !ENDED.includes(order?.status);
    by("idle-text").textContent = goesOn ? `Your order goes on. Your pickup code is ${order?.pickup_code}.`
      : "Otherwise this kiosk begins again for the next customer.";
    if (!dialog.open) dialog.showModal();
    by("countdown").textContent = Math.ceil(grace - alone);
  } else if (dialog.open) {
    dialog.close();
  }
}

// All of it

const click = (id, does) => by(id).addEventListener("click", does);

click("begin", shop);
click("leave", start);
click("go-on", missing);
click("to-pay", () => pay());
click("done", start);
click("reload", () => location.reload());
click("start-again", start);
click("give-up", () => {
  state.attempt.unwanted = true;
  keep();
  by("give-up").hidden = true;
  by("sending-news").textContent = "It will be cancelled as soon as the mall answers. Please wait, or call staff.";
});
click("cancel", async () => {
  const sure = await ask("Cancel the order?", [element("p", {}, "Nothing will be charged.")],
    { confirm: "Cancel the order", danger: true });
  if (sure && state.order) cancel();
});
for (const button of document.querySelectorAll("[data-show]")) {
  button.addEventListener("click", () => ({ shop, missing })[button.dataset.show]());
}
for (const button of document.querySelectorAll("[data-pay]")) {
  button.addEventListener("click", () => payBy(button.dataset.pay));
}
by("search").addEventListener("submit", (event) => {
  event.preventDefault();
  find();
});
by("words").addEventListener("input", () => {
  clearTimeout(typing);
  finding.abort();
  typing = setTimeout(find, TYPING_MS);
});
for (const event of ["pointerdown", "keydown", "wheel", "touchmove"]) {
  document.addEventListener(event, (at) => {
    if (!at.target.closest?.("#start-again")) stirred();
  }, { passive: true });
}
by("idle").addEventListener("close", stirred);
click("still-here", () => by("idle").close());
setInterval(watch, 1000);

drawBasket();
if (state.attempt) send();
else if (state.order) followOrder();
else if (state.screen === "start" || (!state.lines.length && state.screen !== "shop")) start();
else if (state.screen === "missing") missing();
else if (state.screen === "pay") pay();
else shop();
