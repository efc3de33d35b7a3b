// An order: what was asked for and what there is, the money, the saga as a story, the trail, what the customer was
// told, and what can be done about it. Each part is loaded and drawn for itself: one may be away.

import { follow } from "./live.js";
import { Problem, api, ask, attempt, currency, element, field, may, money, say } from "./mall.js";
import {
  IF_MISSING, PAID_BY, STEPS, badge, dueAs, listed, namesOf, sentence, when, words,
} from "./order-words.js";
import { NOT_FOR_CUSTOMERS, refundDialog } from "./refund.js";

const ID = location.pathname.split("/").pop().toLowerCase();
const PATH = `/v1/staff/orders/${ID}`;
const OPEN = ["pending", "approved", "ready"];
const DEBOUNCE = 200, AFTERWARDS = 1_500, POLL = 5_000;

const PARTS = {
  order: { path: "", draw: drawOrder },
  payment: { path: "/payment", draw: drawMoney },
  saga: { path: "/saga", draw: drawSaga },
  trail: { path: "/trail", draw: drawTrail, action: "trail.read" },
  notices: { path: "/notices", draw: drawNotices },
};

const known = {}; // the last answer of each part, or the Problem
const drawn = {}; // what each part was drawn from, as JSON: what has not changed is left alone
const byId = (id) => document.getElementById(id);

// ---- Loading

let loads = 0;
const newest = {}; // by part: the load that it was drawn from

async function load(...names) {
  const mine = ++loads;
  const all = names.length ? names : Object.keys(PARTS);
  const wanted = all.filter((name) => may(PARTS[name].action ?? "orders.read"));
  await Promise.all(wanted.map(async (name) => {
    let answer;
    try {
      answer = await api("GET", PATH + PARTS[name].path);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      answer = error;
    }
    if (mine < (newest[name] ?? 0)) return;
    newest[name] = mine;
    // What is known stays on the page while it can not be looked up anew.
    const stays = known[name] && !(known[name] instanceof Problem);
    if (!(answer instanceof Problem) || !stays || answer.status === 404) known[name] = answer;
    draw();
  }));
}

function draw() {
  const { order } = known;
  if (!order) return;
  if (order instanceof Problem) {
    byId("content").hidden = true;
    byId("acts").replaceChildren();
    return tell([404, 422].includes(order.status) ? "There is no such order." : sentence(order.message), "bad");
  }
  byId("content").hidden = false;
  for (const [name, part] of Object.entries(PARTS)) {
    if (!known[name]) continue;
    const from = JSON.stringify([seen(known[name]), name === "order" ? null : seen(order), extras[name]?.()]);
    if (drawn[name] === from) continue;
    drawn[name] = from;
    const focused = document.activeElement?.id;
    part.draw(known[name]);
    if (focused && document.activeElement === document.body) byId(focused)?.focus();
  }
}

/** What else a part is drawn from. */
const extras = {
  order: () => [seen(known.trail), seen(known.payment), seen(known.saga)],
  payment: () => seen(known.trail),
};

function seen(answer) {
  return answer instanceof Problem ? answer.message : answer;
}

function answered(name) {
  return known[name] instanceof Problem ? null : known[name];
}

function tell(text, kind = "warn") {
  const notice = byId("order-live");
  notice.hidden = !text;
  notice.className = `notice ${kind}`;
  notice.textContent = text ?? "";
}

function fill(id, ...children) {
  byId(id).replaceChildren(...children.flat().filter(Boolean));
}

function facts(...pairs) {
  return element("dl", { class: "facts" }, pairs.filter(Boolean).map(([name, ...value]) =>
    [element("dt", {}, name), element("dd", {}, ...value)]).flat());
}

/** What lets a keyboard scroll a wide table on a narrow screen. */
function scrolls(label) {
  return { tabindex: 0, role: "region", "aria-label": label };
}

function away(problem, forgotten) {
  if (problem.status === 404) return element("p", { class: "muted" }, forgotten);
  const again = (event) => attempt(() => load(), event.currentTarget);
  return element("div", {},
    element("p", { class: "muted" }, `This can not be told at the moment. ${sentence(problem.message)}`),
    element("button", { class: "small", onclick: again }, "Look again"));
}

// ---- The head, the acts and the lines

