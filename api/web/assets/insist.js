// A request that must be answered: the same is sent again, under the same key, until it is.

import { Problem, api } from "./mall.js";

const PAUSE = 1_000;
const LOST = [0, 502, 504];

/** Send until there is an answer that is final: 202 means that it is under way, and an answer that got lost means
 * nothing. `onWait` is told which ("under way" or "lost") before each pause. Throws `Problem`, and an `AbortError`
 * if `signal` says to stop. */
export async function insist(path, body, key, { onWait = () => {}, signal } = {}) {
  while (true) {
    try {
      const answer = await api("POST", path, body, { key, signal });
      if (!["handing_over", "cancelling", "refunding"].includes(answer?.status)) return answer;
      onWait("under way");
    } catch (error) {
      if (!(error instanceof Problem) || !LOST.includes(error.status)) throw error;
      onWait("lost");
    }
    await new Promise((resolve) => setTimeout(resolve, PAUSE));
    signal?.throwIfAborted();
  }
}
