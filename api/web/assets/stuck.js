// What needs a person: a card each, which stays in place while it is the same, so that a button keeps its focus.

import { api, ask, attempt, duration, element, field, may, say, time } from "./mall.js";

const EVERY = 5_000;
const KINDS = {
  undo: ["Undo fails", "bad"], step: ["Step fails", "bad"], refund: ["Refund fails", "bad"],
  dead_letter: ["Dead letter", "bad"], list_nobody_takes: ["No robot", "warn"], relay_behind: ["Behind", "warn"],
  consumer_behind: ["Behind", "warn"], domain_down: ["Down", "bad"], no_worker: ["No worker", "bad"],
  notification_failed: ["Not told", "warn"],
};
const ACTIONS = {
  retry: ["Retry now", "primary", "stuck.mend", retry],
  skip_undo: ["Skip this undo", "danger", "stuck.mend", skipUndo],
  retry_dead_letter: ["Send it again", "primary", "stuck.mend", retryLetter],
  resend: ["Send it again", "primary", "orders.notify", resend],
};

const by = (id) => document.getElementById(id);
const put = (at, text) => at.textContent !== text && (at.textContent = text);
const cards = new Map(); // by kind and subject
let looking = false, lookedAt = null;

/* ---- What the API says ---- */

async function look() {
  if (looking) return;
  looking = true;
  try {
    show(await api("GET", "/v1/staff/stuck"));
  } catch (error) {
    const then = lookedAt ? ` What is shown is from ${time(lookedAt)}.` : "";
    put(by("sum"), `It can not be looked at now: ${error.message}.${then}`);
    by("none").hidden = true;
  } finally {
    looking = false;
  }
}

function show({ things, checks, looked_at: at }) {
  lookedAt = at;
  const keys = things.map(({ kind, subject, event_id: event, notification_id: notice }) =>
    [kind, subject, event, notice].join(" "));
  for (const [key, card] of cards) {
    if (keys.includes(key)) continue;
    if (card.item.contains(document.activeElement)) by("look").focus();
    card.item.remove();
    cards.delete(key);
  }
  things.forEach((thing, number) => {
    const card = cards.get(keys[number]) ?? newCard(keys[number], thing);
    draw(card, thing);
    const there = by("content").children[number];
    if (there !== card.item) by("content").insertBefore(card.item, there ?? null);
  });
  by("none").hidden = things.length > 0;
  put(by("sum"), things.length === 0 ? "Nothing needs a person."
    : things.length === 1 ? "One thing needs a person." : `${things.length} things need a person.`);
  showChecks(checks);
}

/* ---- A card ---- */

function newCard(key, thing) {
  const [kind, colour] = KINDS[thing.kind];
  const id = `stuck-${cards.size}-${Date.now()}`;
  const card = {
    thing, why: element("p", { class: "stuck-why" }), since: element("p", { class: "muted small" }),
    advice: element("p", { class: "muted" }),
    buttons: element("div", { class: "buttons" }),
  };
  for (const action of thing.actions) {
    const [label, look, needed, work] = ACTIONS[action];
    if (!may(needed)) continue;
    const button = element("button", { type: "button", class: `small ${look}`, "aria-describedby": id }, label);
    button.addEventListener("click", () => act(work, card, button));
    card.buttons.append(button);
  }
  const subject = thing.link ? element("a", { href: thing.link }, thing.subject) : thing.subject;
  card.item = element("li", { class: "card stuck-thing", dataset: { kind: thing.kind }, "aria-labelledby": id },
    element("div", { class: "stuck-title" }, element("h2", { id }, subject),
      element("span", { class: `badge ${colour}` }, kind)),
    card.why, card.since, card.advice, card.buttons);
  card.buttons.hidden = !card.buttons.children.length;
  cards.set(key, card);
  return card;
}

function draw(card, thing) {
  card.thing = thing;
  put(card.why, thing.why);
  put(card.advice, thing.advice ? `${thing.advice}.` : "");
  card.advice.hidden = !thing.advice;
  tick(card);
}

function tick(card) {
  const { since, attempts, next_attempt_at: next } = card.thing;
  const ago = (iso) => (Date.now() - new Date(iso)) / 1000;
  const told = [];
  if (since) told.push(`Since ${time(since)}, for ${duration(ago(since))}`);
  if (attempts) told.push(attempts === 1 ? "1 attempt" : `${attempts} attempts`);
  if (next && ago(next) < 0) told.push(`tried again in ${duration(-ago(next))}`);
  const text = told.join(" · ");
  put(card.since, text.charAt(0).toUpperCase() + text.slice(1));
  card.since.hidden = !told.length;
}

function showChecks(checks) {
  const rows = checks.map(({ name, ok }) => [name, ...(ok === null ? ["not looked at", "muted"]
    : ok ? ["fine", "good"] : ["needs a person", "bad"])]);
  const shown = JSON.stringify(rows);
  if (by("checks").dataset.shown === shown) return;
  by("checks").dataset.shown = shown;
  by("checks").replaceChildren(...rows.map(([name, word, colour]) =>
    element("li", {}, element("span", { class: `badge ${colour}` }, word), name)));
}

/* ---- What a person does ---- */

async function act(work, card, button) {
  const done = await attempt(() => work(card.thing), button);
  if (done) say(...done);
  if (done !== null) await look();
}

async function retry({ activity, order_id: order, refund_id: refund }) {
  await api("POST", refund ? `/v1/staff/refunds/${refund}/retry` : `/v1/staff/orders/${order}/saga/retry`);
  return [`${activity} is tried now`];
}

async function skipUndo({ activity, order_id: order, why }) {
  const answer = await ask(`Skip ${activity}?`, [
    element("p", {}, "Only if it can never work. The rest is undone, and the order ends; what this would have undone "
      + "stays as it is, until somebody sees to it by hand. This can not be taken back."),
    element("p", { class: "muted" }, `It fails with: ${why}`),
    field("Reason", { name: "reason", required: true, maxlength: 500, rows: 3, pattern: ".*\\S.*" },
      "It is kept with the order and in the log of acts, with your name."),
  ], { confirm: "Skip this undo", danger: true });
  if (!answer) return null;
  const reason = answer.get("reason").replace(/\s+/g, " ").trim();
  const account = await api("POST", `/v1/staff/orders/${order}/saga/skip-undo`, { activity, reason });
  if (account.state === "done") return [`${activity} went through at the last moment`];
  return [account.state === "skipped" ? `${activity} is skipped` : `${activity} is skipped if its last attempt fails`];
}

async function retryLetter({ consumer, event_id: event }) {
  const outcome = await api("POST", "/v1/staff/dead-letters/retry", { consumer, event_id: event });
  if (outcome.failed.length) return [`It failed again: ${outcome.failed[0].error}`, "bad"];
  if (outcome.not_taken) return [`Sent again; no process of ${consumer} has taken it up yet`, "warn"];
  return [`${consumer} has handled it`];
}

async function resend({ order_id: order, notification_id: notice }) {
  await api("POST", `/v1/staff/orders/${order}/notices/${notice}/resend`);
  return ["The notice is on its way again"];
}

/* ---- Begin ---- */

by("look").addEventListener("click", () => attempt(look, by("look")));
setInterval(() => cards.forEach(tick), 1000);
setInterval(() => document.hidden || look(), EVERY);
document.addEventListener("visibilitychange", () => document.hidden || look());
look();
