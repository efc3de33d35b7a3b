// Words that the pages of orders share: how an order is, how it is paid, what each step of its saga does.

import { element, money, time } from "./mall.js";

const STATUS = {
  pending: "info", approved: "info", ready: "good", completed: "muted", rejected: "bad", cancelled: "warn",
  expired: "warn",
};

export const STATUSES = Object.keys(STATUS);

/** How an order is, as a badge. */
export function badge(status, kind = STATUS[status]) {
  return element("span", { class: `badge ${kind ?? ""}` }, words(status));
}

/** "at_pickup" as people read it. */
export function words(code) {
  return code.replaceAll("_", " ");
}

/** What the API said, as a sentence. */
export function sentence(text) {
  const begun = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(begun) ? begun : `${begun}.`;
}

/** A time that programs can read, too. */
export function when(iso) {
  return iso ? element("time", { datetime: iso }, time(iso)) : "–";
}

/** "2 × Black Tea, 1 × Mug" */
export function listed(lines, names = {}) {
  return lines.map((line) => `${line.quantity} × ${line.name ?? names[line.sku] ?? line.sku}`).join(", ");
}

/** What each product of an order is called. */
export function namesOf(order) {
  const lines = [...order.lines, ...order.items, ...order.substituted.map((one) => one.line)];
  return Object.fromEntries(lines.filter((line) => line.name).map((line) => [line.sku, line.name]));
}

export const PAID_BY = { card: "by the card on hold", cash: "in cash", desk_card: "by card at the desk" };

/** How an order that is not paid yet will be, in a sentence. */
export function dueAs(order, payment) {
  const total = money(order.total_cents, order.currency);
  if (order.total_cents === 0) return "Nothing is due.";
  if (!payment) return `${total} is due. How it is paid could not be looked up.`;
  if (payment.method === "card") return `${total} is held on the customer's card.`;
  return `${total} is due at the desk.`;
}

export const IF_MISSING = {
  skip: "leave it out", substitute: "bring something like it", cancel: "cancel the order",
};

export const STEPS = {
  "orders.place": "Note the order down",
  "stores.reserve": "Reserve the stock and fix the prices",
  "payments.authorize": "Hold the money on the card, or open an invoice for the desk",
  "depot.schedule": "Write the shopping list",
  "orders.approve": "Promise the order to the customer, with a pickup code",
  "depot.assign": "Find a robot for the list",
  "depot.shop": "Shop: the robot picks store by store",
  "stores.adjust": "Take what is missing out of the reservation, or find something like it",
  "payments.adjust": "Hold another amount",
  "stores.drop_substitutes": "Leave out what costs more",
  "orders.adjust": "Change the order, and tell the customer",
  "depot.amend": "Change the shopping list",
  "orders.ready": "Put it at the desk, and tell the customer",
  "orders.remind": "Remind the customer",
  "payments.capture": "Take the payment",
  "stores.consume": "Take the items out of stock",
  "orders.complete": "Complete the order",
  "orders.reject": "reject the order",
  "orders.cancel": "cancel the order",
  "orders.expire": "let the order expire",
  "stores.release": "release the stock",
  "payments.void": "let go of the money",
  "depot.cancel": "cancel the shopping list, and recall the robot",
};