function drawOrder(order) {
  document.title = `Order ${order.pickup_code ?? ""} · MallBots`;
  byId("title").replaceChildren(order.customer ? `Order of ${order.customer}` : "Order", " ", badge(order.status));
  const dataset = document.body.dataset;
  const workflow = `${dataset.temporalUi}/namespaces/${dataset.temporalNamespace}/workflows/order-${ID}`;
  fill("head", facts(
    ["Kiosk", order.kiosk],
    ["Placed", when(order.placed_at)],
    order.pickup_code && ["Pickup code", element("strong", { class: "code pickup-code" }, order.pickup_code),
      order.pickup_until && order.status === "ready" ? [" until ", when(order.pickup_until)] : null].flat(),
    ["Total", element("strong", { class: "money" }, money(order.total_cents, order.currency))],
    order.completed_by && ["Handed over by", order.completed_by],
    order.refusal && ["Refused because", order.refusal.detail],
    order.cancellation && ["Cancelled", cancelled(order.cancellation)],
    ["Order id", element("span", { class: "code" }, order.order_id)],
    ["Workflow", element("a", { href: workflow }, "in the Temporal Web UI")],
  ));
  drawActs(order);
  drawLines(order);
}

function cancelled({ by, name, reason }) {
  return `by ${name ? `${name} (${by})` : by}${reason ? `: ${reason}` : ""}`;
}

function drawActs(order) {
  const undoing = answered("saga")?.status === "undoing";
  const left = refundable(order);
  fill("acts",
    order.status === "ready" && may("orders.hand_over") && !undoing &&
      element("a", { id: "hand-over", class: "button primary", href: `/staff/desk?code=${order.pickup_code}` },
        "Hand over at the desk"),
    OPEN.includes(order.status) && may("orders.cancel") && !undoing &&
      element("button", { id: "cancel", class: "danger", onclick: cancel }, "Cancel the order"),
    order.status === "completed" && may("orders.refund") && left.length > 0 &&
      element("button", { id: "refund", onclick: () => refundDialog(order, left, () => load()) }, "Refund"));
}

async function cancel(event) {
  const button = event.currentTarget;
  const answer = await ask("Cancel this order?", [
    element("p", {}, "Everything that was done for it is undone, and the money on hold is let go."),
    field("Reason", { name: "reason", maxlength: 500, autocomplete: "off" }, NOT_FOR_CUSTOMERS),
  ], { confirm: "Cancel the order", danger: true });
  if (!answer) return;
  await attempt(async () => {
    const told = await api("POST", `${PATH}/cancel`, { reason: answer.get("reason").trim() });
    say(told.status === "cancelled" ? "The order is cancelled." : "It is being undone, which takes a while.");
  }, button);
  await load();
}

/** What can be given back of each product. */
function refundable(order) {
  const back = {};
  for (const refund of refunds()) {
    if (refund.withdrawn) continue;
    for (const line of refund.lines) back[line.sku] = (back[line.sku] ?? 0) + line.quantity;
  }
  const lines = [];
  for (const item of order.items) {
    const same = lines.find((line) => line.sku === item.sku);
    if (same) same.quantity += item.quantity;
    else lines.push({ ...item });
  }
  return lines.map((line) => ({ ...line, quantity: line.quantity - (back[line.sku] ?? 0) }))
    .filter((line) => line.quantity > 0);
}

