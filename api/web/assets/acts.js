// The log of acts, a page at a time. Its filters are in the address, so that a list can be sent to somebody.

import { api, attempt, element, time } from "./mall.js";

const by = (id) => document.getElementById(id);
const form = by("filters");
let next = null;

/** Where to look at what an act is about, if it has a page of its own. */
function about(subject) {
  if (!subject) return "–";
  const order = /^order-([0-9a-f-]{36})$/.exec(subject);
  return order ? element("a", { href: `/staff/orders/${order[1]}` }, `order …${order[1].slice(-6)}`) : subject;
}

function row(act) {
  const refused = act.outcome === "refused";
  return element("tr", { class: refused ? "refused" : null },
    element("td", {}, element("time", { datetime: act.at }, time(act.at))),
    element("th", { scope: "row" }, act.by),
    element("td", {}, act.act),
    element("td", {}, element("span", { class: `badge ${refused ? "bad" : "good"}` }, act.outcome)),
    element("td", {}, about(act.subject)),
    element("td", { class: "acts-detail" }, act.detail));
}

async function show(before) {
  const query = new URLSearchParams([...new FormData(form)].filter(([, value]) => value.trim()));
  history.replaceState(null, "", `?${query}`);
  if (before) query.set("before", before);
  const page = await api("GET", `/v1/staff/acts?${query}`);
  const rows = page.items.map(row);
  if (before) by("acts").append(...rows);
  else by("acts").replaceChildren(...rows);
  next = page.next;
  by("more").hidden = !next;
  const count = by("acts").children.length;
  by("said").textContent = count ? `${count} ${count === 1 ? "act" : "acts"}${next ? ", and older ones" : ""}`
    : "Nothing like this was done or refused.";
}

for (const [name, value] of new URLSearchParams(location.search)) {
  const field = form.elements.namedItem(name);
  if (field) field.value = value;
}
form.addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(() => show(), event.submitter);
});
by("filter-outcome").addEventListener("change", () => attempt(() => show()));
by("more").addEventListener("click", ({ currentTarget }) => attempt(() => show(next), currentTarget));
attempt(() => show());
