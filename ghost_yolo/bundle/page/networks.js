// The page's side of worker.js: one question at a time, each answered or refused.

export class Networks {
  /** @param onFound called with every list of results, the last one marked `last`, and with what they were found in */
  constructor(onFound) {
    this.onFound = onFound;
    this.turn = Promise.resolve();
  }

  /** Start a new worker instead of the one that runs, whose question is refused with null, and open engine and models. */
  open(request) {
    this.worker?.terminate();
    this.worker = new Worker("worker.js", { type: "module", name: "networks" });
    this.worker.onmessage = ({ data }) => this.#hear(data);
    this.worker.onerror = (event) => this.#hear({ kind: "failed", message: event.message || "worker.js cannot be loaded" });
    this.waiting?.reject(null);
    return this.#ask({ kind: "open", ...request });
  }

  /** Find in a photograph; what is found goes to `onFound`, with `of`, which says in what. */
  find(request, transfer, of) {
    return this.#ask({ kind: "find", ...request }, transfer, of);
  }

  /** Send a question when the one before is answered. */
  #ask(message, transfer = [], of = null) {
    const ask = () =>
      new Promise((resolve, reject) => {
        this.waiting = { resolve, reject, of };
        this.worker.postMessage(message, transfer);
      });
    this.turn = this.turn.then(ask, ask);
    return this.turn;
  }

  /** Hand what the worker says to whom waits for it. */
  #hear(data) {
    if (data.kind === "found" && this.waiting) this.onFound(data, this.waiting.of);
    if (data.kind === "found" && !data.last) return;
    const { resolve, reject } = this.waiting ?? {};
    this.waiting = null;
    if (data.kind === "failed") reject?.(new Error(data.message));
    else resolve?.(data);
  }
}
