/** The only door to nock. Anything that is neither mocked nor on this machine fails the test, and so does a mock nobody used. */
import nock from "nock";
import { afterAll, afterEach, beforeAll, expect } from "vitest";

export { nock };

/** Call it once at the top of a file (or a describe) that mocks HTTP. */
export function mockHttp(): void {
  const unmocked: string[] = [];
  const note = (request: { method?: string; host?: string; path?: string }): void => {
    unmocked.push(`${request.method ?? "?"} ${request.host ?? "?"}${request.path ?? ""}`);
  };

  beforeAll(() => {
    if (!nock.isActive()) nock.activate();
    nock.disableNetConnect();
    nock.enableNetConnect(/^(127\.0\.0\.1|localhost|\[::1\])(:\d+)?$/u);
    nock.emitter.on("no match", note);
  });

  afterEach(() => {
    const pending = nock.pendingMocks();
    const missed = unmocked.splice(0);
    nock.cleanAll();
    expect({ pending, unmocked: missed }).toEqual({ pending: [], unmocked: [] });
  });

  afterAll(() => {
    nock.emitter.off("no match", note);
    nock.enableNetConnect();
    nock.restore();
  });
}
