/** One request and its answer on undici's dispatch API: the cheapest one, and the only one that can cap and cut everything. */
import { Client, type Dispatcher } from "undici";
import { ConnectorError, type PostResult } from "./connector-error.ts";

const NO_BODY = Buffer.alloc(0);

/** Counts the answers that came over its present connection, so that a cut fresh one can be told from a stale one. */
export class CountingClient extends Client {
  answersOnConnection = 0;

  constructor(origin: URL, options: object) {
    super(origin, options);
    this.on("connect", () => {
      this.answersOnConnection = 0;
    });
  }

  override dispatch(options: Dispatcher.DispatchOptions, handler: Dispatcher.DispatchHandler): boolean {
    if (handler instanceof Exchange) handler.client = this;
    return super.dispatch(options, handler);
  }
}

export class Exchange implements Dispatcher.DispatchHandler {
  readonly answer: Promise<PostResult>;
  client: CountingClient | undefined;
  readonly #settle: PromiseWithResolvers<PostResult> = Promise.withResolvers();
  readonly #startedAt: number;
  readonly #maxBodyBytes: number;
  #controller: Dispatcher.DispatchController | undefined;
  #failure: ConnectorError | undefined;
  #onReusedConnection = false;
  #answerBegan = false;
  #status = 0;
  #headers: Record<string, string> = {};
  #chunks: Buffer[] = [];
  #bodyBytes = 0;

  constructor(options: { startedAt: number; maxBodyBytes: number }) {
    this.#startedAt = options.startedAt;
    this.#maxBodyBytes = options.maxBodyBytes;
    this.answer = this.#settle.promise;
  }

  /**
   * A keep-alive connection may be closed by its server just as we send: then nothing was read and the request may go
   * out again at once (RFC 9112 §9.3.1 allows it for what is safe to repeat; a webhook is, by its webhook-id).
   */
  get failedOnStaleConnection(): boolean {
    return this.#onReusedConnection && !this.#answerBegan && this.#failure?.code === "reset";
  }

  /** Gives the exchange up: frees its connection, or keeps it from ever being sent. */
  fail(error: ConnectorError): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    this.#settle.reject(error);
    this.#controller?.abort(error);
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller;
    this.#onReusedConnection = (this.client?.answersOnConnection ?? 0) > 0;
    if (this.#failure !== undefined) controller.abort(this.#failure);
  }

  onResponseStarted(): void {
    this.#answerBegan = true;
  }

  onResponseStart(
    _controller: Dispatcher.DispatchController,
    status: number,
    headers: Record<string, string | string[] | undefined>,
  ): void {
    this.#answerBegan = true;
    if (status < 200) return; // informational; the real one follows
    this.#status = status;
    this.#headers = Object.fromEntries(
      Object.entries(headers).map(([name, value]) => [
        name.toLowerCase(),
        Array.isArray(value) ? value.join(", ") : (value ?? ""),
      ]),
    );
  }

  onResponseData(_controller: Dispatcher.DispatchController, chunk: Buffer): void {
    const room = this.#maxBodyBytes - this.#bodyBytes;
    if (chunk.length > room) {
      if (room > 0) this.#chunks.push(chunk.subarray(0, room));
      this.fail(
        new ConnectorError("too_large", `The answer is longer than ${this.#maxBodyBytes} bytes.`, {
          partial: this.#result(),
        }),
      );
      return;
    }
    this.#chunks.push(chunk);
    this.#bodyBytes += chunk.length;
  }

  onResponseEnd(): void {
    if (this.client) this.client.answersOnConnection += 1;
    this.#settle.resolve(this.#result());
  }

  onResponseError(_controller: Dispatcher.DispatchController | null, error: Error): void {
    if (this.#failure !== undefined) return;
    if ("code" in error && error.code === "UND_ERR_INVALID_ARG") {
      this.#settle.reject(error); // our own mistake, not the receiver's
      return;
    }
    this.#failure = asConnectorError(error);
    this.#settle.reject(this.#failure);
  }

  #result(): PostResult {
    return {
      status: this.#status,
      headers: this.#headers,
      body: (this.#chunks.length === 0 ? NO_BODY : Buffer.concat(this.#chunks)).toString("utf8"),
      durationMs: Math.round(performance.now() - this.#startedAt),
    };
  }
}

const CUT = new Set(["ECONNRESET", "EPIPE", "ECONNABORTED", "ETIMEDOUT", "UND_ERR_SOCKET"]);
const CLOSED = new Set(["UND_ERR_DESTROYED", "UND_ERR_CLOSED"]);

function asConnectorError(error: Error): ConnectorError {
  if (error instanceof ConnectorError) return error;
  const code = "code" in error ? String(error.code) : "";
  const cause = { cause: error };
  if (CUT.has(code))
    return new ConnectorError("reset", "The connection was cut before the answer was complete.", cause);
  if (CLOSED.has(code)) return new ConnectorError("closed", "The connector is closed.", cause);
  if (code === "UND_ERR_HEADERS_OVERFLOW")
    return new ConnectorError("too_large", "The headers of the answer are too long.", cause);
  return new ConnectorError("protocol", `The answer is not proper HTTP (${code || error.name}).`, cause);
}
