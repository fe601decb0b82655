import { expect, it } from "vitest";
import { reworded, ServiceError } from "../../src/core/errors.ts";

const cause = new ServiceError("cloud_conflict", "It is locked.", {
  facts: { cloud: "one", lock: "backup" },
  retryable: true,
  staffDetail: "one: VM is locked (backup)",
});

it("an error in other words keeps all that is known of it", () => {
  const error = reworded(cause, "Wait for the backup.", { facts: { lock: "migrate" } });
  expect(error).toMatchObject({
    code: "cloud_conflict",
    message: "Wait for the backup.",
    facts: { cloud: "one", lock: "migrate" },
    retryable: true,
    staffDetail: "one: VM is locked (backup)",
    cause,
  });
});

it("an error of another code is retryable only when that is said", () => {
  expect(reworded(cause, "It failed.", { code: "cloud_failed" }).retryable).toBe(false);
  expect(reworded(cause, "It failed.", { code: "cloud_failed", retryable: true }).retryable).toBe(true);
  expect(reworded(cause, "It is locked.", { retryable: false }).retryable).toBe(false);
});
