/** What is said of a rebuild before it is begun, and where it cannot be; how it goes: test/clouds/pve/rebuild*.test.ts. */
import { afterAll, beforeAll, expect, it } from "vitest";
import { planRebuild } from "../../../src/clouds/pve/rebuild.ts";
import type { Database } from "../../../src/database/client.ts";
import { testDatabase } from "../../support/database.ts";
import { ed25519Key } from "../../support/ssh-key.ts";
import { createWorld, type World } from "../../support/world.ts";

let database: Database;
let world: World;

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

it("is refused in a sentence on a cloud that has no such procedure", async () => {
  for (const [action, options] of [
    ["server.rebuild", { server: "web-1", image: "debian-12" }],
    ["server.reinstall", { server: "web-1" }],
  ] as const) {
    await expect(world.ask(world.ada, action, options)).rejects.toMatchObject({
      code: "unsupported",
      message: expect.stringMatching(
        /^web-1 \(srv-.*cannot be (?:rebuilt|reinstalled): its cloud has no such thing/u,
      ),
    });
  }
});

it("begins with a check and a number for the new system, and deletes the old system last, or in place first", () => {
  const order = {
    externalId: "100000",
    name: "web-1",
    size: { vcpus: 1, memoryMib: 1024, diskGib: 10 },
    imageId: "n1/9000",
    passwordSecretId: "secret",
    defaultUser: null,
    sshKeys: [ed25519Key()],
  };
  const names = (inPlace: boolean) => planRebuild({ ...order, inPlace }).map((step) => step.name);
  expect(names(false)).toEqual([
    "pve.rebuild_check",
    "pve.reserve",
    "pve.clone",
    "pve.configure",
    "pve.take_over",
    "pve.resize_disk",
    "pve.retire_halt",
    "pve.autostart",
    "pve.start_new",
    "pve.verify",
    "pve.switch",
    "pve.retire",
  ]);
  expect(names(true)).toEqual([
    "pve.rebuild_check",
    "pve.reserve",
    "pve.retire_halt",
    "pve.retire",
    "pve.clone",
    "pve.configure",
    "pve.take_over",
    "pve.resize_disk",
    "pve.autostart",
    "pve.start_new",
    "pve.verify",
    "pve.switch",
  ]);
});