function drawLines(order) {
  const names = namesOf(order);
  const rows = new Map(); // by sku
  const row = (sku) => {
    if (!rows.has(sku)) rows.set(sku, { asked: 0, missing: 0, sum: 0, prices: new Set(), wishes: new Set() });
    return rows.get(sku);
  };
  for (const line of order.lines) {
    const one = row(line.sku);
    one.asked += line.quantity;
    one.wishes.add(IF_MISSING[line.if_missing] +
      (line.if_missing === "substitute" && line.dearer_substitute ? ", also if it costs more" : ""));
  }
  for (const item of order.items) {
    const one = row(item.sku);
    one.sum += item.quantity * item.unit_price_cents;
    one.prices.add(item.unit_price_cents);
    one.store = item.store;
  }
  for (const pieces of order.missing) row(pieces.sku).missing += pieces.quantity;
  const events = answered("trail")?.entries ?? [];
  const shopped = events.some(({ event }) => event === "ItemPicked" || event === "ItemMissing");
  const picked = {};
  for (const { event, data } of events) {
    if (event === "ItemPicked") picked[data.sku] = (picked[data.sku] ?? 0) + data.quantity;
  }
  const titles = ["Asked", "Picked", "Missing"];
  fill("order-lines", element("div", { class: "table-wrap", ...scrolls("Lines") }, element("table", {},
    element("caption", { class: "visually-hidden" }, "The lines of the order"),
    element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "Product"),
      ...titles.map((title) => element("th", { scope: "col", class: "number" }, title)),
      element("th", { scope: "col" }, "If missing"),
      ...["Price", "Sum"].map((title) => element("th", { scope: "col", class: "money" }, title)))),
    element("tbody", {}, ...[...rows].map(([sku, one]) => {
      const instead = order.substituted.filter((sub) => sub.sku === sku).map((sub) => sub.line);
      const insteadOf = order.substituted.filter((sub) => sub.line.sku === sku)
        .map((sub) => names[sub.sku] ?? sub.sku);
      const price = one.prices.size === 1 ? [...one.prices][0] : null;
      return element("tr", {},
        element("th", { scope: "row" }, names[sku] ?? sku, " ",
          element("small", { class: "muted" }, one.store ? `${one.store}, ${sku}` : sku),
          insteadOf.length
            ? element("p", {}, badge("substitute", "info"), ` instead of ${insteadOf.join(", ")}`) : null,
          instead.length
            ? element("p", {}, badge("substituted", "warn"), ` ${listed(instead, names)} instead`) : null),
        element("td", { class: "number" }, one.asked || "–"),
        element("td", { class: "number" }, shopped ? picked[sku] ?? 0 : "–"),
        element("td", { class: "number" }, one.missing ? badge(`${one.missing}`, "warn") : "–"),
        element("td", {}, [...one.wishes].join("; ") || "–"),
        element("td", { class: "money" }, money(price, order.currency)),
        element("td", { class: "money" }, one.prices.size ? money(one.sum, order.currency) : "–"));
    })),
    element("tfoot", {}, element("tr", {}, element("th", { scope: "row", colspan: 6 }, "Total"),
      element("td", { class: "money" }, money(order.total_cents, order.currency)))))));
}

// ---- The money

/** Every refund of the trail: what was given back for what, and how that went. */
function refunds() {
  const found = new Map();
  for (const { event, data, recorded_at } of answered("trail")?.entries ?? []) {
    if (event === "OrderRefunded") found.set(data.refund_id, { ...data, at: recorded_at, state: "under way" });
    const refund = found.get(data.refund_id);
    if (!refund) continue;
    if (event === "PaymentRefunded") refund.state = "given back";
    if (event === "PaymentRefundFailed") refund.state = `failed: ${data.reason}`;
    if (event === "OrderRefundWithdrawn") Object.assign(refund, { state: "withdrawn", withdrawn: true });
  }
  return [...found.values()];
}

function drawMoney(payment) {
  const { order } = known;
  if (payment instanceof Problem) {
    return fill("money", away(payment, "No payment of this order is known (yet)."));
  }
  const of = payment.currency ?? order.currency ?? currency;
  const events = answered("trail")?.entries ?? [];
  const captured = events.find(({ event }) => event === "PaymentCaptured")?.data;
  const given = refunds();
  const [kind, how] = {
    authorized: ["info", dueAs(order, payment)],
    declined: ["bad", sentence(payment.refusal?.detail ?? "")],
    voided: ["muted", "Nothing is held or due any more."],
    captured: ["good", `Paid ${PAID_BY[payment.settled_by]}.`],
  }[payment.status];
  const held = payment.method === "card" ? "Held" : "Due";
  fill("money", facts(
    ["Payment", badge(payment.status, kind), " ", how],
    payment.status === "authorized" && [held, amount(payment.amount_cents, of)],
    ["Captured", amount(payment.captured_cents, of)],
    captured?.tendered_cents != null && ["Cash given", amount(captured.tendered_cents, of)],
    captured?.change_cents != null && ["Change", amount(captured.change_cents, of)],
    ["Refunded", amount(payment.refunded_cents, of)],
    payment.reference && ["Reference", element("span", { class: "code" }, payment.reference)]),
  given.length ? element("div", { class: "table-wrap", ...scrolls("Refunds") }, element("table", { id: "refunds" },
    element("caption", {}, "Refunds"),
    element("thead", {}, element("tr", {}, ...["When", "For", "By", "How it went"].map((title) =>
      element("th", { scope: "col" }, title)), element("th", { scope: "col", class: "money" }, "Amount"))),
    element("tbody", {}, ...given.map((refund) => element("tr", {},
      element("th", { scope: "row" }, when(refund.at)),
      element("td", {}, listed(refund.lines),
        refund.reason ? element("p", { class: "muted" }, refund.reason) : null),
      element("td", {}, refund.by),
      element("td", {}, badge(refund.state, { "given back": "good", "under way": "info" }[refund.state] ?? "bad")),
      element("td", { class: "money" }, money(refund.amount_cents, refund.currency))))))) : null);
}

function amount(cents, of) {
  return element("span", { class: "money" }, money(cents, of));
}

