// What happens in the mall, as it happens: the WebSocket /v1/staff/events, which connects again by itself.

const SILENCE = 30_000;
const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 8_000;
const BAD_INPUT = 4400, NO_SESSION = 4401, FORBIDDEN = 4403, GONE = 4410;

/** Follow the events of some domains ("orders", "stores", "payments", "depot"; all without `topics`).
 *
 * - `onReady()` is called when a snapshot has to be taken: at first, and when what was missed is not kept any more.
 *   Take it there by REST (return the promise); events wait until it is done, and it is called again if it fails.
 * - `onEvent(event)` is called for each event behind that, in order, each once and none left out, through every
 *   break. One may be in the snapshot already: skip it if its `version` is not above that of its `stream` there.
 * - `onState({ live, since, reason })` is called when the connection comes ("live" is true) and goes; `since` is a
 *   Date. `reason` is "forbidden" if the roles do not allow it: then it stays so.
 *
 * Gives a function that ends it. */
export function follow({ topics, onReady = () => {}, onEvent, onState = () => {} }) {
  let socket = null, timer = null, ended = false;
  let position = null; // of the last message; null: a snapshot is needed
  let waiting = null; // events that came while the snapshot is taken
  let taking = Promise.resolve(); // one snapshot after the other, so that the last is the newest
  let heard = 0, pause = FIRST_PAUSE, state = null;

  function tell(live, reason) {
    if (state?.live === live && state.reason === reason) return;
    state = { live, reason, since: new Date() };
    onState(state);
  }

  function connect() {
    clearTimeout(timer);
    if (ended || socket) return;
    const query = new URLSearchParams();
    if (topics) query.set("topics", topics.join(","));
    if (position !== null) query.set("after", position);
    const opened = socket = new WebSocket(`${location.origin.replace(/^http/, "ws")}/v1/staff/events?${query}`);
    heard = Date.now();
    opened.onmessage = (message) => opened === socket && take(JSON.parse(message.data));
    opened.onclose = ({ code }) => opened === socket && lost(code);
  }

  function take(message) {
    heard = Date.now();
    if (message.type === "hello" && position === null) snapshot(socket);
    else if (message.type === "hello") resumed();
    if (message.type === "event" && waiting) waiting.push(message);
    else if (message.type === "event") onEvent(message);
    position = message.position;
  }

  async function snapshot(of) {
    const came = waiting = [];
    try {
      taking = taking.then(() => onReady(), () => onReady());
      await taking;
    } catch (error) {
      console.warn("live updates: no snapshot:", error.message);
      if (of === socket) drop();
      return;
    }
    if (came !== waiting) return; // the connection broke meanwhile
    waiting = null;
    came.forEach((event) => onEvent(event));
    resumed();
  }

  function resumed() {
    pause = FIRST_PAUSE;
    tell(true);
  }

  /** The connection is of no use any more: begin anew. */
  function drop() {
    const dropped = socket;
    lost();
    dropped.close();
  }

  function lost(code) {
    const asked = position;
    socket = null;
    if (waiting || code === GONE || (code === BAD_INPUT && asked !== null)) position = null;
    waiting = null;
    if (ended) return;
    if (code === NO_SESSION) {
      location.assign(`/sign-in?next=${encodeURIComponent(location.pathname + location.search)}`);
    }
    if (code === FORBIDDEN) return end(tell(false, "forbidden"));
    tell(false);
    timer = setTimeout(connect, pause * (0.5 + Math.random()));
    pause = Math.min(pause * 2, LONGEST_PAUSE);
  }

  function hurry() {
    if (ended || document.hidden || socket) return;
    pause = FIRST_PAUSE;
    connect();
  }

  function end() {
    ended = true;
    clearTimeout(timer);
    clearInterval(watch);
    removeEventListener("online", hurry);
    document.removeEventListener("visibilitychange", hurry);
    socket?.close();
  }

  const watch = setInterval(() => socket && Date.now() - heard > SILENCE && drop(), 5_000);
  addEventListener("online", hurry);
  document.addEventListener("visibilitychange", hurry);
  connect();
  return end;
}
