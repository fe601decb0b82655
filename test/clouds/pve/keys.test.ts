/** server.keys on Proxmox VE: who may log in as the default user, from the next boot on. */
import { expect, it } from "vitest";
import { renderCard } from "../../../src/core/operations/card.ts";
import { fingerprintOf } from "../../../src/core/servers/keys.ts";
import { ed25519Key, rsaKey } from "../../support/ssh-key.ts";
import { useStage } from "../../support/stage.ts";
import { surviveDeaths } from "./deaths.ts";
import { openTimedWorld, type TimedWorld } from "./timed-world.ts";
import { BUILD } from "./world.ts";

const WEB = { server: "web-1" };
const FIRST = ed25519Key("ada+laptop@example.com", 0xaa);
const stage = useStage();

/** With web-1 of Ada, which runs and knows FIRST. */
async function open(): Promise<TimedWorld> {
  const world = stage.keep(await openTimedWorld({ database: stage.database }));
  await world.order("server.build", { ...BUILD, key: FIRST });
  world.changes();
  return world;
}

function storedKeys({ vm }: TimedWorld): string[] {
  return decodeURIComponent(vm().config["sshkeys"] ?? "")
    .split("\n")
    .filter((line) => line !== "");
}

it("several keys are set as they were pasted, count from the next boot on, and the restart is offered", async () => {
  const at = await open();
  const keys = [ed25519Key("ada+new 100% of 'it' & more=1"), rsaKey()];
  const operation = await at.order("server.keys", { ...WEB, keys: `${keys[0]}, ${keys[1]}` }, at.ada);
  expect(operation).toMatchObject({ state: "succeeded", problem: null });
  expect(at.changes()).toEqual(["PUT V/config", "PUT V/cloudinit"]);
  expect(storedKeys(at)).toEqual(keys);
  expect(at.vm().guest.sshKeys).toEqual([FIRST]);
  expect((await at.lines(operation.id)).at(-1)).toBe(
    "The keys count from the next boot on, not before. Keys that it has taken before stay in it until they are removed there.",
  );
  const { view } = await renderCard(stage.database, operation.id, "customer");
  expect(view.buttons?.map(({ label }) => label)).toEqual(["Stop and start it now"]);
  expect(view.fields).toContainEqual({ label: "SSH keys", value: keys.map(fingerprintOf).join(", ") });

  const [offered] = await at.offersOf(operation.id);
  const answer = await at.entrance.press(offered?.token ?? "", at.ada, "console");
  if (answer.kind !== "operation") throw new Error(JSON.stringify(answer));
  await at.rest(answer.operationId);
  expect(at.vm().guest.sshKeys).toEqual([FIRST, ...keys]);
});

it("events tell fingerprints, and no key", async () => {
  const at = await open();
  const key = ed25519Key("secret-comment@example.com");
  await at.order("server.keys", { ...WEB, keys: key });
  const events = await at.events();
  const changed = events.filter(({ type }) => type === "server.keys.changed");
  expect(changed).toHaveLength(1);
  expect(changed[0]?.data).toMatchObject({ fingerprints: [fingerprintOf(key)] });
  const told = JSON.stringify(events, (_key, value: unknown) =>
    typeof value === "bigint" ? String(value) : value,
  );
  expect(told).toContain("server.keys.succeeded");
  expect(told).not.toContain(key.split(" ")[1]);
  expect(told).not.toContain("secret-comment");
});

it("a server that is off takes them at its next start, and nothing is offered", async () => {
  const at = await open();
  await at.order("server.power", { ...WEB, action: "kill" });
  const operation = await at.order("server.keys", { ...WEB, keys: ed25519Key() });
  expect((await at.lines(operation.id)).at(-1)).toMatch(
    /^The keys count from the next start on, not before\./u,
  );
  expect(await at.offersOf(operation.id)).toEqual([]);
  await at.order("server.power", { ...WEB, action: "start" });
  expect(at.vm().guest.sshKeys).toEqual([FIRST, ed25519Key()]);
});

it("a broken key is refused before PVE sees it, and so is a server without a cloud-init drive", async () => {
  const at = await open();
  const before = at.simulator.state.requests.length;
  for (const keys of [
    "nonsense",
    FIRST.slice(0, 50),
    `${FIRST}\nssh-ed25519 AAAA`,
    FIRST.replace("ssh-ed25519", "ssh-rsa"),
  ]) {
    await expect(at.ask(at.ada, "server.keys", { ...WEB, keys })).rejects.toMatchObject({
      code: "invalid_input",
      message: expect.stringMatching(/no public SSH key/u),
      facts: { option: "keys" },
    });
  }
  expect(at.simulator.state.requests.length).toBe(before);
  at.simulator.changeVm(100_000, { config: { ide2: null } });
  expect(await at.order("server.keys", { ...WEB, keys: FIRST })).toMatchObject({
    state: "failed",
    problem: { code: "unsupported", message: expect.stringMatching(/it has no cloud-init drive/u) },
  });
});

it("another customer's server is not known, and a stranger's VM under its number is not touched", async () => {
  const at = await open();
  await expect(at.ask(at.bob, "server.keys", { ...WEB, keys: FIRST })).rejects.toMatchObject({
    code: "not_found",
  });
  at.simulator.removeVm(100_000);
  const stranger = at.simulator.addStranger({ vmid: 100_000, name: "web-1", tags: "ratatosk" });
  const operation = await at.order("server.keys", { ...WEB, keys: ed25519Key() });
  expect(operation).toMatchObject({ state: "failed", problem: { code: "cloud_conflict" } });
  expect(at.simulator.state.vms.find(({ vmid }) => vmid === 100_000)).toEqual(stranger);
});

it("each write of the keys lost once: they are set as asked for, once", async () => {
  for (const [kind, status] of [
    ["status", 595],
    ["status", 596],
    ["status_after", 596],
    ["drop_after", 0],
  ] as const) {
    const at = await open();
    at.simulator.addFault({ method: "PUT", path: "/config$", kind, status });
    at.simulator.addFault({ method: "PUT", path: "/cloudinit$", kind, status });
    const operation = await at.order("server.keys", { ...WEB, keys: ed25519Key() });
    expect(operation, `${kind} ${status}`).toMatchObject({ state: "succeeded", problem: null });
    expect(storedKeys(at)).toEqual([ed25519Key()]);
    await stage.clear();
  }
});

it("a worker that dies at each moment of new keys: they are as asked for", async () => {
  const at = await open();
  const { moments } = await surviveDeaths(at, {
    begin: (nth) => at.begin("server.keys", { ...WEB, keys: ed25519Key("ada", nth) }),
    after: (nth) => expect(storedKeys(at)).toEqual([ed25519Key("ada", nth)]),
  });
  expect(moments).toBeGreaterThan(3);
});
