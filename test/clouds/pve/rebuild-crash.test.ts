/** A worker dies at each moment of a rebuild and of its undoing: another one ends it, with one system that runs. */
import { describe, expect, it } from "vitest";
import type { OperationRow } from "../../../src/core/operations/rows.ts";
import { useStage } from "../../support/stage.ts";
import { type Campaign, surviveDeaths } from "./deaths.ts";
import {
  createScene,
  expectOne,
  fillUp,
  OLD,
  type Scene,
  type SceneOptions,
  TIGHT,
  UBUNTU,
} from "./rebuild-scene.ts";

const stage = useStage();

async function open(options: Omit<SceneOptions, "database"> = {}): Promise<Scene> {
  return stage.keep(await createScene({ database: stage.database, ...options }));
}

describe("a worker that dies during a rebuild", () => {
  interface Case extends Pick<Campaign, "state" | "every"> {
    options?: Omit<SceneOptions, "database">;
    order: Record<string, string>;
    /** Before each rebuild. */
    prepare?(at: Scene): void;
    expectEnd(at: Scene, nth: string, end: OperationRow): Promise<void>;
  }

  async function dieEverywhere({ options, order, prepare, expectEnd, ...rest }: Case): Promise<number> {
    const at = await open({ ...options, onboot: true });
    const { moments } = await surviveDeaths(at, {
      ...rest,
      some: 4,
      begin() {
        prepare?.(at);
        return at.begin("server.rebuild", order);
      },
      after: (_order, end, nth) => expectEnd(at, `death ${nth}`, end),
    });
    return moments;
  }

  /** The MAC address of the server that each of these begins with. */
  let net0: string | undefined;
  const sameServer: Case["expectEnd"] = (at, nth, end) => expectOne(at, nth, end, net0);
  const remember = (at: Scene) => {
    net0 ??= at.made()[0]?.config["net0"];
  };

  it("at each moment, beside the old system: another one ends it", { timeout: 240_000 }, async () => {
    net0 = undefined;
    const moments = await dieEverywhere({ order: UBUNTU, prepare: remember, expectEnd: sameServer });
    expect(moments).toBeGreaterThan(25);
  });

  it("at every second moment, in place: another one ends it", { timeout: 240_000 }, async () => {
    net0 = undefined;
    const moments = await dieEverywhere({
      options: TIGHT,
      order: { image: "debian-12", in_place: "yes" },
      every: 2,
      prepare(at) {
        remember(at);
        fillUp(at);
      },
      expectEnd: sameServer,
    });
    expect(moments).toBeGreaterThan(25);
  });

  it("at every third moment of one that is undone: the old system runs, alone", {
    timeout: 240_000,
  }, async () => {
    const moments = await dieEverywhere({
      order: UBUNTU,
      every: 3,
      state: "failed",
      prepare(at) {
        // Only the new one: the old one must start again.
        at.beforeStep("pve.start_new", () =>
          at.simulator.addTaskFault({
            task: "qmstart",
            vmid: at.made().find((vm) => vm.vmid !== OLD)?.vmid ?? 0,
            outcome: "fail",
            message: "QEMU exited with code 1",
            times: 0,
          }),
        );
      },
      async expectEnd(at, nth) {
        expect({ nth, made: at.made() }).toMatchObject({
          nth,
          made: [{ vmid: OLD, status: "running", config: { onboot: "1" } }],
        });
        expect(await at.server()).toMatchObject({ externalId: String(OLD), state: "active" });
        expect(at.simulator.state.macClashes).toEqual([]);
        expect(at.simulator.state.volumes.filter((volume) => volume.vmid > OLD)).toEqual([]);
      },
    });
    expect(moments).toBeGreaterThan(30);
  });
});
