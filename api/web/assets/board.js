// The board: a snapshot of the orders that have not ended, and every event behind it. Only the cards that an event
// changes are touched, together with all that change in the same moment.

import { api, duration, element, money, say } from "./mall.js";
import { follow } from "./live.js";

const ENDS = {
  OrderCompleted: "handed over", OrderRejected: "rejected", OrderCancelled: "cancelled", OrderExpired: "expired",
};
const ENDED_SHOWN = 12;
const ENDED_SECONDS = 60;
const ENDED_KEPT = 500;
const SPEAK_EVERY = 10_000;
const BEEP_EVERY = 700;
const DRAW_EVERY = 80;
const FLASH = 1_200;

const by = (id) => document.getElementById(id);
const columns = new Map([...document.querySelectorAll(".board-column")].map((section) => [section.dataset.state, {
  list: section.querySelector("ul"),
  empty: section.querySelector(".empty"),
  counts: document.querySelectorAll(`[data-count="${section.dataset.state}"]`),
  late: section.querySelector("[data-late]"),
}]));
const filters = by("filters");

/* ---- What is known: the orders of the snapshot, changed by events ---- */

const orders = new Map(); // by order id: BoardOrder of the API, `since` in milliseconds
const lists = new Map(); // of orders that are not placed yet, as far as is known: domains are not in step
const ended = new Map(); // the last that ended: their cards, and so that nothing late brings them back
let lateAfter = {};
let clock = 0; // the server's time less ours, in milliseconds

const newList = () => ({
  list_status: null, list_version: 0, robot: null, stores: [], pieces: 0, picked: 0, missing: 0,
});

function addStops(list, { stops }) {
  list.stores = [...new Set([...list.stores, ...stops.map((stop) => stop.store)])];
  list.pieces += stops.flatMap((stop) => stop.items).reduce((sum, item) => sum + item.quantity, 0);
}

const ORDER = {
  OrderApproved: (order, { total_cents, pickup_code }) =>
    Object.assign(order, { status: "approved", total_cents, pickup_code }),
  OrderAdjusted: (order, { total_cents }) => Object.assign(order, { total_cents }),
  OrderReadied: (order) => Object.assign(order, { status: "ready" }),
};
const LIST = {
  ShoppingListScheduled: (list, data) => { list.list_status = "scheduled"; addStops(list, data); },
  ShoppingListReleased: (list, { robot }) => Object.assign(list, { list_status: "released", robot }),
  ShoppingListAssigned: (list, { robot }) => Object.assign(list, { list_status: "assigned", robot }),
  ItemPicked: (list, { quantity }) => { list.picked += quantity; },
  ItemMissing: (list, { quantity }) => { list.missing += quantity; },
  ShoppingListAmended: addStops,
  ShoppingListCompleted: (list) => { list.list_status = "completed"; },
  ShoppingListCancelled: (list) => { list.list_status = "cancelled"; },
};

/** The column of an order, as the API says it in its snapshots. */
function stateOf({ status, list_status, robot }) {
  if (status !== "approved") return status;
  if (!list_status || list_status === "scheduled" || list_status === "released") return "approved";
  return list_status === "cancelled" && !robot ? "approved" : "shopping";
}

async function takeSnapshot() {
  const board = await api("GET", "/v1/staff/board");
  clock = Date.parse(board.at) - Date.now();
  lateAfter = board.late_after_seconds;
  for (const id of orders.keys()) changed.add(id);
  orders.clear();
  lists.clear();
  for (const order of board.orders) {
    order.since = Date.parse(order.since);
    orders.set(order.order_id, order);
    changed.add(order.order_id);
  }
  isNew = true;
  draw();
}

function apply(event) {
  const id = event.data.order_id;
  if (event.domain === "orders") applyToOrder(id, event);
  else if (event.event in LIST) applyToList(id, event);
}

