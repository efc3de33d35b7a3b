// The screen of an order that was sent: what happens to it, its pickup code, what it comes to.

import { state } from "./kiosk-basket.js";
import { element, money } from "./mall.js";

const by = (id) => document.getElementById(id);
const pieces = (number) => (number === 1 ? "1 piece" : `${number} pieces`);

/** The screen before anything is known of the order. */
export function clearStatus() {
  by("order-title").textContent = "Your order is on its way";
  by("order-news").textContent = "";
  for (const id of ["code", "cancel", "done"]) by(id).hidden = true;
  for (const id of ["steps", "changes", "items", "order-total"]) by(id).replaceChildren();
  by("items-title").hidden = true;
}

/** The order as it is now, with its saga's account if that is known. `reached`: what is said of it is news. */
export function drawStatus(now, saga, reached) {
  const atWork = now.status === "approved" && Boolean(saga?.robot);
  by("order-title").textContent = orderTitle(now, atWork);
  if (reached) by("order-news").textContent = orderNews(now, saga, atWork);
  drawCode(now);
  drawSteps(now, atWork);
  drawChanges(now);
  drawItems(now);
  by("cancel").hidden = !["pending", "approved"].includes(now.status) || Boolean(state.order.tooLate);
  by("done").hidden = now.status === "pending";
}

function orderTitle(now, atWork) {
  return {
    pending: "Your order is being checked",
    approved: atWork ? "A robot collects your order" : "Your order is accepted",
    ready: "Your order is ready",
    completed: "Thank you, and come again",
    cancelled: "Your order is cancelled",
    expired: "Your order was not picked up",
  }[now.status];
}

function orderNews(now, saga, atWork) {
  const byCard = now.payment_method === "card";
  const paid = byCard ? "Your card is charged when it is handed to you." : "You pay at the desk.";
  return {
    pending: state.order.cancelling ? "It is being cancelled."
      : "That takes a little longer than usual. Please stay here.",
    approved: state.order.tooLate
      ? "A robot is collecting it already, so it can not be cancelled here any more. Please ask at the desk."
      : atWork && saga.pieces ? `${saga.picked ?? 0} of ${pieces(saga.pieces)} collected. ${paid}`
        : `Keep your pickup code: you need it at the desk. ${paid}`,
    ready: "Please come to the desk, and say or show your pickup code.",
    completed: "It was handed over.",
    cancelled: "Everything is undone, and nothing is charged.",
    expired: "Nobody came for it in time. Everything is undone, and nothing is charged.",
  }[now.status];
}

function drawCode(now) {
  const code = ["approved", "ready"].includes(now.status) ? now.pickup_code : null;
  by("code").hidden = !code;
  if (!code || by("code-text").textContent === code) return;
  by("code-text").textContent = code;
  by("qr").src = now.links.pickup_code;
}

function drawSteps(now, atWork) {
  const reached = { pending: 0, approved: atWork ? 2 : 1, ready: 3, completed: 4 }[now.status];
  const steps = reached === undefined ? [] : ["Placed", "Accepted", "A robot shops", "Ready"];
  by("steps").replaceChildren(...steps.map((text, number) => element("li", {
    class: number < reached ? "past" : null, "aria-current": number === reached ? "step" : null,
  }, text)));
}

function drawChanges(now) {
  const name = (sku) => now.lines?.find((one) => one.sku === sku)?.name ?? sku;
  const instead = (now.substituted ?? []).map(({ sku, line: other }) =>
    `${name(sku)}: you get ${other.quantity} × ${other.name} instead, ${money(other.unit_price_cents)} each.`);
  const gone = (now.missing ?? []).map(({ sku, quantity }) => `${quantity} × ${name(sku)} was not on the shelf.`);
  const all = [...gone, ...instead, ...dearer(now)];
  by("changes").replaceChildren(...all.map((text) => element("p", { class: "notice warn" }, text)));
}

/** What is sold at another price than the one it was chosen at. */
function dearer(now) {
  return (state.ordered ?? []).flatMap((chosen) => {
    const sold = now.items?.find((one) => one.sku === chosen.sku && one.unit_price_cents !== chosen.price_cents);
    const substitute = now.substituted?.some((one) => one.line.sku === chosen.sku);
    if (!sold || substitute) return [];
    const [is, was] = [money(sold.unit_price_cents), money(chosen.price_cents)];
    return [`The price of ${chosen.name} has changed: it is ${is}, not ${was}.`];
  });
}

function drawItems(now) {
  const items = now.items ?? now.lines ?? [];
  by("items-title").hidden = !items.length;
  by("items").replaceChildren(...items.map((one) => element("li", {},
    element("span", { class: "kiosk-name" }, `${one.quantity} × ${one.name ?? one.sku}`),
    one.unit_price_cents === undefined ? null
      : element("span", { class: "money" }, money(one.quantity * one.unit_price_cents, now.currency)))));
  const total = now.total_cents === undefined ? [] : [now.missing ? "Now together " : "Together ",
    element("strong", { class: "money" }, money(now.total_cents, now.currency))];
  by("order-total").replaceChildren(...total);
}
