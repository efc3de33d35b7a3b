// The pickup desk, by keyboard alone: a code is typed or scanned, the order is shown, the payment is taken.
//
// A scanner is a keyboard that may type at any moment: what has the form of a pickup code is one in every field,
// and what is typed while no field has the focus goes to the field that waits.

import { insist } from "./insist.js";
import { follow } from "./live.js";
import { Problem, api, currency, duration, element, may, money, newKey, time } from "./mall.js";
import { PAID_BY, badge, dueAs, listed, namesOf, sentence, when } from "./order-words.js";

const CODE = /^[2-9B-DF-HJ-NP-TV-Z]{6}$/;
const SECOND_ENTER = 400; // scanners may send Enter twice: milliseconds after which it means "take the payment"
const RELOAD = 1_000;
const POLL = 10_000;
const MOST_SHOWN = 60;
const KEPT = "mallbots-desk-attempt";
const OTHERWISE = ["payment_declined", "insufficient_funds", "hold_lapsed"];
const ENDED = {
  completed: "This order was handed over already",
  rejected: "This order was refused: there is nothing to hand over",
  cancelled: "This order was cancelled: there is nothing to hand over",
  expired: "Nobody came for this order in time: there is nothing to hand over",
};

const $ = (id) => document.getElementById(id);
const digits = new Intl.NumberFormat(undefined, { style: "currency", currency }).resolvedOptions()
  .maximumFractionDigits;
let shown = null; // { order, payment, at } once an order is on the desk
let key = null; // of the attempt that has no answer yet
let flight = null; // AbortController of the payment that is being taken
let finding = 0;
let done = false;

// ---- What is said

function alarm(text) {
  $("alert").hidden = !text;
  $("alert").textContent = text ?? "";
}

function status(text) {
  $("said").textContent = text;
}

// ---- The field that waits

function method() {
  return $("payment").elements.method.value;
}

function field() {
  if (!$("payment").hidden && !flight) {
    if (method() === "cash") return $("tendered");
    if (method() === "card") return $("token");
  }
  return $("code");
}

function back() {
  const waits = field();
  waits.focus();
  if (waits.value) waits.select();
}

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") return escape(event);
  if (event.key === "F2") return otherMethod(event);
  const command = event.ctrlKey || event.metaKey || event.altKey;
  const printable = event.key.length === 1 && event.key !== " " && !command;
  const typing = event.target.matches("input:not([type=radio]), textarea, select");
  if (printable && !typing) field().focus();
  if (event.key === "Enter" && event.target === document.body) {
    event.preventDefault();
    enter();
  }
});
addEventListener("focus", () => document.activeElement === document.body && back());

function escape(event) {
  event.preventDefault();
  if (flight) return alarm("The payment is being taken: wait for the answer, or stop waiting for it.");
  next();
}

function otherMethod(event) {
  event.preventDefault();
  if ($("payment").hidden || flight) return;
  const ways = [...$("payment").elements.method].filter((one) => !one.disabled);
  ways[(ways.findIndex((one) => one.checked) + 1) % ways.length].checked = true;
  drawPayment();
  back();
}

/** For the next customer. */
function next() {
  finding += 1;
  shown = key = null;
  done = false;
  forget();
  for (const id of ["payment", "desk-order", "receipt"]) $(id).hidden = true;
  $("code").value = $("tendered").value = "";
  alarm();
  status("Ready for the next code.");
  markChosen();
  back();
}

// ---- Finding

/** The pickup code in what was typed or scanned, also if that is an address with the code at its end. */
function codeIn(text) {
  const typed = text.trim().toUpperCase();
  if (CODE.test(typed)) return typed;
  const last = typed.split(/[^0-9A-Z]+/).filter(Boolean).pop() ?? "";
  const joined = typed.replace(/[\s-]/g, "");
  return CODE.test(joined) ? joined : CODE.test(last) ? last : joined;
}

$("find").addEventListener("submit", (event) => {
  event.preventDefault();
  enter();
});

function enter() {
  const text = $("code").value.trim();
  if (flight) return alarm("The payment is being taken: wait for the answer.");
  if (text) return find(codeIn(text));
  if (done) return next();
  if (!shown || $("payment").hidden) return alarm("Type or scan a pickup code.");
  if (performance.now() - shown.at > SECOND_ENTER) pay();
}

async function find(code) {
  const mine = ++finding;
  key = null;
  forget();
  alarm();
  status("Looking…");
  try {
    const query = new URLSearchParams({ pickup_code: code, limit: 20 });
    const { items } = await api("GET", `/v1/staff/orders?${query}`);
    const one = items.find((order) => order.status === "ready") ?? items[0];
    if (mine !== finding) return;
    if (!one) return unknown(code);
    await open(one.order_id, mine);
    if (mine !== finding) return;
    $("code").value = "";
    back();
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    if (mine !== finding) return;
    status("");
    alarm(`${sentence(error.message)} Press Enter to try again.`);
    $("code").value ||= code;
    $("code").select();
  }
}

