// Who may come in: the accounts of people, and the keys of kiosks, services and robots. A password or a key is
// shown once, when it is made.

import { Problem, api, ask, attempt, element, field, say, time } from "./mall.js";

const ACCOUNTS = "/v1/staff/accounts";
const KEYS = "/v1/staff/keys";
const NAME = "[A-Za-z0-9._\\-]{1,60}";
const ROBOT_NAME = "[A-Za-z0-9_\\-]{1,60}";
const IN_WORDS = {
  desk: "hands orders over, cancels them, tells customers again",
  store: "stock, prices and stores",
  manager: "the desk and the stores, refunds, imports, robots, accounts and keys",
  operator: "robots, what is stuck, numbers, acts",
};

const by = (id) => document.getElementById(id);
let roles = [], accounts = [], keys = [];

/* ---- What the API says ---- */

async function refresh() {
  [accounts, keys] = (await Promise.all([api("GET", ACCOUNTS), api("GET", KEYS)])).map(({ items }) => items);
  const focused = document.activeElement?.id;
  by("accounts").replaceChildren(...accounts.map(accountRow));
  showHolders();
  if (focused) by(focused)?.focus();
}

const badges = (names) => names.map((name) => element("span", { class: "badge" }, name));

/** A button that asks the API for something; its id and what screen readers say name whom it is `about`. */
function button(label, about, work, kind = "") {
  const made = element("button", {
    type: "button", class: `small ${kind}`, id: `${label} ${about}`.toLowerCase().replaceAll(" ", "-"),
    "aria-label": `${label}: ${about}`,
  }, label);
  made.addEventListener("click", () => attempt(work, made));
  return made;
}

/* ---- People ---- */

function accountRow(account) {
  const { name, issuer, sessions, disabled_at: disabled, last_seen_at: seen } = account;
  const path = `${ACCOUNTS}/${encodeURIComponent(name)}`;
  const signedIn = sessions ? `${browsers(sessions)}, ${time(seen)}` : "Nowhere";
  return element("tr", {},
    element("th", { scope: "row", class: "access-name" }, name, disabled ? element("span", { class: "badge bad" }, "disabled") : null),
    element("td", { class: "access-badges" }, ...badges(account.roles)),
    element("td", {}, issuer ?? "Password"),
    element("td", {}, signedIn),
    element("td", {}, element("div", { class: "buttons" },
      issuer ? null : button("Roles", name, () => changeRoles(account, path)),
      issuer ? null : button("New password", name, () => resetPassword(name, path)),
      sessions ? button("Sign out", name, () => signOut(name, path)) : null,
      disabled ? button("Enable", name, () => enable(name, path))
        : button("Disable", name, () => disable(name, path), "quiet danger"))));
}

const browsers = (count) => `${count} ${count === 1 ? "browser" : "browsers"}`;

const nameField = (hint) => field("Name",
  { name: "name", required: true, pattern: NAME, maxlength: 60, autocomplete: "off", spellcheck: "false" }, hint);

async function addPerson() {
  const made = await fill("Add a person", "Add",
    [nameField("Letters, digits, dots, dashes or underscores"), roleFields([])],
    (data) => api("POST", ACCOUNTS, { name: data.get("name").trim(), roles: data.getAll("role") }));
  if (made) await shown("Password", made.name, made.password,
    "Give it to them. They can change it under their name, at the top of each page.");
}

async function changeRoles(account, path) {
  const done = await fill(`Roles of ${account.name}`, "Change", [roleFields(account.roles)],
    (data) => api("PATCH", path, { roles: data.getAll("role") }));
  if (done) await told(`${done.name} is now ${done.roles.join(", ")}`);
}

async function resetPassword(name, path) {
  const sure = await ask(`A new password for ${name}?`,
    [element("p", {}, "The old one stops working, and they are signed out everywhere.")], { confirm: "Make it" });
  if (!sure) return;
  const made = await api("POST", `${path}/password`);
  await shown("Password", name, made.password, "Give it to them.");
}

async function signOut(name, path) {
  const { ended } = await api("POST", `${path}/sign-out`);
  await told(`${name} is signed out of ${browsers(ended)}`);
}

async function disable(name, path) {
  const sure = await ask(`Disable ${name}?`,
    [element("p", {}, "They are signed out, and let in no more until somebody enables them.")],
    { confirm: "Disable", danger: true });
  if (!sure) return;
  await api("PATCH", path, { disabled: true });
  await told(`${name} is let in no more`, `enable-${name}`.toLowerCase());
}

