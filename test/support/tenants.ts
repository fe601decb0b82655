/**
 * Three customers' worth of everything that must not cross over: servers, operations in every kind of state, threads,
 * buttons, secrets, events, each with strings that occur nowhere else, so that a leak is found by looking for them.
 */
import { randomUUID } from "node:crypto";
import { type Principal, type StaffRole, staffRoles } from "../../src/core/access.ts";
import { needAttention } from "../../src/core/operations/end.ts";
import { type OperationRow, operationColumns } from "../../src/core/operations/rows.ts";
import { makeLinkCode } from "../../src/core/people/link.ts";
import type { Answer } from "../../src/core/request.ts";
import type { Database } from "../../src/database/client.ts";
import { newId, newPublicId } from "../../src/database/id.ts";
import { createWorld, policies, type World } from "./world.ts";

export type CustomerPrincipal = Principal & { kind: "customer" };

export interface Tenants {
  world: World;
  ada: CustomerPrincipal;
  bob: CustomerPrincipal;
  carol: CustomerPrincipal;
  customers: readonly CustomerPrincipal[];
  staff: Readonly<Record<StaffRole, Principal>>;
  /** Its channel is its own: customers talk in `dm-<ref>`, staff in `team`. */
  ask(
    principal: Principal,
    action: string,
    options: Record<string, string>,
    more?: { dryRun?: boolean; key?: string },
  ): Promise<Answer>;
  /** Asks and runs it until it rests. */
  run(principal: Principal, action: string, options: Record<string, string>): Promise<OperationRow>;
  /**
   * Ada's once, renamed and Bob's by now. An operation of Ada's on the first waits for attention; on the second the team
   * has given it up since.
   */
  sold: readonly Sold[];
}

export interface Sold {
  serverId: string;
  publicId: string;
  operation: OperationRow;
}

/** In whatever staff alone may read. */
export const STAFF_CANARY = "ZQDETAIL";

export async function createTenants(database: Database): Promise<Tenants> {
  const world = await createWorld({
    database,
    engine: {
      policies: {
        ...policies,
        alertChannels: [{ platform: "console", workspace: "local", channel: "zq-alerts" }],
        operationChannels: [{ platform: "console", workspace: "local", channel: "zq-operations" }],
      },
    },
  });
  const base = { world, ...(await people(world)) };
  const ask = askerOf(world);
  const run: Tenants["run"] = async (principal, action, options) => {
    const answer = await ask(principal, action, options);
    if (answer.kind !== "operation") throw new Error(`${action} answered ${JSON.stringify(answer)}`);
    return world.settle(answer.operationId);
  };
  const tenants = { ...base, ask, run };
  for (const customer of tenants.customers) {
    await database.sql(
      `INSERT INTO endpoints (id, name, url, event_types, customer_id, secret_id)
       VALUES ($1, $2, 'https://zq.example/', ARRAY['*'], $3, $1)`,
      [newId(), `of-${customer.id}`, customer.customerId],
    );
  }
  await provisionAll(tenants);
  for (const customer of tenants.customers) await operate(tenants, customer);
  const sold = [await sell(tenants, "a"), await sell(tenants, "b")];
  await ask(tenants.staff.operator, "ops.abandon", { operation: sold[1]?.operation.publicId ?? "" });
  await run(tenants.staff.operator, "sync.run", { type: "servers" });
  await database.sql(
    `INSERT INTO servers (id, public_id, customer_id, cloud_id, external_id, name, state, vcpus, memory_mib, disk_gib, addresses)
     SELECT $1, 'srv-nzbzdzys', NULL, c.id, $2, 'zq-nobodys', 'active', 1, 512, 10, ARRAY['10.99.99.99'] FROM clouds c`,
    [newId(), randomUUID()],
  );
  await database.sql(
    `UPDATE servers SET provider_status = 'ZQSTATUS-' || public_id, provider_data = provider_data || jsonb_build_object(
       'zqNode', 'ZQNODE-' || public_id, 'zqStorages', jsonb_build_array('ZQSTORAGE-' || public_id))`,
  );
  await database.sql(
    `INSERT INTO snapshots (id, server_id, name, description, with_memory, taken_at, synced_at)
     SELECT gen_random_uuid(), id, 'zqsnap-' || substr(public_id, 5), 'ZQ why ' || public_id, false, clock(), clock() FROM servers`,
  );
  await linkIdentities(base);
  await countTraffic(base);
  return { ...tenants, sold };
}

