/** The service that this page comes from, as its caller sees it. */

import { encodeBase58 } from "./holdfire.mjs";

const BASE = new URL("..", import.meta.url); // the service may be mounted below a path
const RETRY_MS_MAX = 30_000;

/** A no of the service: `code` is a problem's, `detail` says it to people. */
export class Problem extends Error {
  constructor({ status, code, detail }) {
    super(detail);
    Object.assign(this, { status, code });
  }
}

/** One signed-in caller. The token is kept here and nowhere else. */
export class Service {
  #token;
  #endStream = () => {};

  constructor(token) {
    this.#token = token;
  }

  /** Have `wallet` sign in: {address, signMessage(bytes)}. Throws what the wallet throws, if its user says no. */
  static async signIn({ address, signMessage }) {
    const stranger = new Service(null);
    const { challenge, message } = await stranger.post("api/sign-in/challenges", { walletAddress: address });
    const signature = encodeBase58(await signMessage(new TextEncoder().encode(message)));
    return new Service((await stranger.post("api/sign-in", { challenge, signature })).token);
  }

  /** Forget the token; nothing is followed any more. */
  forget() {
    this.#token = null;
    this.#endStream();
  }

  get(path) {
    return this.#ask(path, {});
  }

  post(path, body) {
    const headers = { "Content-Type": "application/json" };
    return this.#ask(path, { method: "POST", headers, body: JSON.stringify(body ?? {}) });
  }

  async #ask(path, request) {
    const headers = { ...request.headers, ...(this.#token && { Authorization: `Bearer ${this.#token}` }) };
    const response = await fetch(new URL(path, BASE), { ...request, headers, cache: "no-store" });
    if (response.ok) return response.json();
    const told = await response.json().catch(() => ({}));
    throw new Problem({ code: "UNKNOWN", detail: response.statusText, ...told, status: response.status });
  }

  /**
   * Follow the wallet's events after the one of id `after`, across whatever breaks, each once, in order.
   *
   * A ticket opens one stream only, so another is asked for where an EventSource would come back by itself.
   *
   * @param {string} after where to begin
   * @param {object} told onEvent(name, data, id); onReset(): state must be read anew; onOpen(isOpen);
   *   onEnd(problem): no ticket is given any more, and nothing else will be told
   */
  async follow(after, { onEvent, onReset, onOpen, onEnd }) {
    for (let wait = 1_000; ; wait = Math.min(2 * wait, RETRY_MS_MAX)) {
      try {
        const { ticket } = await this.post("api/stream-tickets");
        const url = new URL("api/agents/stream", BASE);
        url.search = new URLSearchParams({ ticket, lastEventId: after });
        await new Promise((resolve) => {
          const stream = new EventSource(url);
          const hear = (name, hand) =>
            stream.addEventListener(name, (event) => {
              after = event.lastEventId;
              hand(event);
            });
          for (const name of EVENTS) {
            hear(name, (event) => onEvent(name, JSON.parse(event.data), event.lastEventId));
          }
          hear("reset", onReset);
          stream.onopen = () => {
            wait = 1_000;
            onOpen(true);
          };
          this.#endStream = () => {
            stream.close();
            resolve();
          };
          stream.onerror = this.#endStream;
        });
      } catch (problem) {
        if (this.#token && (problem.status === 401 || problem.status === 404)) return onEnd(problem);
      }
      if (!this.#token) return undefined;
      onOpen(false);
      await new Promise((resolve) => setTimeout(resolve, wait * (0.5 + Math.random() / 2)));
    }
  }
}

const EVENTS = ["executed", "errored", "next_run_changed", "trigger_armed", "completed"];
