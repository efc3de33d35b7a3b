// What Analytics knows of a window of time, in a few large numbers and in charts; asked for every 15 seconds.

import { Chart, secondTicks, ticks } from "./chart.js";
import { api, currency, duration, element, money } from "./mall.js";

const EVERY = 15_000;
const MINUTE = 60_000;
const MOST_ROWS = 12;

const by = (id) => document.getElementById(id);
const put = (at, text) => at.textContent !== text && (at.textContent = text);
const plural = (count, one, several = `${one}s`) => `${count.toLocaleString()} ${count === 1 ? one : several}`;
const percent = (share) => (share === null ? "–" : share.toLocaleString(undefined, { style: "percent" }));
const words = (code) => code.replaceAll("_", " ");

/** "3 min 20 s": medians are told to the second, short ones to a tenth of it. */
function took(seconds) {
  if (seconds === null) return "–";
  if (seconds < 10 && seconds % 1) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  return whole < 3600 && whole >= 60 && whole % 60 ? `${duration(whole)} ${whole % 60} s` : duration(whole);
}

const tiles = Object.fromEntries(["Orders", "Approved", "Sales", "Median time to ready"].map((title) => {
  const value = element("dd", { class: "tile-value" }, "–"), more = element("dd", { class: "muted" }, " ");
  by("tiles").append(element("div", { class: "card tile" }, element("dt", {}, title), value, more));
  return [title, (text, rest) => {
    put(value, text);
    put(more, rest);
  }];
}));
const stack = element("div", { class: "chart-stack" });
const charts = {
  orders: new Chart(by("content"), "Orders", { empty: "No orders in this window yet" }),
  ready: new Chart(by("content"), "Time to ready", { empty: "No order became ready in this window yet" }),
  sales: new Chart(by("content"), "Sales by store", { empty: "Nothing was sold in this window yet" }),
  refusals: new Chart(stack, "Refusals by reason", { empty: "No order was refused in this window" }),
  robots: new Chart(stack, "Robots' use", { empty: "No robot was at work in this window" }),
};
by("content").append(stack);

/** The window that is chosen: `begin` and `end` in milliseconds, and how many minutes go together. */
function chosen() {
  const end = Date.now(), choice = by("window").value;
  const since = choice === "today" ? new Date(end).setHours(0, 0, 0, 0) : end - Number(choice) * 60 * MINUTE;
  const minutes = (end - since) / MINUTE;
  const step = minutes <= 90 ? 1 : minutes <= 390 ? 5 : 15;
  // Whole steps, so that what is past looks the same the next time.
  return { begin: choice === "today" ? since : Math.floor(since / (step * MINUTE)) * step * MINUTE, end, step };
}

let asked = 0;

async function refresh() {
  const mine = asked += 1;
  const { begin, end, step } = chosen();
  const window = `from=${new Date(begin).toISOString()}&to=${new Date(end).toISOString()}`;
  const get = (path) => api("GET", `/v1/staff/analytics/${path}`);
  try {
    const [summary, orders, ready, robots] = await Promise.all([
      get(`summary?${window}&limit=1000`), get(`orders?${window}&step=${step}`),
      get(`times-to-ready?${window}&step=${step}`), get(`robots?${window}`),
    ]);
    if (mine !== asked) return; // another window was chosen meanwhile
    showTiles(summary, (end - begin) / MINUTE);
    showOrders(orders.items, begin, end, step);
    showReady(ready.items, begin, end, step);
    showSales(summary.sales);
    showRefusals(summary.refusals);
    showRobots(robots.items);
    put(by("said"), `As of ${new Date(end).toLocaleTimeString()}`);
    by("said").classList.remove("bad");
  } catch (error) {
    if (mine !== asked) return;
    put(by("said"), `${error.message}. It is tried again; these numbers are older.`);
    by("said").classList.add("bad");
  }
}

/* ---- What is shown ---- */

function showTiles({ orders, approved_share: share, times, sales }, minutes) {
  const rate = (orders.placed / Math.max(1, minutes)).toLocaleString(undefined, { maximumFractionDigits: 1 });
  tiles.Orders(orders.placed.toLocaleString(),
    `${rate} a minute, ${plural(orders.completed, "order")} handed over`);
  tiles.Approved(percent(share), `${plural(orders.rejected, "order")} refused, ${orders.cancelled} cancelled`);
  const totals = new Map([[currency, 0]]);
  for (const one of sales) totals.set(one.currency, (totals.get(one.currency) ?? 0) + one.cents);
  const refunded = sales.reduce((sum, one) => sum + (one.currency === currency ? one.refunded_cents : 0), 0);
  const others = [...totals].slice(1).map(([of, cents]) => ` and ${money(cents, of)}`).join("");
  tiles.Sales(`${money(totals.get(currency))}${others}`, `after refunds of ${money(refunded)}`);
  const { orders: ready, p50_seconds: median, p95_seconds: slowest } = times.to_ready;
  tiles["Median time to ready"](took(median),
    ready ? `95 % within ${took(slowest)}, ${plural(ready, "order")}` : "No order became ready yet");
}