// ---- The saga

const STATE = {
  planned: "muted", running: "info", done: "good", refused: "bad", failed: "bad", cancelled: "warn",
  skipped: "warn",
};
// Without the undo that ends the order it would be live for ever, and robots would go on with its shopping.
const NEEDED = ["orders.reject", "orders.cancel", "orders.expire", "depot.cancel"];

function drawSaga(saga) {
  if (saga instanceof Problem) {
    return fill("saga", away(saga, "Temporal has forgotten this saga. The trail tells what happened."));
  }
  const where = [{ undoing: "being undone", handing_over: "being handed over" }[saga.status] ?? saga.status];
  if (saga.robot) where.push(`robot ${saga.robot}`, `${saga.picked} of ${saga.pieces} pieces picked`);
  const over = ["completed", "rejected", "cancelled", "expired"].includes(saga.status);
  const happened = (one) => !over || one.state !== "planned";
  fill("saga",
    element("p", {}, `It is ${where.join(", ")}.`),
    saga.cause
      ? element("p", { class: "notice warn" }, element("span", {}, `It is undone: ${why(saga.cause)}`)) : null,
    saga.stuck ? element("p", { id: "stuck", class: "notice bad" }, element("span", {},
      `Stuck at ${saga.stuck}: it is tried on without end, but a person should look.`)) : null,
    element("ol", { class: "saga-story" }, ...saga.steps.filter(happened).map((step) => element("li", { class: step.state },
      action(step, saga, (STEPS[step.activity] ?? step.activity)),
      step.undo && happened(step.undo) ? undo(step.undo, saga) : null))));
}

function undo(account, saga) {
  const does = STEPS[account.activity] ?? account.activity;
  if (account.state === "planned") {
    return element("p", { class: "muted small" }, `If it must be undone: ${does}.`);
  }
  return element("div", { class: "undo" }, action(account, saga, `Undo: ${does}`, true));
}

function action(account, saga, does, undoing = false) {
  const stuck = saga.stuck === account.activity && account.state === "running";
  const failing = account.state === "running" && account.error;
  const took = account.started_at && account.finished_at
    ? (new Date(account.finished_at) - new Date(account.started_at)) / 1000 : null;
  const told = [
    account.started_at && account.state === "running" ? ["since ", when(account.started_at)] : null,
    account.finished_at ? [when(account.finished_at)] : null,
    took === null ? null : [`took ${took < 10 ? took.toFixed(2) : Math.round(took)} s`],
    account.attempts > 1 ? [`${account.attempts} attempts`] : null,
    account.next_attempt_at ? ["the next at ", when(account.next_attempt_at)] : null,
  ].filter(Boolean);
  return element("div", { class: stuck ? "action stuck" : "action" },
    element("div", { class: "what" }, element("span", {}, does, " "),
      stuck ? badge("stuck", "bad") : badge(account.state, STATE[account.state])),
    element("p", { class: "muted small" }, element("span", { class: "code" }, account.activity),
      ...told.flatMap((part) => [" · ", ...part])),
    account.error ? element("p", { class: "error" }, sentence(account.error.replace(/^[a-z_]+: /, ""))) : null,
    account.skipped_by
      ? element("p", {}, `Skipped by ${account.skipped_by}: ${sentence(account.skipped_because ?? "")}`) : null,
    (stuck || failing) && may("stuck.mend") ? element("div", { class: "buttons" },
      element("button", { id: `retry-${account.activity}`, class: "small", onclick: retry }, "Retry now"),
      undoing && stuck && !NEEDED.includes(account.activity) ? element("button", {
        id: `skip-${account.activity}`, class: "small danger",
        onclick: (event) => skip(account.activity, event.currentTarget),
      }, "Skip this undo") : null) : null);
}

function why(cause) {
  if (cause.pickup_until) return "nobody came for it.";
  if (cause.detail) return cause.detail;
  return `cancelled ${cancelled(cause)}.`;
}

async function retry(event) {
  await attempt(async () => {
    await api("POST", `${PATH}/saga/retry`);
    say("It is tried again now.");
  }, event.currentTarget);
  await load("saga", "trail");
}

async function skip(activity, button) {
  const answer = await ask("Skip this undo?", [
    element("p", {}, `To ${STEPS[activity] ?? activity}: this will not be done. `,
      "What it would have undone stays as it is. See to it by hand."),
    field("Reason", { name: "reason", required: true, maxlength: 500, autocomplete: "off" },
      "It is kept in the log of acts, with your name."),
  ], { confirm: "Skip this undo", danger: true });
  if (!answer) return;
  await attempt(async () => {
    const told = await api("POST", `${PATH}/saga/skip-undo`, { activity, reason: answer.get("reason").trim() });
    say({
      skipped: "The undo is skipped.",
      done: "The undo went through after all: nothing is skipped.",
    }[told.state] ?? "One attempt still runs. The undo is skipped if that fails, too.");
  }, button);
  await load();
}