/** Of every server, and of one of each that is deleted; what was sold has months of both. */
async function countTraffic({ world, customers, ada }: Pick<Tenants, "world" | "customers" | "ada">) {
  const { database } = world;
  for (const customer of customers) {
    await database.sql(
      `INSERT INTO servers (id, public_id, customer_id, cloud_id, external_id, name, state, vcpus, memory_mib, disk_gib, addresses, deleted_at)
       SELECT $1, $2, $3, c.id, $4, $5, 'deleted', 1, 512, 10, '{}', clock() FROM clouds c`,
      [newId(), newPublicId("srv"), customer.customerId, randomUUID(), `zq-${shortOf(customer)}-gone`],
    );
  }
  await database.sql(
    `INSERT INTO traffic_counters (server_id, external_id, uptime_s, in_bytes, out_bytes, measured_at)
     SELECT id, external_id, 60, 1, 1, clock() FROM servers`,
  );
  const owners = `SELECT id AS server_id, customer_id, 1 AS nth FROM servers
    UNION ALL SELECT id, $1::uuid, 2 FROM servers WHERE name LIKE 'zq-bought-by-bob-%'`;
  const gib = 2 ** 30;
  // Figures that occur nowhere else: facts of whoever they were counted for.
  await database.sql(
    `INSERT INTO traffic_months (id, server_id, customer_id, month, in_bytes, out_bytes, counted_from)
     SELECT gen_random_uuid(), server_id, customer_id, date_trunc('month', clock() AT TIME ZONE 'UTC')::date,
       (70000 + row_number() OVER (ORDER BY server_id, nth)) * ${gib}, 0, clock() FROM (${owners}) o`,
    [ada.customerId],
  );
  await database.sql(
    `INSERT INTO traffic_gaps (id, server_id, customer_id, from_at, to_at, kind, cause, in_bytes, out_bytes)
     SELECT gen_random_uuid(), server_id, customer_id, clock() - interval '1 day', clock(), 'carried', 'us',
       (80000 + row_number() OVER (ORDER BY server_id, nth)) * ${gib}, 0 FROM (${owners}) o`,
    [ada.customerId],
  );
}

/** Each has one chat account by the configuration and one by a code, and a code that nobody has used. */
async function linkIdentities({ world, customers }: Pick<Tenants, "world" | "customers">): Promise<void> {
  for (const customer of customers) {
    for (const [platform, source] of [
      ["slack", "configuration"],
      ["discord", "code"],
    ]) {
      await world.database.sql(
        `INSERT INTO identities (id, customer_id, platform, user_id, source) VALUES ($1, $2, $3, $4, $5)`,
        [newId(), customer.customerId, platform, `ZQUSER-${platform}-${customer.id}`, source],
      );
    }
    await world.database.transaction((tx) =>
      makeLinkCode(tx, { id: customer.customerId }, { id: "zqstaff-operator" }),
    );
  }
}

async function people(world: World) {
  const ids = { ada: world.ada.customerId, bob: world.bob.customerId, carol: newId() };
  await world.database.sql(`INSERT INTO customers (id, ref, name) VALUES ($1, 'carol', 'Carol')`, [
    ids.carol,
  ]);
  const customer = async (short: keyof typeof ids): Promise<CustomerPrincipal> => {
    const ref = `zqref-${short}`;
    const name = `Zq${short} Zq${short}son`;
    await world.database.sql(`UPDATE customers SET ref = $2, name = $3, email = $4 WHERE id = $1`, [
      ids[short],
      ref,
      name,
      `zqmail.${short}@zq.example`,
    ]);
    return { kind: "customer", id: ref, name, customerId: ids[short] };
  };
  const [ada, bob, carol] = [await customer("ada"), await customer("bob"), await customer("carol")];
  const staff = Object.fromEntries(
    staffRoles.map((role) => [
      role,
      { kind: "staff", id: `zqstaff-${role}`, name: `Zqteam Zq${role}`, role },
    ]),
  ) as Record<StaffRole, Principal>;
  return { ada, bob, carol, customers: [ada, bob, carol], staff };
}

function askerOf(world: World): Tenants["ask"] {
  return (principal, action, options, { dryRun = false, key = `test:${randomUUID()}` } = {}) =>
    world.entrance.dispatch({
      action,
      options,
      principal,
      source: "console",
      idempotencyKey: key,
      dryRun,
      origin: {
        platform: "console",
        workspace: "local",
        channel: principal.kind === "customer" ? `dm-${principal.id}` : "team",
        userId: principal.id,
      },
    });
}

