// The robots: a card each, kept up to date in place. The patience of the mall with a robot is how long it may
// still be silent until it loses its list; it ticks between two answers of the API.

import { api, ask, attempt, duration, element, may, say, time } from "./mall.js";
import { follow } from "./live.js";

const EVERY = 10_000;
const AT_MOST_EVERY = 1_000;
const STATUS = {
  busy: ["Busy", "info"], idle: ["Idle", "good"], on_break: ["On break", "warn"], offline: ["Offline", "muted"],
  retired: ["Retired", "muted"],
};

const by = (id) => document.getElementById(id);
const cards = new Map(); // by name: the robot, the elements of its card, and when it was heard of by our clock
let waiting = 0, taken = null, asking = false, again = false, askedAt = 0;

/* ---- What the API says ---- */

async function refresh() {
  if (asking) {
    again = true;
    return;
  }
  asking = true;
  askedAt = performance.now();
  try {
    const { items, lists_waiting: lists } = await api("GET", "/v1/staff/robots");
    waiting = lists;
    taken = performance.now();
    show(items);
  } finally {
    asking = false;
    if (again) soon();
    again = false;
  }
}

let planned = null;

/** Ask soon, once for all that happens meanwhile. */
function soon() {
  planned ??= setTimeout(() => {
    planned = null;
    refresh().catch(() => {});
  }, Math.max(150, AT_MOST_EVERY - (performance.now() - askedAt)));
}

function show(robots) {
  for (const robot of robots) {
    const card = cards.get(robot.name) ?? newCard(robot.name);
    card.robot = robot;
    card.heardAt = robot.quiet_seconds === null ? null : taken - robot.quiet_seconds * 1000;
    draw(card);
  }
  const known = [...cards.values()].sort((one, other) =>
    one.robot.name.localeCompare(other.robot.name, undefined, { numeric: true }));
  // Moving a card that has the focus would take it away.
  known.forEach(({ item }, at) => by("content").children[at] !== item
    && by("content").insertBefore(item, by("content").children[at] ?? null));
  filter();
  tick();
}

/* ---- A card ---- */

function newCard(name) {
  const part = (tag, attributes) => element(tag, attributes);
  const id = `robot-${name}`;
  const card = {
    badge: part("span", { class: "badge" }), held: part("p", { class: "muted" }),
    where: part("p"), order: part("a", { class: "code" }), list: part("p"),
    progress: part("progress", { "aria-labelledby": `${id}-picked`, max: 1 }),
    picked: part("span", { id: `${id}-picked` }),
    carries: part("ul", { class: "small" }), carried: part("summary"),
    meter: part("meter", { min: 0, "aria-labelledby": `${id}-patience` }),
    patience: part("p", { id: `${id}-patience`, class: "small" }), buttons: part("div", { class: "buttons" }),
    item: part("li", { class: "card robot", "aria-labelledby": id }),
  };
  card.list.append("Order ", card.order);
  card.work = element("div", { class: "robot-work" }, card.list, card.where,
    element("div", { class: "robot-bar" }, card.progress, card.picked),
    card.load = element("details", {}, card.carried, card.carries));
  card.silence = element("div", { class: "robot-bar" }, card.meter, card.patience);
  card.acts = {
    recall: act("Recall", "", () => recall(card)),
    hold: act("Break", "", () => hold(card)),
    resume: act("Resume", "primary", () => resume(card)),
    retire: act("Retire", "quiet danger", () => retire(card)),
  };
  function act(label, kind, work) {
    const button = element("button", { type: "button", class: `small ${kind}`, "aria-describedby": id }, label);
    button.addEventListener("click", () => attempt(work, button));
    return button;
  }
  if (may("robots.command")) card.buttons.append(...Object.values(card.acts));
  card.item.append(
    element("div", { class: "robot-head" }, element("h2", { id }, name), card.badge),
    card.held, card.work, card.silence, card.buttons);
  cards.set(name, card);
  return card;
}

const put = (at, text) => at.textContent !== text && (at.textContent = text);

function draw(card) {
  const { robot } = card;
  const [status, kind] = STATUS[robot.status];
  put(card.badge, status);
  card.badge.className = `badge ${kind}`;
  const held = robot.held_since && robot.status !== "retired";
  card.held.hidden = !held;
  if (held) {
    const what = robot.order_id ? "takes a break when it is done" : "rests until it is resumed";
    put(card.held, `It ${what}: ${robot.held_by}, ${time(robot.held_since)}`);
  }
  card.work.hidden = !robot.order_id;
  if (robot.order_id) {
    put(card.order, `…${robot.order_id.slice(-6)}`);
    card.order.href = `/staff/orders/${robot.order_id}`;
    card.order.setAttribute("aria-label", `Order ${robot.order_id}`);
    put(card.where, whereIs(robot));
    card.progress.max = robot.pieces || 1;
    card.progress.value = robot.picked + robot.missing;
    const missing = robot.missing ? `, ${robot.missing} missing` : "";
    put(card.picked, `${robot.picked} of ${robot.pieces} picked${missing}`);
    card.load.hidden = !robot.carries.length;
    put(card.carried, `Carries ${robot.picked} ${robot.picked === 1 ? "piece" : "pieces"}`);
    const carries = robot.carries.map(({ name, quantity }) => `${quantity} × ${name}`);
    if (carries.join() !== card.carries.dataset.shown) {
      card.carries.dataset.shown = carries.join();
      card.carries.replaceChildren(...carries.map((one) => element("li", {}, one)));
    }
  }
  card.acts.recall.hidden = !robot.order_id || robot.doing === "give_back";
  card.acts.hold.hidden = Boolean(robot.held_since) || robot.status === "retired";
  card.acts.resume.hidden = !held;
  card.acts.retire.hidden = robot.status === "retired";
}

