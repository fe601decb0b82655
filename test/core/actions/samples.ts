/**
 * One sample of each action, in an order in which they can all be done: what a newly added action needs to be seen by the
 * tests that run everything there is.
 */
import type { Principal } from "../../../src/core/access.ts";
import type { ErrorCode } from "../../../src/core/errors.ts";
import { needAttention } from "../../../src/core/operations/end.ts";
import { type OperationRow, operationColumns } from "../../../src/core/operations/rows.ts";
import { newId } from "../../../src/database/id.ts";
import { ed25519Key } from "../../support/ssh-key.ts";
import type { CloudWorld } from "../../support/world.ts";

export interface Stage {
  world: CloudWorld;
  /** Who asks. */
  who: Principal;
}

export interface Sample {
  action: string;
  options: Record<string, string> | ((stage: Stage) => Promise<Record<string, string>>);
  /** It is right to refuse this one, so. */
  refused?: ErrorCode;
}

/** Of the customer Ada; `web-1` lives to the end, `web-2` is deleted before. */
export const samples: readonly Sample[] = [
  {
    action: "server.provision",
    options: (stage) => forAda(stage, { name: "web-1", plan: "s", image: "debian-12" }),
  },
  {
    action: "server.build",
    options: { name: "web-2", customer: "ada", plan: "s", image: "debian-12" },
  },
  { action: "server.list", options: {} },
  { action: "server.show", options: { server: "web-1" } },
  { action: "server.usage", options: { server: "web-1" } },
  { action: "server.bandwidth", options: { server: "web-1", allowance: "2048" } },
  { action: "server.resize", options: { server: "web-1", plan: "m" } },
  { action: "server.power", options: { server: "web-1", action: "reboot" } },
  { action: "server.restart", options: { server: "web-1" } },
  { action: "server.password", options: { server: "web-1" } },
  { action: "server.console", options: { server: "web-1" } },
  { action: "server.keys", options: { server: "web-1", keys: ed25519Key() } },
  { action: "iso.list", options: { server: "web-1" } },
  { action: "iso.mount", options: { server: "web-1", iso: "help-disk" } },
  { action: "iso.unmount", options: { server: "web-1" } },
  {
    action: "ip.assign",
    options: { server: "web-1", ip: "192.0.2.10/24", gateway: "192.0.2.1" },
  },
  { action: "ip.release", options: { server: "web-1" } },
  {
    action: "ip.assign",
    options: { server: "web-1", ip: "192.0.2.10/24", gateway: "192.0.2.1" },
  },
  { action: "ip.release", options: { server: "web-1" } },
  { action: "snapshot.create", options: { server: "web-1", name: "before-it" } },
  { action: "snapshot.list", options: { server: "web-1" } },
  { action: "snapshot.rollback", options: { server: "web-1", snapshot: "before-it" } },
  { action: "snapshot.delete", options: { server: "web-1", snapshot: "before-it" } },
  { action: "server.rescue", options: { server: "web-1" } },
  { action: "server.unrescue", options: { server: "web-1" } },
  { action: "server.rebuild", options: { server: "web-1", image: "debian-12" } },
  { action: "server.reinstall", options: { server: "web-1" } },
  { action: "ops.list", options: {} },
  { action: "ops.show", options: async (stage) => ({ operation: (await lastOf(stage)).publicId }) },
  { action: "ops.cancel", options: async (stage) => ({ operation: (await asked(stage)).publicId }) },
  { action: "ops.retry", options: async (stage) => ({ operation: (await inDoubt(stage)).publicId }) },
  {
    action: "ops.adopt",
    // Its step was never begun, so that there is nothing to be said of it.
    options: async (stage) => ({ operation: (await inDoubt(stage)).publicId }),
    refused: "wrong_state",
  },
  { action: "ops.abandon", options: async (stage) => ({ operation: (await lastOf(stage)).publicId }) },
  { action: "sync.run", options: { type: "servers" } },
  { action: "sync.status", options: {} },
  { action: "cloud.list", options: {} },
  {
    action: "cloud.maintenance",
    async options({ world }) {
      // A customer who may not end it would be kept from all that comes after.
      await world.ask(world.rita, "cloud.maintenance", { cloud: world.cloud.name, state: "on" });
      return { cloud: world.cloud.name, state: "off" };
    },
  },
  { action: "link", options: { code: "ABCD-EFGH-JKMN-PQRS" }, refused: "conflict" },
  { action: "account.show", options: (stage) => forAda(stage, {}) },
  { action: "account.code", options: { customer: "ada" } },
  {
    action: "account.unlink",
    async options(stage) {
      await stage.world.database.sql(
        `INSERT INTO identities (id, customer_id, platform, user_id, source) VALUES ($1, $2, 'slack', 'UADA', 'code')`,
        [newId(), stage.world.ada.customerId],
      );
      return forAda(stage, { identity: "slack:UADA" });
    },
  },
  // Only a customer has these two; their own sample is in test/core/people/step-up.test.ts.
  { action: "account.secure", options: {}, refused: "forbidden" },
  { action: "account.verify", options: { code: "123456" }, refused: "forbidden" },
  {
    action: "account.unsecure",
    options: (stage) => forAda(stage, {}),
    refused: "nothing_to_change",
  },
  { action: "help", options: { topic: "server resize" } },
  {
    action: "ops.confirm",
    async options(stage) {
      const { world } = stage;
      const answer = await world.ask(world.rita, "server.delete", { server: "web-2" });
      return { operation: answer.kind === "operation" ? answer.publicId : "" };
    },
  },
  { action: "server.protect", options: { server: "web-1" } },
  { action: "server.undelete", options: { server: "web-1" }, refused: "nothing_to_change" },
  {
    action: "server.delete",
    async options(stage) {
      await stage.world.run(stage.world.sam, "server.protect", { server: "web-1", on: "no" });
      return { server: "web-1" };
    },
  },
];

/** Staff say for whom; a customer does not. */
function forAda({ who }: Stage, options: Record<string, string>): Promise<Record<string, string>> {
  return Promise.resolve(who.kind === "customer" ? options : { ...options, customer: "ada" });
}

async function lastOf({ world, who }: Stage): Promise<OperationRow> {
  const [row] = await world.database.sql<OperationRow>(
    `SELECT ${operationColumns} FROM operations o WHERE o.requester_id = $1 ORDER BY o.created_at DESC, o.id DESC LIMIT 1`,
    [who.id],
  );
  if (row === undefined) throw new Error(`${who.id} has asked for no operation`);
  return row;
}

/** Entered, and not begun. */
async function asked({ world, who }: Stage): Promise<OperationRow> {
  const answer = await world.ask(who, "server.power", { server: "web-1", action: "reboot" });
  if (answer.kind !== "operation") throw new Error(JSON.stringify(answer));
  return world.operation(answer.operationId);
}

async function inDoubt(stage: Stage): Promise<OperationRow> {
  const row = await asked(stage);
  await stage.world.database.transaction((tx) =>
    needAttention(stage.world.engine, tx, row, {
      code: "unknown_outcome",
      message: "It is unknown whether this was done.",
    }),
  );
  return stage.world.operation(row.id);
}

export async function optionsOf(sample: Sample, stage: Stage): Promise<Record<string, string>> {
  return typeof sample.options === "function" ? await sample.options(stage) : sample.options;
}