function unknown(code) {
  shown = null;
  done = false;
  for (const id of ["payment", "desk-order", "receipt"]) $(id).hidden = true;
  status("");
  alarm(`No order has the code ${code}. Look at it again.`);
  $("code").value ||= code;
  $("code").focus();
  $("code").select();
  markChosen();
}

/** Show an order. */
async function open(id, mine = ++finding) {
  const [order, payment] = await Promise.all([
    api("GET", `/v1/staff/orders/${id}`),
    api("GET", `/v1/staff/orders/${id}/payment`).catch((error) => {
      if (error instanceof Problem) return null;
      throw error;
    }),
  ]);
  if (mine !== finding) return;
  shown = { order, payment, at: performance.now() };
  done = false;
  $("receipt").hidden = true;
  $("tendered").value = "";
  const held = payment ? payment.method === "card" : order.payment_method === "card";
  const free = order.total_cents === 0;
  $("payment").elements.method.value = held || free ? "hold" : "cash";
  $("payment").elements.method[0].disabled = $("method-hold").hidden = !held && !free;
  drawOrder();
  drawPayment();
  markChosen();
}

// ---- The order

function drawOrder() {
  const { order } = shown;
  const names = namesOf(order);
  const missing = order.missing.map((pieces) => element("li", {}, badge("missing", "warn"),
    ` ${listed([pieces], names)}`));
  const substituted = order.substituted.map((sub) => element("li", {}, badge("instead", "info"),
    ` ${listed([sub.line])} instead of ${names[sub.sku] ?? sub.sku}`));
  $("desk-order").replaceChildren(
    element("h2", { id: "order-title" }, order.customer ?? "A customer without a name", " ", badge(order.status)),
    element("ul", { class: "desk-items" }, ...order.items.map((item) => element("li", {},
      element("span", {}, element("strong", {}, `${item.quantity} ×`), ` ${item.name}`),
      element("span", { class: "money" }, money(item.quantity * item.unit_price_cents, order.currency)))),
    element("li", { class: "desk-total" }, element("span", {}, "Total"),
      element("span", { class: "money" }, money(order.total_cents, order.currency)))),
    ...(missing.length ? [element("h3", {}, "Not in the bag as it was asked for"),
      element("ul", { class: "desk-differences" }, ...missing, ...substituted)] : []),
    element("p", { class: "muted" }, `Ordered at ${order.kiosk}, `, when(order.placed_at), ". ",
      element("a", { href: `/staff/orders/${order.order_id}` }, "All about this order")));
  $("desk-order").hidden = false;
}

function drawPayment() {
  const { order, payment } = shown;
  const payable = order.status === "ready" && may("orders.hand_over");
  $("payment").hidden = !payable;
  if (!payable) {
    const by = order.completed_by ? `, by ${order.completed_by}` : "";
    const paid = payment?.settled_by ? `. Paid ${money(payment.captured_cents, order.currency)} ` +
      PAID_BY[payment.settled_by] : "";
    status("");
    alarm(order.status in ENDED ? `${ENDED[order.status]}${by}${paid}.`
      : "This order is not ready: a robot is still to bring it.");
    return;
  }
  const free = order.total_cents === 0;
  const way = method();
  const total = money(order.total_cents, order.currency);
  $("methods").hidden = free;
  $("due").textContent = dueAs(order, payment);
  $("cash").hidden = way !== "cash";
  $("card").hidden = way !== "card";
  $("take").textContent = free ? "Hand over" : way === "hold" ? `Take ${total} from the card on hold`
    : way === "cash" ? `Take ${total} in cash` : `Take ${total} by card`;
  drawChange();
  const pieces = order.items.reduce((sum, item) => sum + item.quantity, 0);
  status(`${order.customer ?? "A customer"}: ${pieces} ${pieces === 1 ? "piece" : "pieces"}. ` +
    `${dueAs(order, payment)} ` + (order.missing.length ? "Something was missing. " : "") +
    (way === "cash" ? "Type the cash that was given." : "Press Enter."));
}

$("methods").addEventListener("change", drawPayment);
for (const id of ["code", "tendered", "token"]) {
  $(id).addEventListener("input", () => {
    if (!flight) alarm();
    if (id === "tendered") drawChange();
  });
}

/** Cents of "20", "20.5" or "20,50"; null for anything else. */
function cents(text) {
  const found = /^\D{0,3}(\d{1,8})(?:[.,](\d+))?$/.exec(text.replace(/\s/g, ""));
  if (!found || (found[2] ?? "").length > digits) return null;
  return Number(found[1]) * 10 ** digits + Number((found[2] ?? "").padEnd(digits, "0") || 0);
}