function applyToOrder(id, { event, version, data, recorded_at }) {
  let order = orders.get(id);
  if (event === "OrderPlaced" && !order && !ended.has(id)) {
    const { kiosk, customer, currency, placed_at } = data;
    order = { order_id: id, kiosk, customer, currency, placed_at, total_cents: null, pickup_code: null,
      status: "pending", order_version: 0, ...(lists.get(id) ?? newList()) };
    lists.delete(id);
    orders.set(id, order);
  }
  if (!order || version <= order.order_version) return;
  order.order_version = version;
  if (event in ENDS) {
    orders.delete(id);
    ended.set(id, { id, code: order.pickup_code, how: ENDS[event], at: Date.parse(recorded_at) });
    if (ended.size > ENDED_KEPT) ended.delete(ended.keys().next().value);
  } else {
    ORDER[event]?.(order, data);
    moved(order, recorded_at);
    if (event === "OrderReadied") beep();
  }
  change(id);
}

function applyToList(id, { event, version, data, recorded_at }) {
  const order = orders.get(id);
  if (!order && event === "ShoppingListScheduled" && !ended.has(id)) lists.set(id, newList());
  const list = order ?? lists.get(id);
  if (!list || version <= list.list_version) return;
  list.list_version = version;
  LIST[event](list, data);
  if (!order) return;
  const again = event === "ShoppingListReleased" || event === "ShoppingListAssigned";
  moved(order, recorded_at, again && order.status === "approved");
  change(id);
}

/** The time in a state counts from when the order came to it, or to another robot in it. */
function moved(order, at, again = false) {
  const state = stateOf(order);
  if (state === order.state && !again) return;
  order.state = state;
  order.since = Date.parse(at);
  flashing.add(order.order_id);
}

/* ---- What is seen: a card an order ---- */

const cards = new Map();
const changed = new Set();
const flashing = new Set();
let isDue = false;
let drawnAt = 0;
let isNew = true; // all of it: nothing flashes

function change(id) {
  changed.add(id);
  if (isDue) return;
  isDue = true;
  setTimeout(() => requestAnimationFrame(draw), Math.max(0, drawnAt + DRAW_EVERY - Date.now()));
}

function draw() {
  isDue = false;
  drawnAt = Date.now();
  for (const id of changed) drawCard(id);
  if (changed.size) offer();
  changed.clear();
  flashing.clear();
  isNew = false;
  tally();
  drawEnded();
}

function newCard(id) {
  const made = (name) => element("span", { class: name });
  const card = {
    code: made("order-code code"), late: made("badge warn"), time: made("order-time number"),
    who: made("order-who"), total: made("money"), stores: made("order-stores muted"), robot: made("order-robot"),
    pieces: made("number"), missing: made("badge bad"), fill: made("order-fill"),
  };
  card.late.hidden = true;
  card.late.textContent = "Late";
  card.bar = element("span", { class: "order-bar", "aria-hidden": "true" }, card.fill);
  card.progress = element("span", { class: "order-line" }, card.robot, card.missing, card.pieces);
  card.item = element("li", { class: "order" }, element("a", { href: `/staff/orders/${id}` },
    element("span", { class: "order-line" }, card.code, card.late, card.time),
    element("span", { class: "order-line" }, card.who, card.total), card.stores, card.progress, card.bar));
  return card;
}

function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function hide(node, isHidden) {
  if (node.hidden !== isHidden) node.hidden = isHidden;
}

function drawCard(id) {
  const order = orders.get(id);
  let card = cards.get(id);
  if (!order) {
    card?.item.remove();
    cards.delete(id);
    return;
  }
  if (!card) cards.set(id, card = newCard(id));
  const total = order.pieces - order.missing;
  put(card.code, order.pickup_code ?? id.slice(-6));
  put(card.who, [order.customer, order.kiosk].filter(Boolean).join(" · "));
  put(card.total, money(order.total_cents, order.currency));
  put(card.stores, order.stores.join(", "));
  put(card.robot, robotWord(order));
  put(card.pieces, total ? `${order.picked} of ${total} picked` : "");
  put(card.missing, `${order.missing} missing`);
  hide(card.missing, !order.missing);
  hide(card.progress, order.state === "pending" || (order.state === "ready" && !order.missing));
  hide(card.bar, order.state !== "shopping");
  card.fill.style.transform = `scaleX(${total ? order.picked / total : 0})`;
  place(card, order);
  if (flashing.has(id) && !isNew) flash(card, true);
}

/** Mark a card for a moment. Not an animation: that costs each board as much as all the rest. */
function flash(card, isOn) {
  card.flashUntil = isOn ? Date.now() + FLASH : 0;
  card.item.classList.toggle("flash", isOn);
}

