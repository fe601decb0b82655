/** Fixed addresses of servers that are there: given, taken back, and never to two of them. */
import { describe, expect, it } from "vitest";
import { renderCard } from "../../../src/core/operations/card.ts";
import { runSync } from "../../../src/core/sync/run.ts";
import { useStage } from "../../support/stage.ts";
import { silent } from "../../support/world.ts";
import { openTimedWorld, type TimedWorld } from "./timed-world.ts";
import { BUILD } from "./world.ts";

const WEB = { server: "web-1" };
const IP = { ip: "192.0.2.10/24", gateway: "192.0.2.1" };
const ASSIGN = { ...WEB, ...IP };
const stage = useStage();

/** With web-1 of Ada, which runs. */
async function open(build: Record<string, string> = {}): Promise<TimedWorld> {
  const world = stage.keep(await openTimedWorld({ database: stage.database }));
  await world.order("server.build", { ...BUILD, ...build });
  world.changes();
  return world;
}

async function sync(at: TimedWorld): Promise<void> {
  await at.time.later(1_000);
  await runSync({
    database: stage.database,
    cloud: at.cloud,
    resource: "servers",
    requester: "test",
    log: silent,
  });
}

async function shown(at: TimedWorld): Promise<Record<string, string>> {
  const answer = await at.ask(at.ada, "server.show", WEB);
  if (answer.kind !== "view") throw new Error(JSON.stringify(answer));
  return Object.fromEntries((answer.view.fields ?? []).map(({ label, value }) => [label, value]));
}

describe("an address", () => {
  it("is set at once, is the guest's from its next boot on, and is shown so until then", async () => {
    const at = await open();
    const [dhcp = ""] = (await at.row()).addresses;
    const operation = await at.order("ip.assign", ASSIGN);
    expect(operation).toMatchObject({ state: "succeeded", problem: null });
    expect(at.changes()).toEqual(["PUT V/config", "PUT V/cloudinit"]);
    expect(at.vm().config["ipconfig0"]).toBe("ip=192.0.2.10/24,gw=192.0.2.1");
    expect((await at.lines(operation.id)).at(-1)).toBe(
      "It has the address 192.0.2.10/24 from its next boot on, if the guest's cloud-init takes it then; not before.",
    );
    const { view } = await renderCard(stage.database, operation.id, "customer");
    expect(view.fields).toContainEqual({ label: "Address", value: `${dhcp} → 192.0.2.10/24` });
    await sync(at);
    expect(await shown(at)).toMatchObject({ Addresses: dhcp, "From its next boot on": "192.0.2.10" });
    const [offered] = await at.offersOf(operation.id);
    expect(offered?.action).toBe("server.restart");
    const answer = await at.entrance.press(offered?.token ?? "", at.sam, "console");
    if (answer.kind !== "operation") throw new Error(JSON.stringify(answer));
    await at.rest(answer.operationId);
    await sync(at);
    const fields = await shown(at);
    expect(fields).toMatchObject({ Addresses: "192.0.2.10" });
    expect(fields).not.toHaveProperty("From its next boot on");
    const events = await at.events();
    expect(events.filter(({ type }) => type === "server.ip.assigned").map(({ data }) => data)).toEqual([
      expect.objectContaining({ address: "192.0.2.10/24", gateway: "192.0.2.1" }),
    ]);
  });
});
