import { pino } from "pino";
import { expect, it } from "vitest";
import type { OpenStackClient } from "../../../src/clouds/openstack/client.ts";
import { serverCondition } from "../../../src/clouds/openstack/condition.ts";
import { NovaServer } from "../../../src/clouds/openstack/schema.ts";
import { isBusy, stateOf } from "../../../src/clouds/openstack/state.ts";
import { createWatch } from "../../../src/clouds/openstack/watch.ts";
import type { OpenWait } from "../../../src/core/cloud.ts";
import { ServiceError } from "../../../src/core/errors.ts";

const AT = Date.parse("2026-11-21T12:00:00Z");

interface Pass {
  rows: NovaServer[];
  date?: Date;
  error?: ServiceError;
}

/** Answers the passes in order and notes what was asked for. */
function clientOf(passes: Pass[], offsetMs = 0) {
  const asked: string[] = [];
  const unused = () => Promise.reject(new Error("not part of a watch"));
  const client: OpenStackClient = {
    cloud: "test",
    log: pino({ level: "silent" }),
    call: unused,
    read: unused,
    // oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- as the interface has it
    async list<T>(request: { query?: Record<string, string> }) {
      asked.push(request.query?.["changes-since"] ?? "everything");
      const pass = passes.shift();
      if (pass === undefined) throw new Error("asked once too often");
      if (pass.error !== undefined) throw pass.error;
      // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- a watch lists servers
      return { rows: pass.rows as T[], date: pass.date };
    },
    clockOffsetMs: () => offsetMs,
    microversion: unused,
    session: unused,
    close: () => Promise.resolve(),
  };
  return { client, asked };
}

const server = (id: string, status: string, task: string | null = null): NovaServer => ({
  id,
  status,
  "OS-EXT-STS:task_state": task,
});

const wait = (id: string, more: Partial<OpenWait> = {}): OpenWait => ({
  id,
  condition: serverCondition(id, ["BUILD"]),
  since: new Date(AT),
  observedAt: null,
  ...more,
});

it("asks from before a new wait's call, then from before the last complete answer, by the cloud's clock", async () => {
  const date = new Date(AT + 3_600_000);
  const { client, asked } = clientOf(
    [
      { rows: [server("a", "BUILD", "spawning")], date },
      { rows: [], date: new Date(date.getTime() + 2_000) },
      { rows: [], date },
    ],
    3_600_000,
  );
  const watch = createWatch(client, () => AT);
  expect(await watch([wait("a")])).toEqual([{ waitId: "a", note: "starting the server" }]);
  const observed = wait("a", { observedAt: new Date(AT) });
  expect(await watch([observed])).toEqual([{ waitId: "a" }]);
  // A new one among them goes back to its own beginning.
  await watch([observed, wait("b", { since: new Date(AT - 600_000) })]);
  expect(asked).toEqual(["2026-11-21T12:58:00Z", "2026-11-21T12:59:30Z", "2026-11-21T12:48:00Z"]);
});

it("after a restart begins where the waits were last seen", async () => {
  const { client, asked } = clientOf([{ rows: [] }]);
  await createWatch(client, () => AT)([wait("a", { observedAt: new Date(AT + 60_000) })]);
  expect(asked).toEqual(["2026-11-21T11:59:00Z"]);
});

it("a failed pass does not move the place in the stream", async () => {
  const error = new ServiceError("unreachable", "no");
  const { client, asked } = clientOf([{ rows: [], date: new Date(AT) }, { rows: [], error }, { rows: [] }]);
  const watch = createWatch(client, () => AT);
  const observed = wait("a", { observedAt: new Date(AT) });
  await watch([observed]);
  await expect(watch([observed])).rejects.toBe(error);
  await watch([observed]);
  expect(asked[2]).toBe(asked[1]);
});

it("tells settled, gone and still going apart", async () => {
  const rows = [
    server("done", "ACTIVE"),
    server("failed", "ERROR"),
    server("gone", "DELETED"),
    server("bin", "SOFT_DELETED"),
    server("between", "BUILD"),
    server("busy", "ACTIVE", "powering-off"),
    server("hidden", "UNKNOWN"),
  ];
  const { client } = clientOf([{ rows }]);
  const ids = [...rows.map((row) => row.id), "unlisted"];
  const seen = await createWatch(client, () => AT)(ids.map((id) => wait(id)));
  const outcomes = Object.fromEntries(seen.map(({ waitId, result }) => [waitId, result?.outcome ?? "open"]));
  expect(outcomes).toEqual({
    done: "settled",
    failed: "settled",
    gone: "gone",
    bin: "gone",
    between: "open",
    busy: "open",
    hidden: "open",
    // Not among the changes though nobody has looked at it: verify must ask for the server itself.
    unlisted: "settled",
  });
});

it("a condition of another version is left to verify", async () => {
  const { client } = clientOf([{ rows: [] }]);
  const [seen] = await createWatch(client, () => AT)([wait("a", { condition: { kind: "later" } })]);
  expect(seen?.result).toMatchObject({ outcome: "settled" });
});

it.each([
  ["ACTIVE", null, "active", false],
  ["BUILD", "scheduling", "building", true],
  // Between scheduling and networking there is no task for a moment.
  ["BUILD", null, "building", true],
  ["RESIZE", "resize_prep", "resizing", true],
  ["VERIFY_RESIZE", null, "verify_resize", false],
  ["VERIFY_RESIZE", "resize_confirming", "verify_resize", true],
  ["REVERT_RESIZE", "resize_reverting", "resizing", true],
  ["MIGRATING", "migrating", "active", true],
  ["REBOOT", "rebooting", "active", true],
  ["PASSWORD", "updating_password", "active", true],
  ["SHUTOFF", null, "stopped", false],
  ["SHELVED_OFFLOADED", null, "stopped", false],
  ["PAUSED", null, "paused", false],
  ["SUSPENDED", null, "suspended", false],
  ["RESCUE", null, "rescue", false],
  ["ACTIVE", "deleting", "deleting", true],
  ["SOFT_DELETED", null, "deleted", false],
  ["DELETED", null, "deleted", false],
  ["ERROR", null, "error", false],
  ["UNKNOWN", null, "unknown", false],
  ["SOMETHING_NEW", null, "unknown", false],
] as const)("%s with task %s is %s, busy: %s", (status, task, state, busy) => {
  const row = server("a", status, task);
  expect([stateOf(row), isBusy(row)]).toEqual([state, busy]);
});

it("a server of an unreachable cell needs no more than its id", () => {
  const row = NovaServer.parse({
    id: "a",
    status: "UNKNOWN",
    tenant_id: "t",
    created: "2026-01-01T00:00:00Z",
    links: [],
  });
  expect(stateOf(row)).toBe("unknown");
});