type Seeding = Omit<Tenants, "sold">;

function shortOf(customer: CustomerPrincipal): string {
  return customer.id.replace("zqref-", "");
}

async function provisionAll({ world, customers, staff, ada, ask }: Seeding): Promise<void> {
  const asked: Answer[] = [];
  const order = { plan: "s", image: "debian-12" };
  for (const customer of customers) {
    const short = shortOf(customer);
    const forThem = { ...order, customer: customer.id };
    const metadata = `zqkey${short}=zqvalue${short}`;
    asked.push(
      await ask(staff.operator, "server.provision", { ...forThem, name: `zq-${short}-one`, metadata }),
    );
    // A name that each of them has.
    asked.push(await ask(customer, "server.provision", { ...order, name: "web-1" }));
    const bad = { ...forThem, name: `zq-${short}-bad`, metadata: "osr_fail=spawn" };
    asked.push(await ask(staff.operator, "server.provision", bad));
  }
  asked.push(await ask(ada, "server.provision", { ...order, name: "zq-on-sale-a" }));
  asked.push(await ask(ada, "server.provision", { ...order, name: "zq-on-sale-b" }));
  for (const answer of asked) {
    if (answer.kind !== "operation") throw new Error(`not provisioned: ${JSON.stringify(answer)}`);
    await world.settle(answer.operationId);
  }
}

/** Operations of the customer's and of the team's, ended well and badly, waiting, in doubt, with names in their threads. */
async function operate({ world, staff, ask, run }: Seeding, customer: CustomerPrincipal): Promise<void> {
  const one = `zq-${shortOf(customer)}-one`;
  const operator = staff.operator;
  const byTeam = await publicIdOf(world, customer, one);
  await run(operator, "server.password", { server: byTeam });
  await run(customer, "server.password", { server: "web-1" });
  await run(customer, "server.power", { server: one, action: "stop" });
  // Waits for a confirmation by the team.
  await ask(staff.admin, "server.delete", { server: byTeam });
  // Cancelled by the team, then tried again by it.
  const start = await ask(customer, "server.power", { server: one, action: "start" });
  if (start.kind !== "operation") throw new Error("no operation");
  await ask(operator, "ops.cancel", { operation: start.publicId });
  const [retry] = await world.database.sql<{ token: string }>(
    `SELECT token FROM capabilities WHERE operation_id = $1 AND action = 'ops.retry'`,
    [start.operationId],
  );
  await world.entrance.press(retry?.token ?? "", operator, "console");
  const stuck = await ask(customer, "server.power", { server: "web-1", action: "reboot" });
  if (stuck.kind !== "operation") throw new Error("no operation");
  await putInDoubt(world, stuck.operationId);
}

async function publicIdOf(world: World, customer: CustomerPrincipal, name: string): Promise<string> {
  const rows = await world.database.sql<{ publicId: string }>(
    `SELECT public_id AS "publicId" FROM servers WHERE customer_id = $1 AND name = $2 AND deleted_at IS NULL`,
    [customer.customerId, name],
  );
  if (rows[0] === undefined) throw new Error(`${customer.id} has no server ${name}`);
  return rows[0].publicId;
}

async function putInDoubt(world: World, operationId: string): Promise<OperationRow> {
  await world.database.transaction(async (tx) => {
    const [row] = await tx.sql<OperationRow>(`SELECT ${operationColumns} FROM operations o WHERE o.id = $1`, [
      operationId,
    ]);
    if (row === undefined) throw new Error(`no operation ${operationId}`);
    await needAttention(world.engine, tx, row, {
      code: "unknown_outcome",
      message: "It is unknown whether this was done.",
      staffDetail: `os1: ${STAFF_CANARY} of ${row.publicId} (request req-${randomUUID()})`,
    });
  });
  return world.operation(operationId);
}

async function sell({ world, ada, bob, ask }: Seeding, which: string): Promise<Sold> {
  const answer = await ask(ada, "server.power", { server: `zq-on-sale-${which}`, action: "reboot" });
  if (answer.kind !== "operation") throw new Error("no operation");
  const operation = await putInDoubt(world, answer.operationId);
  const [row] = await world.database.sql<{ serverId: string; publicId: string }>(
    `UPDATE servers SET customer_id = $2, name = $3 WHERE id = $1
     RETURNING id AS "serverId", public_id AS "publicId"`,
    [operation.serverId, bob.customerId, `zq-bought-by-bob-${which}`],
  );
  if (row === undefined) throw new Error("nothing was sold");
  return { ...row, operation };
}
