// An order from the payment on: sent until it is answered, then followed until it ends.

import { Problem, api } from "./mall.js";

const PATIENCE_MS = 20_000;
const FIRST_PAUSE_MS = 250;
const LONGEST_PAUSE_MS = 5_000;
const LOOK_WHILE_SHOPPING_MS = 3_000;
const LOOK_MS = 20_000;
const REOPEN_MS = 2_000;
const EVENTS = ["OrderPlaced", "OrderApproved", "OrderAdjusted", "OrderReadied", "OrderCompleted", "OrderRejected",
  "OrderCancelled", "OrderExpired"];

export const ENDED = ["completed", "cancelled", "rejected", "expired"];

/** Whether asking again may help. */
export const passes = (problem) =>
  problem instanceof Problem && (problem.status === 0 || problem.status === 429 || problem.status >= 500);

/** Ask until there is an answer; the pauses grow. `again` is told how often it failed. Throws a `Problem` that
 * does not pass, or what ended `signal`. */
export async function persist(method, path, body, { key, signal, again = () => {} } = {}) {
  for (let failures = 1; ; failures += 1) {
    const patience = AbortSignal.timeout(PATIENCE_MS);
    try {
      const ends = signal ? AbortSignal.any([signal, patience]) : patience;
      return await api(method, path, body, { key, signal: ends });
    } catch (error) {
      signal?.throwIfAborted();
      if (!passes(error)) throw error;
      again(failures);
    }
    const pause = Math.min(FIRST_PAUSE_MS * 2 ** failures, LONGEST_PAUSE_MS) * (0.5 + Math.random() / 2);
    await new Promise((resolve) => setTimeout(resolve, pause));
    signal?.throwIfAborted();
  }
}

/** Tell `show` of an order now and after every change: the order, its saga's account while a robot shops, and
 * whether the mall answers. Tells `gone` of a problem that will not pass. Gives what stops it. */
export function follow(id, show, gone) {
  const path = `/v1/orders/${id}`;
  const stop = new AbortController();
  const { signal } = stop;
  let order, saga, source, timer;
  let looking = false;
  let again = false;

  async function look() {
    again = looking;
    if (looking) return;
    looking = true;
    clearTimeout(timer);
    try {
      order = await persist("GET", path, undefined, { signal, again: () => show(order, saga, false) });
      if (order.status === "approved") saga = await account();
      if (signal.aborted) return;
      show(order, saga, true);
    } catch (error) {
      if (signal.aborted) return;
      stop.abort();
      gone(error);
      return;
    } finally {
      looking = false;
    }
    if (ENDED.includes(order.status)) stop.abort();
    else if (again) look();
    else timer = setTimeout(look, order.status === "ready" ? LOOK_MS : LOOK_WHILE_SHOPPING_MS);
  }

  // The order itself matters: that its saga can not tell how far the robot is, is no problem.
  const account = () => api("GET", `${path}/saga`, undefined, { signal }).catch(() => saga);

  function listen() {
    if (signal.aborted) return;
    source = new EventSource(`${path}/events`);
    for (const event of EVENTS) source.addEventListener(event, look);
    source.addEventListener("error", () => {
      if (source.readyState === EventSource.CLOSED && !signal.aborted) setTimeout(listen, REOPEN_MS);
    });
  }

  signal.addEventListener("abort", () => {
    clearTimeout(timer);
    source?.close();
  });
  listen();
  look();
  return { stop: () => stop.abort(), look };
}
