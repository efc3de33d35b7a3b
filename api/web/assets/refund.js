// The dialog that gives money back. One key for as long as nothing was answered: pressing twice, or a lost answer,
// refunds once.

import { insist } from "./insist.js";
import { Problem, element, field, money, newKey, say } from "./mall.js";
import { sentence } from "./order-words.js";

export const NOT_FOR_CUSTOMERS = "It is kept in the trail. The customer does not read it.";

/** Ask what of an order is refunded, `left` being the pieces of each product that can be, and do it. `done` is
 * called when something was. */
export function refundDialog(order, left, done) {
  const path = `/v1/staff/orders/${order.order_id}/refunds`;
  const price = (cents) => money(cents, order.currency);
  const stopping = new AbortController();
  let key = newKey(), sending = false, wait = null;

  const whole = element("input", { type: "radio", name: "what", value: "all", id: "refund-all", checked: true });
  const byLine = element("input", { type: "radio", name: "what", value: "lines", id: "refund-lines" });
  const quantities = left.map((line) => field(`${line.name} – of ${line.quantity}`, {
    name: `quantity-${line.sku}`, type: "number", inputmode: "numeric", min: 0, max: line.quantity, value: 0,
  }, `${price(line.unit_price_cents)} each`));
  const lines = element("fieldset", { disabled: true, class: "refund-lines" },
    element("legend", {}, "Pieces to refund"), ...quantities);
  const problem = element("p", { class: "notice bad", role: "alert", hidden: true });
  const progress = element("p", { role: "status", class: "muted" });
  const parts = element("fieldset", {},
    element("legend", { class: "visually-hidden" }, "What is refunded"),
    element("div", { class: "field" }, element("label", { for: "refund-all" }, whole, "All that is left of it")),
    element("div", { class: "field" }, element("label", { for: "refund-lines" }, byLine, "Only some pieces")),
    lines, field("Reason", { name: "reason", maxlength: 500, autocomplete: "off" }, NOT_FOR_CUSTOMERS));
  const send = element("button", { class: "primary", id: "refund-send" }, "Refund");
  const close = element("button", { type: "button", class: "quiet", onclick: () => dialog.close() }, "Back");
  const title = element("h2", { id: "refund-title" }, "Refund");
  const form = element("form", { id: "refund-form" }, title, parts, problem, progress,
    element("div", { class: "buttons" }, close, send));
  const dialog = element("dialog", { "aria-labelledby": "refund-title" }, form);

  form.addEventListener("change", show);
  form.addEventListener("input", show);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  dialog.addEventListener("close", () => {
    if (wait === "lost") say("It is not certain that the refund was made: look at the order again.", "bad");
    if (wait === "under way") say("The refund is on record, and will be done.");
    stopping.abort();
    dialog.remove();
    done();
  });
  document.body.append(dialog);
  show();
  dialog.showModal();

  function pieces() {
    const typed = (line) => Number(form.elements[`quantity-${line.sku}`].value) || 0;
    return left.map((line) => ({ sku: line.sku, quantity: typed(line) })).filter((line) => line.quantity > 0);
  }

  function show() {
    lines.disabled = whole.checked;
    const prices = Object.fromEntries(left.map((line) => [line.sku, line.unit_price_cents]));
    const cents = pieces().reduce((sum, line) => sum + line.quantity * prices[line.sku], 0);
    send.textContent = whole.checked ? "Refund all that is left" : `Refund ${price(cents)}`;
  }

  async function submit() {
    if (sending) return;
    const some = pieces();
    if (byLine.checked && !some.length) return fail("Say how many pieces are refunded.");
    const body = { reason: form.elements.reason.value.trim(), ...(byLine.checked ? { lines: some } : {}) };
    wait = "lost"; // until there is an answer
    sending = parts.disabled = true;
    send.setAttribute("aria-disabled", "true");
    problem.hidden = true;
    progress.textContent = "Refunding…";
    try {
      const refund = await insist(path, body, key, { signal: stopping.signal, onWait });
      wait = null;
      say(`${price(refund.amount_cents)} given back.`);
      dialog.close();
    } catch (error) {
      if (error.name === "AbortError") return;
      if (!(error instanceof Problem)) throw error;
      // What was refused is refused for ever under its key; what could not be answered is asked again under it.
      if (error.status < 500) [key, wait] = [newKey(), null];
      fail(error.message);
    } finally {
      sending = parts.disabled = false;
      send.removeAttribute("aria-disabled");
      progress.textContent = "";
      show();
    }
  }

  function onWait(how) {
    wait = how;
    progress.textContent = how === "lost" ? "No answer. Asking again; it is refunded once…"
      : "It takes longer, but it will be done. You need not wait.";
  }

  function fail(message) {
    problem.textContent = sentence(message);
    problem.hidden = false;
  }
}
