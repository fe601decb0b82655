import { afterAll, beforeAll, expect, it } from "vitest";
import type { Database } from "../../../src/database/client.ts";
import { testDatabase } from "../../support/database.ts";
import { createWorld, type World } from "../../support/world.ts";

let database: Database;
let world: World;
beforeAll(async () => {
  database = await testDatabase();
  world = await createWorld({ database });
});
afterAll(async () => {
  await world.close();
  await database.close();
});

it("lists a server that was ordered and not yet begun, which has no address", async () => {
  const { ask, sam, ada } = world;
  await ask(sam, "server.provision", { name: "web-1", plan: "s", image: "debian-12", customer: "ada" });
  for (const principal of [sam, ada]) {
    expect(await ask(principal, "server.list")).toMatchObject({
      kind: "view",
      view: {
        table: {
          rows: [
            [
              "web-1",
              expect.stringContaining("srv-"),
              "pending",
              "s",
              "-",
              ...(principal === sam ? ["Ada", "os1"] : []),
            ],
          ],
        },
      },
    });
  }
  const [created] = await world.events();
  expect(created).toMatchObject({ type: "server.created", data: { server: { addresses: [] } } });
});

it("does not take a mistyped customer for one without servers, nor a filter for an empty house", async () => {
  const { ask, sam } = world;

  await expect(ask(sam, "server.list", { customer: "nobody" })).rejects.toMatchObject({
    code: "not_found",
    message: expect.stringContaining('No customer "nobody".'),
  });
  expect(await ask(sam, "server.list", { state: "paused" })).toMatchObject({
    view: { table: { rows: [], empty: "No server matches." } },
  });
});