// ---- The trail

const told = new Map(); // by id: an entry that is open stays open

function drawTrail(trail) {
  if (trail instanceof Problem) return fill("trail", away(trail, "Nothing is known of this order yet."));
  const acts = (trail.acts ?? []).map((act) => ({ id: act.id, at: act.at, who: act.by,
    what: [`${act.act} `, act.outcome === "refused" ? badge("refused", "bad") : null, ` ${act.detail}`] }));
  const entries = trail.entries.map((entry) => ({ id: entry.event_id, at: entry.recorded_at, who: entry.who,
    what: [entry.what], entry }));
  const all = [...entries, ...acts].sort((one, other) => new Date(one.at) - new Date(other.at));
  fill("trail", element("ol", { class: "happened" }, ...all.map((one) => {
    if (!told.has(one.id)) told.set(one.id, trailItem(one));
    return told.get(one.id);
  })));
}

function trailItem({ at, who, what, entry }) {
  return element("li", {},
    element("div", { class: "what" }, element("span", {}, element("strong", {}, who), " ", ...what),
      element("small", { class: "muted" }, when(at))),
    entry ? element("details", {}, element("summary", {}, entry.event),
      element("p", { class: "small muted" }, `${entry.stream}, version ${entry.version}`,
        entry.causation_id ? `, caused by ${entry.causation_id}` : ""),
      element("pre", { tabindex: 0, role: "region", "aria-label": `${entry.event} as JSON` },
        JSON.stringify(entry.data, null, 2))) : null);
}

// ---- What the customer was told

const NOTICE = { pending: ["on its way", "info"], sent: ["sent", "good"], failed: ["failed", "bad"] };

function drawNotices(notices) {
  if (notices instanceof Problem) return fill("told", away(notices, "Nothing is known of this order yet."));
  if (!notices.items.length) {
    const nobody = known.order.customer ? "Nothing yet." : "Nothing: the order names no customer.";
    return fill("told", element("p", { class: "muted" }, nobody));
  }
  fill("told", element("ul", { class: "happened" }, ...notices.items.map((notice) => element("li", {},
    element("div", { class: "what" }, element("span", {}, notice.text), badge(...NOTICE[notice.status])),
    element("p", { class: "muted small" }, `${words(notice.kind)} · `, ...progress(notice)),
    notice.error ? element("p", { class: "error" }, sentence(notice.error)) : null,
    may("orders.notify") && notice.status !== "pending" ? element("div", {}, element("button", {
      id: `resend-${notice.id}`, class: "small", "aria-label": `Send again: ${notice.text}`,
      onclick: (event) => resend(notice, event.currentTarget),
    }, "Send again")) : null))));
}

function progress(notice) {
  const attempts = notice.attempts > 1 ? ` after ${notice.attempts} attempts` : "";
  if (notice.status === "sent") return ["sent ", when(notice.sent_at), attempts];
  if (notice.status === "failed") return ["given up", attempts];
  return notice.attempts ? [`attempt ${notice.attempts + 1} at `, when(notice.due_at)] : ["waits to be sent"];
}

async function resend(notice, button) {
  await attempt(async () => {
    await api("POST", `${PATH}/notices/${notice.id}/resend`);
    say("It is sent again.");
  }, button);
  await load("notices", "trail");
}

// ---- Live

let soon = null, later = null, live = false;

function happened() {
  clearTimeout(soon);
  clearTimeout(later);
  soon = setTimeout(() => load(), DEBOUNCE);
  // The trail and the notices follow the events within moments.
  later = setTimeout(() => load("trail", "notices", "saga"), AFTERWARDS);
}

follow({
  onReady: () => load(),
  onEvent: (event) => {
    if (event.correlation_id === ID || event.data.order_id === ID) happened();
  },
  onState: (state) => {
    live = state.live;
    if (known.order instanceof Problem) return;
    tell(live || state.reason === "forbidden" ? null : "Reconnecting: what you see may be some seconds old.");
  },
});
// Attempts that fail are no events: only the saga tells of them.
setInterval(() => {
  if (document.hidden || known.order instanceof Problem) return;
  if (!live) load();
  else if (OPEN.includes(known.order?.status) || answered("saga")?.status === "undoing") load("saga");
}, POLL);
load();