function robotWord({ state, list_status, robot }) {
  if (list_status === "cancelled") return "Being undone";
  if (state === "approved") return robot ? `${robot} lost it` : "No robot yet";
  return robot ?? "";
}

/** Put a card where it belongs: those that are longest in the state come first. */
function place(card, order) {
  const { list } = columns.get(order.state);
  if (card.item.parentNode === list && card.since === order.since) return;
  card.since = order.since;
  card.id = order.order_id;
  card.item.card = card;
  const had = card.item.contains(document.activeElement) ? document.activeElement : null;
  card.item.remove();
  let last = list.lastElementChild;
  while (last && isBehind(last.card, card)) last = last.previousElementSibling;
  list.insertBefore(card.item, last ? last.nextElementSibling : list.firstElementChild);
  had?.focus({ preventScroll: true });
}

const isBehind = (one, other) => one.since > other.since || (one.since === other.since && one.id > other.id);

/** Bring times, marks and numbers up to date; nothing is touched whose word stays the same. */
function tally() {
  const now = Date.now() + clock;
  const counts = {};
  for (const state of columns.keys()) counts[state] = { all: 0, shown: 0, late: 0 };
  for (const [id, order] of orders) {
    const card = cards.get(id);
    if (!card) continue;
    const count = counts[order.state];
    const seconds = (now - order.since) / 1000;
    const isLate = seconds > lateAfter[order.state];
    const isShown = matches(order);
    count.all += 1;
    hide(card.item, !isShown);
    if (card.flashUntil && card.flashUntil < Date.now()) flash(card, false);
    if (!isShown) continue;
    count.shown += 1;
    count.late += isLate;
    put(card.time, duration(seconds));
    if (card.late.hidden === isLate) {
      card.late.hidden = !isLate;
      card.item.classList.toggle("late", isLate);
    }
  }
  for (const [state, column] of columns) drawCounts(column, counts[state]);
  const sum = (name) => Object.values(counts).reduce((total, count) => total + count[name], 0);
  put(by("sum"), `${sum("all")} open${sum("late") ? `, ${sum("late")} late` : ""}`);
  shown = sum("shown");
  put(by("filter-said"), isFiltered() ? `${shown} of ${sum("all")} orders match` : "");
  speak(`${counts.ready.shown} ready${sum("late") ? `, ${sum("late")} late` : ""}`);
}

function drawCounts({ counts, late, empty }, count) {
  const text = count.shown === count.all ? `${count.all}` : `${count.shown} of ${count.all}`;
  for (const node of counts) put(node, text);
  put(late, `${count.late} late`);
  hide(late, !count.late);
  hide(empty, count.shown > 0);
}

let spoken = "";
let spokenAt = 0;

/** Tell screen readers how the board stands, not more often than they can say it. */
function speak(summary) {
  if (summary === spoken || Date.now() - spokenAt < SPEAK_EVERY) return;
  [spoken, spokenAt] = [summary, Date.now()];
  put(by("said"), summary);
}

let endedShown = "";

function drawEnded() {
  const since = Date.now() + clock - ENDED_SECONDS * 1000;
  const recent = [...ended.values()].slice(-ENDED_SHOWN).filter((one) => one.at > since).reverse();
  const ids = recent.map((one) => one.id).join();
  if (ids === endedShown) return;
  endedShown = ids;
  const section = document.querySelector(".board-ended");
  section.hidden = !recent.length;
  const link = ({ id, code, how }) => element("a", { href: `/staff/orders/${id}` },
    element("span", { class: "code" }, code ?? id.slice(-6)), ` ${how}`);
  section.querySelector("ul").replaceChildren(...recent.map((one) => element("li", {}, link(one))));
}

/* ---- Filters: in the address, so that they stay through a reload ---- */

let filter = {};
let shown = 0;

const isFiltered = () => Object.values(filter).some(Boolean);

function matches(order) {
  const { q, store, kiosk, robot } = filter;
  return (!store || order.stores.includes(store)) && (!kiosk || order.kiosk === kiosk)
    && (!robot || order.robot === robot)
    && (!q || [order.pickup_code, order.customer, order.order_id].some((text) => text?.toLowerCase().includes(q)));
}