function drawChange() {
  if (method() !== "cash") return;
  const { order } = shown;
  const given = cents($("tendered").value);
  const change = given === null ? null : given - order.total_cents;
  $("change").classList.toggle("short", change !== null && change < 0);
  $("change").textContent = change === null ? ""
    : change < 0 ? `${money(-change, order.currency)} too little` : `Change ${money(change, order.currency)}`;
}

// ---- The payment

$("payment").addEventListener("submit", (event) => {
  event.preventDefault();
  const input = field();
  const typed = input.value.trim();
  if (!flight && input.id !== "code" && CODE.test(input.id === "tendered" ? typed.toUpperCase() : typed)) {
    // The next code was scanned into this field.
    input.value = input.defaultValue;
    return find(typed.toUpperCase());
  }
  pay();
});
$("stop").addEventListener("click", () => flight?.abort());
$("next").addEventListener("click", next);

/** What is paid, as the API takes it; null without a right one, which is said. */
function offer(order) {
  if (method() === "hold") return {};
  if (method() === "card") {
    const token = $("token").value.trim();
    if (token) return { payment: { method: "card", token } };
    alarm("Which card? The card reader tells its token.");
    return null;
  }
  const given = cents($("tendered").value);
  if (given === null) {
    alarm($("tendered").value.trim() ? "Type the cash that was given as a number, such as 20 or 20.50."
      : "Type the cash that was given.");
    return null;
  }
  if (given < order.total_cents) {
    const more = money(order.total_cents - given, order.currency);
    alarm(`${money(given, order.currency)} is too little: ${more} more.`);
    return null;
  }
  return { payment: { method: "cash", tendered_cents: given } };
}

async function pay() {
  if (flight || !shown) return;
  const { order } = shown;
  const offered = offer(order);
  if (!offered) return back();
  key ??= newKey();
  await take(order, { pickup_code: order.pickup_code, ...offered }, key);
}

async function take(order, body, attemptKey) {
  const since = Date.now();
  finding += 1; // What is still looked for would cover this order.
  keep({ order_id: order.order_id, body, key: attemptKey });
  alarm();
  busy(new AbortController());
  status("Taking the payment…");
  const ticking = setInterval(() => {
    $("take").textContent = `Taking the payment… ${Math.round((Date.now() - since) / 1000)} s`;
    $("stop").hidden = Date.now() - since < 5_000;
  }, 1_000);
  try {
    const { receipt } = await insist(`/v1/staff/orders/${order.order_id}/hand-over`, body, attemptKey, {
      signal: flight.signal,
      onWait: (how) => status(how === "lost" ? "No answer. Asking again; it is taken once…" : "It takes longer…"),
    });
    answered();
    drawReceipt(receipt);
  } catch (error) {
    if (error.name === "AbortError") {
      alarm("It is not known whether the payment was taken. Press Enter to ask again: it is taken once.");
    } else if (error instanceof Problem) {
      answered();
      await failed(error, order);
    } else throw error;
  } finally {
    clearInterval(ticking);
    busy(null);
    if (!done && shown && !$("payment").hidden) label();
    back();
  }
}

function answered() {
  key = null;
  forget();
}

/** The label of the button, without what is said. */
function label() {
  const said = $("said").textContent;
  drawPayment();
  status(said);
}

function busy(controller) {
  flight = controller;
  if (controller) $("take").setAttribute("aria-disabled", "true");
  else $("take").removeAttribute("aria-disabled");
  $("methods").disabled = Boolean(controller);
  $("tendered").readOnly = $("token").readOnly = Boolean(controller);
  if (!controller) $("stop").hidden = true;
  else $("take").textContent = "Taking the payment…";
}

async function failed(problem, order) {
  status("");
  if (problem.code === "order_closed" || problem.code === "not_ready") {
    await open(order.order_id).catch(() => {});
    if (shown?.order.status === "ready") alarm(sentence(problem.message));
    return;
  }
  if (problem.code === "too_many_attempts") {
    const seconds = problem.retryAfter ?? 60;
    const until = time(new Date(Date.now() + seconds * 1000).toISOString());
    return alarm(`Too many wrong codes: this order is shut for ${duration(seconds)}, until ${until}.`);
  }
  if (problem.code === "hand_over_under_way") {
    return alarm(`${sentence(problem.message)} Press Enter to ask again.`);
  }
  if (OTHERWISE.includes(problem.code)) {
    if (method() === "hold") {
      $("payment").elements.method.value = "cash";
      label();
    }
    return alarm(`${sentence(problem.message)} Nothing was taken: let it be paid in another way.`);
  }
  if (problem.status >= 500) {
    return alarm(`${sentence(problem.message)} Press Enter to try again, or F2 for another way of payment.`);
  }
  alarm(sentence(problem.message));
}