function whereIs({ doing, at, heads_for: next }) {
  if (doing === "give_back") return "Takes back what it carries";
  if (doing === "deliver") return `Brings it to the desk${at ? ` from ${at}` : ""}`;
  if (doing === "wait") return `Waits at ${at} for word on what is missing`;
  if (!at) return `On its way to ${next}`;
  return at === next ? `Picks at ${at}` : `From ${at} to ${next}`;
}

/* ---- What ticks ---- */

function tick() {
  const now = performance.now();
  for (const card of cards.values()) {
    const { robot, heardAt, meter } = card;
    const quiet = heardAt === null ? null : (now - heardAt) / 1000;
    const counts = quiet !== null && robot.status !== "offline" && robot.status !== "retired";
    meter.hidden = !counts;
    if (counts) {
      const left = Math.max(0, robot.patience_seconds - quiet);
      meter.max = meter.optimum = robot.patience_seconds;
      meter.high = robot.patience_seconds / 2;
      meter.low = robot.patience_seconds / 4;
      meter.value = left;
      const then = robot.order_id ? "until it loses its list" : "until it counts as offline";
      put(card.patience, left > 0 ? `Heard ${duration(quiet)} ago: patience for ${duration(left)} ${then}`
        : `Heard ${duration(quiet)} ago: no patience left`);
    } else {
      put(card.patience, quiet === null ? "Never heard of" : `Last heard ${time(robot.last_heard_at)}`);
    }
  }
}

function filter() {
  const words = by("filter-name").value.trim().toLowerCase();
  const status = by("filter-status").value;
  let shown = 0;
  for (const { robot, item } of cards.values()) {
    const fits = status ? robot.status === status : robot.status !== "retired";
    item.hidden = !fits || !robot.name.toLowerCase().includes(words);
    if (!item.hidden) shown += 1;
  }
  put(by("none"), cards.size ? "No robot fits." : "No robot has come yet. Make one a token and let it connect.");
  by("none").hidden = shown > 0 || taken === null;
  const count = (kind) => [...cards.values()].filter(({ robot }) => robot.status === kind).length;
  const counts = Object.entries(STATUS).filter(([kind]) => count(kind))
    .map(([kind, [label]]) => `${count(kind)} ${label.toLowerCase()}`);
  const lists = waiting === 0 ? "No list waits for a robot."
    : waiting === 1 ? "1 list waits for a robot." : `${waiting} lists wait for a robot.`;
  put(by("sum"), `${counts.length ? `${counts.join(", ")}. ` : ""}${lists}`);
}

/* ---- What staff do ---- */

const path = ({ name }, act) => `/v1/staff/robots/${encodeURIComponent(name)}/${act}`;
const told = (...lines) => lines.map((line) => element("p", {}, line));

/** Send it to the robot, say so, and put the focus where the work goes on. */
async function command(card, act, body, done) {
  await api("POST", path(card.robot, act), body);
  say(done);
  await refresh();
  if (document.activeElement === document.body) {
    card.buttons.querySelector("button:not([hidden])")?.focus();
  }
}

async function recall(card) {
  const { name, order_id: order } = card.robot; // as it was when it was asked: never another list
  const sure = await ask(`Recall ${name}?`, told(
    `It gives up the list of order …${order.slice(-6)}. Another robot goes on where it stopped; this one only if `
    + "there is no other. To keep it from taking lists at all, let it take a break first."),
  { confirm: "Recall", danger: true });
  if (sure) await command(card, "recall", { order_id: order }, `${name} is recalled`);
}

async function hold(card) {
  const { name, order_id: order } = card.robot;
  const first = order ? "It finishes the list that it has. " : "";
  const sure = await ask(`A break for ${name}?`, told(`${first}It gets no list until somebody resumes it.`),
    { confirm: "Break" });
  if (sure) await command(card, "break", undefined, `${name} gets no list until it is resumed`);
}

async function resume(card) {
  await command(card, "resume", undefined, `${card.robot.name} works again`);
}

async function retire(card) {
  const { name, order_id: order } = card.robot;
  const sure = await ask(`Retire ${name} for good?`, told(
    `Its token stops working and it never gets a list again. This can not be taken back.`,
    ...(order ? ["Its list goes to the next robot; somebody should look after what it carries."] : [])),
    { confirm: "Retire", danger: true });
  if (sure) await command(card, "retire", undefined, `${name} is retired`);
}

/* ---- Begin ---- */

by("filters").addEventListener("submit", (event) => event.preventDefault());
by("filters").addEventListener("input", filter);
setInterval(tick, 1000);
setInterval(() => document.hidden || soon(), EVERY);
document.addEventListener("visibilitychange", () => document.hidden || soon());
soon();
follow({
  topics: ["depot"],
  onReady: refresh,
  onEvent: soon,
  onState({ live }) {
    put(by("live"), live ? "Live" : `Not live: looked at every ${EVERY / 1000} s`);
    by("live").className = `badge ${live ? "good" : "warn"}`;
  },
});