async function enable(name, path) {
  await api("PATCH", path, { disabled: false });
  await told(`${name} may sign in again`, `disable-${name}`.toLowerCase());
}

/* ---- Keys ---- */

/** Who has, or had, keys: each with them, the newest first. */
function holders() {
  const found = new Map();
  for (const key of [...keys].reverse()) {
    const of = `${key.kind} ${key.name}`;
    if (!found.has(of)) found.set(of, { kind: key.kind, name: key.name, keys: [] });
    found.get(of).keys.push(key);
  }
  return [...found.values()].reverse();
}

function showHolders() {
  const kind = by("filter-kind").value;
  const words = by("filter-name").value.trim().toLowerCase();
  const revoked = by("filter-revoked").checked;
  const fitting = holders().filter((holder) => (!kind || holder.kind === kind)
    && holder.name.toLowerCase().includes(words) && (revoked || holder.keys.some(({ valid }) => valid)));
  by("holders").replaceChildren(...fitting.map(holderRow));
  const count = fitting.length === 1 ? "1 holder of keys" : `${fitting.length} holders of keys`;
  by("keys-said").textContent = fitting.length ? count : "Nobody of this kind and name has a key.";
}

function holderRow({ kind, name, keys: all }) {
  const valid = all.filter((key) => key.valid);
  const revoked = by("filter-revoked").checked;
  const about = `${kind} ${name}`;
  return element("tr", {},
    element("th", { scope: "row", class: "access-name" }, name),
    element("td", {}, kind),
    element("td", { class: "access-badges" }, ...(kind === "service" ? badges((valid[0] ?? all[0]).roles) : [])),
    element("td", {}, element("ul", { class: "access-keys" },
      ...(revoked ? all : valid).map((key) => element("li", {},
        element("code", {}, `${key.hash_prefix}…`),
        element("span", { class: "muted small" }, ` made ${time(key.created_at)}`),
        ...state(key, valid[0] ?? all[0]))))),
    element("td", {}, valid.length ? element("div", { class: "buttons" },
      button("Rotate", about, () => rotate(kind, name)),
      button("Revoke", about, () => revoke(kind, name, valid.length), "quiet danger")) : null));
}

function state(key, first) {
  const said = [];
  if (key.kind === "service" && key.roles.join() !== first.roles.join()) {
    said.push(element("span", { class: "badge" }, key.roles.join(", ")));
  }
  if (!key.valid) said.push(element("span", { class: "badge muted" }, `revoked ${time(key.revoked_at)}`));
  else if (key.revoked_at) said.push(element("span", { class: "badge warn" }, `stops ${time(key.revoked_at)}`));
  return said;
}

async function makeKey() {
  const kinds = [["service", "A service"], ["kiosk", "A kiosk"], ["robot", "A robot"]];
  const kind = field("For", { name: "kind", options: kinds }, "A service is a program that does what staff do.");
  const name = nameField("Letters, digits, dashes or underscores; also dots, but for a robot");
  const chosen = roleFields([]);
  kind.querySelector("select").addEventListener("change", ({ target }) => {
    chosen.hidden = target.value !== "service";
    name.querySelector("input").pattern = target.value === "robot" ? ROBOT_NAME : NAME;
  });
  const made = await fill("Make a key", "Make", [kind, name, chosen], (data) => api("POST", KEYS, {
    kind: data.get("kind"), name: data.get("name").trim(),
    roles: data.get("kind") === "service" ? data.getAll("role") : [],
  }));
  if (made) await shown("Key", `${made.kind} ${made.name}`, made.key, "Its other keys stay valid.");
}

async function rotate(kind, name) {
  const overlap = field("Minutes that the old keys still work",
    { name: "minutes", type: "number", min: 0, max: 10080, step: 1, value: 10, required: true },
    "As long as it takes to carry the new one there; 0 ends them at once");
  const made = await fill(`A new key for ${kind} ${name}`, "Rotate", [overlap],
    (data) => api("POST", `${KEYS}/${kind}/${encodeURIComponent(name)}/rotate`,
      { keep_old_minutes: Number(data.get("minutes")) }));
  if (made) await shown("Key", `${kind} ${name}`, made.key, "It has the roles of the one before.");
}