/** A point for each step of the window; `values(found)` are those of a step of which the API told, or not. */
function steps(items, begin, end, step, values) {
  const found = new Map(items.map((item) => [Date.parse(item.minute), item]));
  const points = [];
  for (let at = begin; at < end; at += step * MINUTE) points.push({ at, values: values(found.get(at)) });
  return points;
}

const each = (step) => (step === 1 ? "a minute" : `in each ${step} minutes`);

function showOrders(items, begin, end, step) {
  const chart = charts.orders;
  chart.name(`Orders ${each(step)}`);
  const points = steps(items, begin, end, step, (found) => [found?.placed ?? 0, found?.rejected ?? 0]);
  const most = points.reduce((best, point) => (point.values[0] > best.values[0] ? point : best), points[0]);
  chart.line({
    series: ["Placed", "Refused"], points, begin, end,
    tell: (value) => value.toLocaleString(),
    scale: (largest) => ticks(largest, 4, true),
    description: `Orders placed and refused ${each(step)}. Most were placed at ${
      new Date(most.at).toLocaleTimeString(undefined, { timeStyle: "short" })}: ${most.values[0]}.`,
  });
}

function showReady(items, begin, end, step) {
  charts.ready.line({
    series: ["Median", "95 % within"],
    points: steps(items, begin, end, step, (found) => [found?.p50_seconds ?? null, found?.p95_seconds ?? null]),
    begin, end, tell: took, scale: secondTicks,
    description: `From placed to ready, of the orders that became ready ${each(step)}: the median, and within `
      + "what time 95 % were.",
  });
}

function showSales(items) {
  const ours = items.filter((one) => one.currency === currency);
  charts.sales.bars({
    rows: ours.slice(0, MOST_ROWS).map(({ store, cents }) => ({ name: store, value: cents, says: money(cents) })),
    heads: ["Store", "Pieces", "Sales", "Refunded"],
    cells: items.map((one) => [one.store, one.pieces.toLocaleString(), money(one.cents, one.currency),
      money(one.refunded_cents, one.currency)]),
    description: ours.length ? `${ours[0].store} sold most: ${money(ours[0].cents)}.${left(ours)}` : "",
  });
}

function showRefusals(items) {
  charts.refusals.bars({
    rows: items.slice(0, MOST_ROWS).map(({ code, orders }) => ({
      name: words(code), value: orders, says: orders.toLocaleString(),
    })),
    heads: ["Reason", "Orders"],
    cells: items.map(({ code, orders }) => [words(code), orders.toLocaleString()]),
    description: items.length ? `The most frequent reason is ${words(items[0].code)}: ${items[0].orders}.` : "",
  });
}

function showRobots(items) {
  const known = items.toSorted((one, other) => one.robot.localeCompare(other.robot, undefined, { numeric: true }));
  charts.robots.bars({
    rows: known.slice(0, MOST_ROWS).map(({ robot, use }) => ({
      name: robot, value: use ?? 0, says: percent(use),
    })),
    heads: ["Robot", "Use", "Busy", "Online", "Lists", "Pieces"],
    cells: known.map((one) => [one.robot, percent(one.use), duration(one.busy_seconds),
      duration(one.online_seconds), one.lists_completed.toLocaleString(), one.pieces_picked.toLocaleString()]),
    most: Math.max(1, ...known.map(({ use }) => use ?? 0)),
    description: `Which part of its time online each robot had a list.${left(known)}`,
  });
}

function left({ length }) {
  return length > MOST_ROWS ? ` ${MOST_ROWS} of ${length} are drawn; all are in the table.` : "";
}

/* ---- Begin ---- */

const choice = new URLSearchParams(location.search).get("window");
if ([...by("window").options].some(({ value }) => value === choice)) by("window").value = choice;
by("choose").addEventListener("submit", (event) => event.preventDefault());
by("window").addEventListener("change", () => {
  history.replaceState(null, "", `?window=${by("window").value}`);
  refresh();
});
setInterval(() => document.hidden || refresh(), EVERY);
document.addEventListener("visibilitychange", () => document.hidden || refresh());
refresh();
