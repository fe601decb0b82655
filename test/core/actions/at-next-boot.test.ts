/** What only some clouds can do, asked of one that cannot: said in a sentence when it is planned. On PVE: test/clouds/pve. */
import { afterAll, beforeAll, expect, it } from "vitest";
import { serverKeys } from "../../../src/core/actions/keys.ts";
import { serverRestart } from "../../../src/core/actions/restart.ts";
import type { Database } from "../../../src/database/client.ts";
import { testDatabase } from "../../support/database.ts";
import { ed25519Key } from "../../support/ssh-key.ts";
import { createWorld, type World } from "../../support/world.ts";

let database: Database;
let world: World;
const WEB = { server: "web-1" };

beforeAll(async () => {
  database = await testDatabase();
  world = await createWorld({ database });
  await world.run(world.sam, "server.provision", {
    name: "web-1",
    customer: "ada",
    plan: "s",
    image: "debian-12",
  });
});
afterAll(async () => {
  await world.close();
  await database.close();
});

it("a resize on flavors takes no sockets, and does not put its restart off", async () => {
  const { ask, sam, ada } = world;
  await expect(ask(sam, "server.resize", { ...WEB, sockets: "2" })).rejects.toMatchObject({
    code: "unsupported",
    message: "os1 takes no sockets: leave it out.",
    facts: { option: "sockets" },
  });
  await expect(ask(ada, "server.resize", { ...WEB, plan: "m", restart: "later" })).rejects.toMatchObject({
    code: "unsupported",
    message: "This server's cloud restarts a server when it resizes it. Leave restart: out.",
    facts: { option: "restart" },
  });
});

it("nothing waits there for a stop and start, and keys are for a new server alone", async () => {
  const { ask, ada } = world;
  await expect(ask(ada, "server.restart", WEB)).rejects.toMatchObject({
    code: "unsupported",
    message: expect.stringMatching(/Use \/server power with action:reboot\.$/u),
  });
  await expect(ask(ada, "server.keys", { ...WEB, keys: ed25519Key() })).rejects.toMatchObject({
    code: "unsupported",
    message: expect.stringMatching(/takes keys only when a server is made\. Add them inside it/u),
  });
});

it("there is no CD drive for an ISO there, and addresses are the cloud's own to give", async () => {
  const { ask, ada, sam } = world;
  for (const [command, options] of [
    ["iso.mount", { iso: "debian-13" }],
    ["iso.unmount", {}],
    ["iso.list", {}],
  ] as const) {
    await expect(ask(ada, command, { ...WEB, ...options }), command).rejects.toMatchObject({
      code: "unsupported",
      message: "This server's cloud has no CD drive that we can put an ISO into.",
    });
  }
  for (const [command, options] of [
    ["ip.assign", { ip: "192.0.2.10/24" }],
    ["ip.release", {}],
  ] as const) {
    await expect(ask(sam, command, { ...WEB, ...options }), command).rejects.toMatchObject({
      code: "unsupported",
      message: expect.stringMatching(/gives its servers their addresses itself/u),
    });
  }
});

it("steps are not empty, but refused, for a cloud that lost what the plan counted on", () => {
  const { cloud, clouds } = world;
  const plan = {
    title: "",
    serverId: null,
    customerId: null,
    cloud: cloud.name,
    lockKey: "",
    before: {},
    after: {},
    downtime: null,
    irreversible: [],
    notes: [],
    dataAsOf: null,
  };
  const details = {
    restart: { externalId: "1", plan: null },
    keys: { externalId: "1", publicId: "srv-1", sshKeys: [] },
  };
  for (const [action, known] of [
    [serverRestart, details.restart],
    [serverKeys, details.keys],
  ] as const) {
    if (action.kind !== "operation") throw new Error("it is an operation");
    expect(() => action.steps({ ...plan, details: known }, clouds)).toThrow(
      expect.objectContaining({
        code: "unsupported",
        message: expect.stringContaining("cloud of this server"),
      }),
    );
  }
});

it("a server that is off takes no password there", async () => {
  const { run, ask, ada } = world;
  await run(ada, "server.power", { ...WEB, action: "stop" });
  await expect(ask(ada, "server.password", WEB)).rejects.toMatchObject({
    code: "wrong_state",
    message: expect.stringMatching(
      /is stopped, so it cannot be given a new password now\. It can when it is active\.$/u,
    ),
  });
});

it("a server that billing has suspended is not restarted", async () => {
  await database.sql(`UPDATE servers SET suspended_at = clock()`);
  const cloud = { ...world.cloud, restart: () => [] };
  const clouds = { get: () => cloud, list: () => [cloud] };
  if (serverRestart.kind !== "operation") throw new Error("it is an operation");
  const context = {
    database,
    principal: world.ada,
    source: "console" as const,
    engine: { ...world.engine, clouds },
  };
  await expect(serverRestart.plan(context, WEB)).rejects.toMatchObject({
    code: "wrong_state",
    message: expect.stringMatching(/is suspended by billing, so it cannot be restarted\.$/u),
  });
});
