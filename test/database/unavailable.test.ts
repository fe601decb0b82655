import net from "node:net";
import { expect, it } from "vitest";
import { isUnavailable } from "../../src/database/errors.ts";
import { createPostgresPool } from "../../src/database/postgres.ts";

async function freePort(): Promise<number> {
  const server = net.createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  return typeof address === "object" && address !== null ? address.port : 0;
}

it("knows a server that nobody answers for", async () => {
  const pool = createPostgresPool({
    url: `postgresql://nobody@127.0.0.1:${await freePort()}/none`,
    searchPath: "public",
    maxConnections: 1,
    statementTimeoutMs: 0,
    onError: () => undefined,
  });
  const error: unknown = await pool.query("SELECT 1").catch((reason: unknown) => reason);
  await pool.end();

  expect(isUnavailable(error)).toBe(true);
});

it("knows a server that shuts down, and a pool whose patience ended", () => {
  const shutDown = Object.assign(new Error("terminating connection"), { code: "57P01", severity: "FATAL" });

  expect(isUnavailable(shutDown)).toBe(true);
  expect(isUnavailable(new Error("could not commit", { cause: shutDown }))).toBe(true);
  expect(isUnavailable(new Error("Connection terminated unexpectedly"))).toBe(true);
  expect(isUnavailable(Object.assign(new Error("no"), { code: "P1001" }))).toBe(true);
});

it("leaves a refused statement alone", () => {
  const violation = Object.assign(new Error("duplicate key"), { code: "23505", severity: "ERROR" });

  expect(isUnavailable(violation)).toBe(false);
  expect(isUnavailable(new Error("a bug"))).toBe(false);
  expect(isUnavailable(undefined)).toBe(false);
});