function drawReceipt(receipt) {
  const { method: way, amount_cents: taken, currency: of } = receipt;
  const { tendered_cents: tendered, change_cents: change } = receipt;
  done = true;
  $("payment").hidden = $("desk-order").hidden = true;
  const forWhom = shown?.order.customer ? ` to ${shown.order.customer}` : "";
  $("receipt-title").textContent = `Handed over${forWhom}`;
  $("receipt-change").textContent = change ? `Change ${money(change, of)}` : taken ? "Paid" : "Nothing to pay";
  const given = tendered != null ? `, ${money(tendered, of)} given` : "";
  $("receipt-facts").textContent = way !== "cash" && change
    ? `${money(taken, of)} was taken from the card before: give the cash back.`
    : `${money(taken, of)} ${PAID_BY[way]}${given}.`;
  $("receipt").hidden = false;
  $("code").value = "";
  reload();
  status(`Handed over${forWhom}. ${$("receipt-change").textContent}. ${$("receipt-facts").textContent}`);
}

// ---- An attempt without an answer is asked about again, also behind a reload

function keep(attempt) {
  sessionStorage.setItem(KEPT, JSON.stringify(attempt));
}

function forget() {
  sessionStorage.removeItem(KEPT);
}

async function resume({ order_id, body, key: kept }) {
  await open(order_id);
  if (shown?.order.status !== "ready") return forget();
  const payment = body.payment;
  $("payment").elements.method.value = payment ? payment.method : "hold";
  if (payment?.method === "cash") $("tendered").value = (payment.tendered_cents / 10 ** digits).toFixed(digits);
  if (payment?.method === "card") $("token").value = payment.token;
  drawPayment();
  key = kept;
  await take(shown.order, body, kept);
}

// ---- What is ready now

let reloading = null, following = false;

async function loadReady() {
  const ready = [];
  let before = null;
  do {
    const query = new URLSearchParams({ status: "ready", limit: 200, ...(before ? { before } : {}) });
    const page = await api("GET", `/v1/staff/orders?${query}`);
    ready.push(...page.items);
    before = page.next;
  } while (before);
  ready.reverse();
  $("ready-count").textContent = ready.length;
  $("ready").replaceChildren(...ready.slice(0, MOST_SHOWN).map((order) => element("li", {},
    element("button", { type: "button", dataset: { id: order.order_id, code: order.pickup_code },
      onclick: () => !flight && find(order.pickup_code) },
    element("span", {}, element("strong", {}, order.customer ?? "without a name"),
      element("small", { class: "muted" }, `${order.kiosk}, `, when(order.placed_at))),
    element("span", {}, element("span", { class: "code" }, order.pickup_code),
      element("small", { class: "money" }, money(order.total_cents, order.currency)))))),
  ready.length > MOST_SHOWN ? element("li", { class: "muted" }, `and ${ready.length - MOST_SHOWN} more`) : "",
  ready.length ? "" : element("li", { class: "empty" }, "Nothing waits here."));
  markChosen();
}

function markChosen() {
  for (const button of $("ready").querySelectorAll("button")) {
    const chosen = button.dataset.id === shown?.order.order_id;
    if (chosen) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
  }
}

function reload() {
  reloading ??= setTimeout(async () => {
    reloading = null;
    await loadReady().catch((error) => {
      if (!(error instanceof Problem)) throw error;
    });
  }, RELOAD);
}

follow({
  topics: ["orders"],
  onReady: loadReady,
  onEvent: (event) => {
    if (["OrderReadied", "OrderCompleted", "OrderCancelled", "OrderExpired"].includes(event.event)) reload();
    const mine = shown?.order.order_id === event.data.order_id;
    // What another desk, or the saga, did to the order that lies here.
    if (mine && !flight && !done && event.event !== "PickupReminded") look();
  },
  onState: ({ live, reason }) => {
    following = live;
    $("ready-state").textContent = live ? "" : reason === "forbidden" ? "This list is not for your role."
      : "Reconnecting: the list may be old. Codes can be typed all the same.";
  },
});
setInterval(() => !following && !document.hidden && reload(), POLL);
reload();

async function look() {
  const { order_id: id, status: before } = shown.order;
  const order = await api("GET", `/v1/staff/orders/${id}`).catch(() => null);
  if (!order || order.status === before || shown?.order.order_id !== id || flight || done) return;
  await open(id).catch(() => {});
  if (order.status === "ready") alarm();
  back();
}

const begun = JSON.parse(sessionStorage.getItem(KEPT) ?? "null");
const asked = new URLSearchParams(location.search).get("code");
if (asked) history.replaceState(null, "", location.pathname);
if (begun) resume(begun).catch(() => alarm("The last payment has no answer yet: reload the page to ask again."));
else if (asked) find(codeIn(asked));
else back();
