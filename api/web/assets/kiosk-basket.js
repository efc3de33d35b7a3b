// What a customer at the kiosk has chosen, and what became of it. It is kept through a reload of the page.

import { newKey } from "./mall.js";

const KEPT = "mallbots.kiosk";
const NEW = { screen: "start", lines: [], customer: "", attempt: null, order: null, ordered: null };
const MOST = 99;

/** `lines` are products with `quantity`, `if_missing` and `dearer_substitute`. `attempt` is what is being ordered,
 * with its key, while no answer to it is known. `order` is the order under way, `ordered` the lines it was made
 * of. */
export const state = { ...structuredClone(NEW), ...kept() };

function kept() {
  try {
    return JSON.parse(localStorage.getItem(KEPT));
  } catch {
    return null;
  }
}

/** Keep the state as it is now. */
export function keep() {
  try {
    localStorage.setItem(KEPT, JSON.stringify(state));
  } catch {
    // A browser that keeps nothing can sell all the same.
  }
}

/** Be as new, for the next customer. */
export function forget() {
  Object.assign(state, structuredClone(NEW));
  keep();
}

export const line = (sku) => state.lines.find((one) => one.sku === sku);
export const most = (product) => Math.min(product.available, MOST);
export const sum = () => state.lines.reduce((cents, one) => cents + one.quantity * one.price_cents, 0);

/** Have so many pieces of a product in the basket; none takes it out. */
export function put(product, quantity) {
  const there = line(product.sku);
  if (quantity < 1) state.lines = state.lines.filter((one) => one !== there);
  else if (there) there.quantity = quantity;
  else state.lines.push({ ...product, quantity, if_missing: "skip", dearer_substitute: false });
  keep();
}

/** Begin to order the basket, or go on: the same basket paid in the same way has the same key for as long as no
 * answer is known, so that it is one order however often it is sent. */
export function begin(payment) {
  const body = {
    ...(state.customer && { customer: state.customer }),
    items: state.lines.map(({ sku, quantity, if_missing, dearer_substitute }) =>
      ({ sku, quantity, if_missing, dearer_substitute })),
    payment,
  };
  if (JSON.stringify(state.attempt?.body) !== JSON.stringify(body)) state.attempt = { key: newKey(), body };
  keep();
}
