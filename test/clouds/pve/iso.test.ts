/** ISO images in a server's CD drive, and out of it: what counts at once, what waits, and that nothing else of the VM is touched. */
import { describe, expect, it } from "vitest";
import { renderCard } from "../../../src/core/operations/card.ts";
import { useStage } from "../../support/stage.ts";
import { createScene, OLD, type Scene } from "./rebuild-scene.ts";

const stage = useStage();

const ISO = "local:iso/rescue.iso";
const ISOS = { "debian-13": ISO, gone: "local:iso/gone.iso", elsewhere: "nowhere:iso/x.iso" };
const PUT = "PUT /nodes/{node}/qemu/{vmid}/config";
const DEBIAN = { iso: "debian-13" };

async function open(
  client: { rescueIso?: string; isos?: Record<string, string> } = { isos: ISOS },
): Promise<Scene> {
  return stage.keep(await createScene({ database: stage.database, client }));
}

/** What of it an ISO may change. */
function traceOf(at: Scene) {
  const { config = {}, description, pending, pendingDelete } = { pendingDelete: [], ...at.vm(OLD) };
  const drives = Object.keys(config).filter((key) => /^(?:ide|sata)\d/u.test(key));
  return { boot: config["boot"], drives, description, pending, pendingDelete };
}

async function restart(at: Scene, operationId: string): Promise<void> {
  const [button] = await stage.database.sql<{ token: string }>(
    `SELECT token FROM capabilities WHERE operation_id = $1 AND action = 'server.restart' AND used_at IS NULL`,
    [operationId],
  );
  const answer = await at.entrance.press(button?.token ?? "", at.sam, "console");
  if (answer.kind !== "operation") throw new Error(JSON.stringify(answer));
  expect(await at.finish(answer.operationId)).toMatchObject({ state: "succeeded" });
}

describe("an ISO", () => {
  it("gets a new drive that a running server has after a real restart, never the cloud-init drive's slot", async () => {
    const at = await open();
    const before = traceOf(at);
    const operation = await at.order("iso.mount", DEBIAN, at.ada);
    expect(operation).toMatchObject({ state: "succeeded", problem: null });
    expect(at.changes()).toEqual([PUT, PUT, PUT]);
    expect((await at.lines(operation.id)).at(-1)).toBe(
      "It gets a CD drive with debian-13 when it has been stopped and started; a restart from inside is not enough.",
    );
    expect(at.vm(OLD)).toMatchObject({ pending: { ide0: expect.stringContaining(ISO) } });
    const { view } = await renderCard(stage.database, operation.id, "customer");
    expect(view.buttons?.map(({ label }) => label)).toEqual(["Stop and start it now"]);
    await restart(at, operation.id);
    expect(at.vm(OLD)).toMatchObject({
      status: "running",
      pending: {},
      config: {
        boot: "order=scsi0",
        ide0: expect.stringContaining(ISO),
        ide2: expect.stringMatching(/cloudinit/u),
      },
      // Its own system has booted.
      guest: { boots: 2 },
    });
    at.changes();
    const out = await at.order("iso.unmount", {}, at.ada);
    expect(out).toMatchObject({ state: "succeeded", problem: null });
    expect(at.changes()).toEqual([PUT, PUT, PUT]);
    expect((await at.lines(out.id)).at(-1)).toBe("The ISO is out of its CD drive.");
    expect(traceOf(at)).toEqual({ ...before, drives: [...before.drives, "ide0"] });
    expect(at.vm(OLD)?.config["ide0"]).toBe("none,media=cdrom");
    expect((await at.events()).map(({ type }) => type)).toEqual(
      expect.arrayContaining(["server.iso.mounted", "server.iso.unmounted"]),
    );
  });
});