async function revoke(kind, name, count) {
  const sure = await ask(`Revoke ${count === 1 ? "the key" : `all ${count} keys`} of ${kind} ${name}?`,
    [element("p", {}, `The ${kind} is let in no more. This can not be taken back.`)],
    { confirm: "Revoke", danger: true });
  if (!sure) return;
  await api("DELETE", `${KEYS}/${kind}/${encodeURIComponent(name)}`);
  await told(`${kind} ${name} is let in no more`, "make-key");
}

/* ---- Dialogs ---- */

function roleFields(chosen) {
  return element("fieldset", { class: "field access-roles" }, element("legend", {}, "Roles"),
    ...roles.map(({ role }) => element("label", {},
      element("input", { type: "checkbox", name: "role", value: role, checked: chosen.includes(role) }),
      element("span", {}, element("strong", {}, role), `: ${IN_WORDS[role] ?? ""}`))));
}

/** Ask in a dialog that stays, with what is wrong in it, until `send` was answered: its answer, or null. */
function fill(title, confirm, fields, send) {
  return new Promise((resolve) => {
    const wrong = element("p", { class: "notice bad", role: "alert", hidden: true });
    const yes = element("button", { class: "primary" }, confirm);
    let answer = null;
    const form = element("form", {}, element("h2", { id: "dialog-title" }, title), ...fields, wrong,
      element("div", { class: "buttons" },
        element("button", { type: "button", class: "quiet", onclick: () => dialog.close() }, "Back"), yes));
    const dialog = element("dialog", { "aria-labelledby": "dialog-title" }, form);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      attempt(async () => {
        try {
          answer = await send(new FormData(form));
          dialog.close();
        } catch (error) {
          if (!(error instanceof Problem)) throw error;
          const [first] = error.errors;
          const lost = error.status === 0 ? ". It may have been done all the same: look at the list" : "";
          wrong.textContent = (first ? `${first.field}: ${first.rule}` : error.message) + lost;
          wrong.hidden = false;
        }
      }, yes);
    });
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(answer);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** Show a password or a key, this once; over when it is closed, and the list is up to date then. */
async function shown(what, whose, secret, hint) {
  const opener = document.activeElement?.id;
  await new Promise((resolve) => {
    const value = element("input",
      { id: "secret", readonly: true, value: secret, class: "access-secret", spellcheck: "false" });
    const copied = element("span", { role: "status", class: "muted" });
    const copy = element("button", { type: "button", onclick: async () => {
      value.select();
      // A page without TLS has no clipboard; what is selected can be copied by hand.
      const done = await navigator.clipboard?.writeText(secret).then(() => true, () => false);
      copied.textContent = done || document.execCommand("copy") ? "Copied" : "Copy what is selected";
    } }, "Copy");
    const dialog = element("dialog", { "aria-labelledby": "dialog-title" },
      element("h2", { id: "dialog-title" }, `${what} of ${whose}`),
      element("p", { class: "notice warn" }, element("span", {},
        element("strong", {}, "It is shown this once."), " Copy it now: only its hash is kept.")),
      element("div", { class: "field" },
        element("label", { for: "secret" }, what), value, element("small", {}, hint)),
      element("div", { class: "buttons" }, copied, copy,
        element("button", { type: "button", class: "primary", onclick: () => dialog.close() }, "I have it")));
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve();
    });
    document.body.append(dialog);
    dialog.showModal();
    value.select();
  });
  await told(null, opener);
}

/** Say what was done, show the lists as they are now, and put the focus where the work goes on. */
async function told(message, next) {
  if (message) say(message);
  await refresh();
  if (next && document.activeElement === document.body) by(next)?.focus();
}

/* ---- Begin ---- */

function showRoles() {
  const actions = [...new Set(roles.flatMap((role) => role.actions))].sort();
  by("role-names").append(...roles.map(({ role }) => element("th", { scope: "col" }, role)));
  by("role-actions").replaceChildren(...actions.map((action) => element("tr", {},
    element("th", { scope: "row" }, element("code", {}, action)),
    ...roles.map((role) => element("td", {}, role.actions.includes(action) ? "✓\u00a0may" : "–")))));
}

by("filters").addEventListener("submit", (event) => event.preventDefault());
by("filters").addEventListener("input", showHolders);
by("add-person").addEventListener("click", ({ currentTarget }) => attempt(addPerson, currentTarget));
by("make-key").addEventListener("click", ({ currentTarget }) => attempt(makeKey, currentTarget));
attempt(async () => {
  roles = (await api("GET", "/v1/staff/roles")).items;
  showRoles();
  await refresh();
});
