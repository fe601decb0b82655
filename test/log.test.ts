import { expect, it } from "vitest";
import { ServiceError } from "../src/core/errors.ts";
import { createLog } from "../src/log.ts";

function logged() {
  const lines: Record<string, unknown>[] = [];
  const log = createLog("info", { write: (line) => void lines.push(JSON.parse(line)) });
  return { log, lines };
}

function refused(): Error {
  return Object.assign(new Error("connect ECONNREFUSED 127.0.0.1:5432"), { code: "ECONNREFUSED" });
}

it("tells of a database that is away once, without the stack", () => {
  const { log, lines } = logged();

  for (let round = 0; round < 5; round += 1) log.error({ err: refused() }, "could not claim");
  log.error({ err: refused() }, "the sweep failed");

  expect(lines.map(({ msg, err }) => ({ msg, err }))).toEqual([
    { msg: "could not claim", err: { type: "Error", message: "connect ECONNREFUSED 127.0.0.1:5432" } },
    { msg: "the sweep failed", err: { type: "Error", message: "connect ECONNREFUSED 127.0.0.1:5432" } },
  ]);
});

it("tells of every other error each time, with its stack", () => {
  const { log, lines } = logged();

  for (let round = 0; round < 2; round += 1) log.error({ err: new Error("a bug") }, "could not claim");

  expect(lines).toHaveLength(2);
  expect(lines[1]).toMatchObject({
    err: { message: "a bug", stack: expect.stringContaining("log.test.ts") },
  });
});

it("tells of what was foreseen by its code and texts", () => {
  const { log, lines } = logged();

  const cause = new Error("other side closed");
  log.warn(
    { err: new ServiceError("unreachable", "The cloud does not answer.", { cause, staffDetail: "os1" }) },
    "sync",
  );

  expect(lines.map(({ err }) => err)).toEqual([
    {
      type: "ServiceError",
      code: "unreachable",
      message: "The cloud does not answer.",
      staffDetail: "os1",
      reason: "other side closed",
    },
  ]);
});