function readFilters() {
  const values = Object.fromEntries(new FormData(filters));
  const query = new URLSearchParams(Object.entries(values).filter(([, value]) => value.trim()));
  history.replaceState(null, "", query.size ? `?${query}` : location.pathname);
  filter = { ...values, q: values.q.trim().toLowerCase() };
  by("clear").hidden = !isFiltered();
  tally();
}

/** Offer what is on the board in the filters; what was offered once stays. */
function offer() {
  for (const id of changed) {
    const order = orders.get(id);
    if (!order) continue;
    order.stores.forEach((store) => offerOne("store", store));
    offerOne("kiosk", order.kiosk);
    if (order.robot) offerOne("robot", order.robot);
  }
}

const offered = { store: new Set(), kiosk: new Set(), robot: new Set() };

function offerOne(name, value) {
  if (offered[name].has(value)) return;
  offered[name].add(value);
  const select = filters.elements[name];
  const next = [...select.options].slice(1).find((option) => option.value.localeCompare(value) > 0);
  select.insertBefore(element("option", { value }, value), next ?? null);
}

for (const [name, value] of new URLSearchParams(location.search)) {
  if (!(name in { q: 0, ...offered })) continue;
  if (name in offered) offerOne(name, value);
  filters.elements[name].value = value;
}
filters.addEventListener("input", readFilters);
filters.addEventListener("reset", () => setTimeout(() => {
  readFilters();
  filters.elements.q.focus();
}));
filters.addEventListener("submit", (event) => {
  event.preventDefault();
  const hits = [...orders.values()].filter(matches);
  if (filter.q && hits.length === 1) location.assign(`/staff/orders/${hits[0].order_id}`);
});

/* ---- Sound ---- */

let audio = null;
let beeped = 0;

function beep() {
  if (audio?.state !== "running" || Date.now() - beeped < BEEP_EVERY) return;
  beeped = Date.now();
  for (const [note, at] of [[784, 0], [1047, 0.16]]) {
    const from = audio.currentTime + at;
    const oscillator = new OscillatorNode(audio, { frequency: note });
    const gain = new GainNode(audio, { gain: 0 });
    gain.gain.setTargetAtTime(0.25, from, 0.01);
    gain.gain.setTargetAtTime(0, from + 0.12, 0.05);
    oscillator.connect(gain).connect(audio.destination);
    oscillator.start(from);
    oscillator.stop(from + 0.6);
  }
}

async function sound(on, byHand) {
  by("sound").setAttribute("aria-pressed", on);
  localStorage.setItem("board.sound", on ? "on" : "");
  if (!on) {
    audio?.close();
    audio = null;
    return;
  }
  audio ??= new AudioContext();
  if (byHand) {
    await audio.resume();
    beep();
  } else if (audio.state !== "running") {
    // Browsers are silent until a page is touched.
    say("Touch the board or press a key once: then it sounds when an order is ready", "info");
    for (const type of ["pointerdown", "keydown"]) addEventListener(type, () => audio?.resume(), { once: true });
  }
}

by("sound").addEventListener("click", () => sound(by("sound").getAttribute("aria-pressed") !== "true", true));
if (localStorage.getItem("board.sound")) sound(true, false);

/* ---- Live ---- */

let wasLive = false;
let away = 0;

function showState({ live, since, reason }) {
  const badge = by("live");
  put(badge, live ? "Live" : "Not live");
  badge.className = `badge ${live ? "good" : "warn"}`;
  const note = by("break");
  clearTimeout(away);
  if (reason === "forbidden") {
    note.replaceChildren(notice("bad", "Your roles do not allow to follow what happens. The board stands still."));
  } else if (!live) {
    const from = wasLive ? `Not live since ${since.toLocaleTimeString()}` : "The mall does not answer yet";
    note.replaceChildren(notice("warn", `${from}. Reconnecting by itself.`));
  } else if (wasLive) {
    note.replaceChildren(notice("good", "Resumed: nothing was missed."));
    away = setTimeout(() => note.replaceChildren(), 5_000);
  } else {
    note.replaceChildren();
  }
  wasLive ||= live;
}

const notice = (kind, text) => element("p", { class: `notice ${kind}` }, element("span", {}, text));

readFilters();
follow({ topics: ["orders", "depot"], onReady: takeSnapshot, onEvent: apply, onState: showState });
setInterval(() => document.hidden || (tally(), drawEnded()), 1_000);
document.addEventListener("visibilitychange", () => document.hidden || tally());
