/** What a difficult OpenStack does, played by the simulator. */
import { randomUUID } from "node:crypto";
import { afterEach, describe, expect, it } from "vitest";
import type { PowerVerb } from "../../../src/core/cloud.ts";
import { ServiceError } from "../../../src/core/errors.ts";
import type { OpenStackSimulatorOptions } from "../../../src/sandbox/openstack/index.ts";
import { contextOf, definitionOf, runAll, runStep } from "../run-step.ts";
import { type Opened, openSimulator, SMALL } from "./open-simulator.ts";

let opened: Opened | undefined;

afterEach(async () => {
  await opened?.close();
  opened = undefined;
});

async function start(options: OpenStackSimulatorOptions = {}, timeoutMs?: number): Promise<Opened> {
  opened = await openSimulator(options, timeoutMs === undefined ? {} : { timeoutMs });
  return opened;
}

const options = (operationId: string = randomUUID()) => ({ operationId, everyMs: 10 });

async function build(here: Opened, name = "web-1", metadata: Record<string, string> = {}) {
  const operationId = randomUUID();
  const [planned] = here.cloud.provision({ ...here.order, name, metadata });
  if (planned === undefined) throw new Error("no step");
  const run = await runStep(here.cloud, planned, options(operationId));
  return { run, operationId, planned };
}

async function built(here: Opened, name?: string, metadata?: Record<string, string>): Promise<string> {
  const { run } = await build(here, name, metadata);
  if (run.verdict.kind !== "done" || run.verdict.server === undefined) throw new Error("it was not built");
  return run.verdict.server.externalId;
}

function power(here: Opened, externalId: string, verb: PowerVerb) {
  const [planned] = here.cloud.power({ externalId, verb });
  if (planned === undefined) throw new Error("no step");
  return runStep(here.cloud, planned, options());
}

async function problemOf(work: Promise<unknown>): Promise<ServiceError> {
  const error = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (error instanceof ServiceError) return error;
  throw new Error(`no ServiceError: ${String(error)}`);
}

function failureOf(verdict: Awaited<ReturnType<typeof runStep>>["verdict"]): ServiceError {
  if (verdict.kind !== "failed") throw new Error("it did not fail");
  return verdict.error;
}

describe("a build", () => {
  it.each([
    ["sim-no-host", "capacity", /No host of the cloud has room/u],
    ["sim-fail-spawn", "cloud_failed", /tried to build the server on every host/u],
    ["sim-fail-abort", "cloud_failed", /gave up building/u],
  ])("of %s fails as %s", async (name, code, sentence) => {
    const here = await start();
    const error = failureOf((await build(here, name)).run.verdict);
    expect(error.code).toBe(code);
    expect(error.message).toMatch(sentence);
    expect(error.staffDetail).toMatch(/is in ERROR: /u);
  });

  it("on the outside network is refused before and fails as a network problem after", async () => {
    const here = await start();
    const networks = await here.cloud.listNetworks();
    const networkId = networks.find((network) => network.isExternal)?.externalId ?? "";
    const order = { ...here.order, networkId };
    const refused = await problemOf(here.cloud.preflightProvision(order, AbortSignal.timeout(5_000)));
    expect(refused).toMatchObject({ code: "cloud_invalid" });
    const [planned] = here.cloud.provision(order);
    const run = planned && (await runStep(here.cloud, planned, options()));
    expect(run && failureOf(run.verdict).message).toMatch(/address on its network/u);
  });

  it("over the quota is refused by preflight, and by Nova when preflight was outrun", async () => {
    const here = await start({ quota: { instances: 0 } });
    const refused = await problemOf(here.cloud.preflightProvision(here.order, AbortSignal.timeout(5_000)));
    expect(refused).toMatchObject({ code: "cloud_quota", facts: { used: 0, limit: 0, requested: 1 } });
    const late = await problemOf(build(here));
    expect(late).toMatchObject({ code: "cloud_quota", facts: { resource: "instances", limit: "0" } });
  });

  it("too small for its image, or smaller than what was sold, is refused by preflight", async () => {
    const here = await start();
    const images = await here.cloud.listImages();
    const imageId = images.find((image) => image.name === "ubuntu-24.04")?.externalId ?? "";
    const signal = AbortSignal.timeout(5_000);
    expect(await problemOf(here.cloud.preflightProvision({ ...here.order, imageId }, signal))).toMatchObject({
      code: "cloud_invalid",
      facts: { minMemoryMib: 1024, minDiskGib: 5 },
    });
    const size = { ...here.order.size, memoryMib: 4096 };
    expect(await problemOf(here.cloud.preflightProvision({ ...here.order, size }, signal))).toMatchObject({
      code: "cloud_invalid",
      facts: { flavor: "m1.tiny" },
    });
  });

  it.each(["sim-lost-answer", "sim-gateway-timeout"])(
    "of %s is one server, found by its tag",
    async (name) => {
      const here = await start();
      const { run, operationId } = await build(here, name);
      expect(run.lost?.code).toBe("unknown_outcome");
      expect(run).toMatchObject({ issued: 1, verdict: { kind: "done" } });
      expect(here.simulator.state.servers).toHaveLength(1);
      expect(await here.cloud.findByMarker(operationId)).toHaveLength(1);
    },
  );

  it.each(["sim-drop", "sim-messaging-timeout"])(
    "of %s is unknown, absent, and asked for again",
    async (name) => {
      const here = await start();
      const { planned, operationId } = await build(here, "web-1");
      const context = contextOf(
        here.cloud,
        { ...planned, input: { ...planned.input, name } },
        options(randomUUID()),
      );
      const step = definitionOf(here.cloud, planned.name);
      expect((await problemOf(step.issue(context))).code).toBe("unknown_outcome");
      expect(await step.probe?.(context)).toEqual({ effect: "absent" });
      expect(await here.cloud.findByMarker(operationId)).toHaveLength(1);
    },
  );

  it("that a gateway refused was not begun", async () => {
    const here = await start();
    const [planned] = here.cloud.provision({ ...here.order, name: "sim-429" });
    if (planned === undefined) throw new Error("no step");
    const refused = await problemOf(runStep(here.cloud, planned, options()));
    expect(refused).toMatchObject({ code: "unreachable", retryable: true, facts: { retryAfterMs: 1000 } });
    expect(here.simulator.state.servers).toHaveLength(0);
  });

  it("whose late twin turns up keeps the oldest and names the others", async () => {
    const here = await start();
    const operationId = randomUUID();
    const [planned] = here.cloud.provision(here.order);
    if (planned === undefined) throw new Error("no step");
    const step = definitionOf(here.cloud, planned.name);
    // The first call was held by a proxy for longer than anybody waited.
    const first = contextOf(here.cloud, planned, options(operationId));
    const late = await step.issue(first);
    const run = await runStep(here.cloud, planned, options(operationId));
    if (late.kind !== "wait" || run.verdict.kind !== "done") throw new Error("not built");
    const ids = here.simulator.state.servers.map((server) => server.id);
    expect(ids).toHaveLength(2);
    const kept = run.verdict.server?.externalId;
    expect(kept).toBe((await here.cloud.findByMarker(operationId))[0]?.externalId);
    expect(run.verdict.output).toEqual({ serverId: kept, twins: ids.filter((id) => id !== kept) });
    expect(run.verdict.staffNote).toMatch(/must remove/u);
    // Undoing it removes both.
    const undo = step.compensation?.({ operation: first.operation, input: planned.input, reference: null });
    if (undo === undefined) throw new Error("no compensation");
    expect((await runStep(here.cloud, undo, options(operationId))).verdict).toMatchObject({ kind: "done" });
    expect(here.simulator.state.servers.every((server) => server.deleted)).toBe(true);
  });

  it("adopts the server that a person names, although another one is marked", async () => {
    const here = await start();
    const { planned, operationId } = await build(here);
    const named = here.simulator.addStranger().id;
    const context = contextOf(here.cloud, planned, options(operationId));
    const verdict = await definitionOf(here.cloud, planned.name).verify?.({
      ...context,
      reference: { externalId: named },
    });
    expect(verdict).toMatchObject({ kind: "done", server: { externalId: named } });
  });

  it("is followed although lists lag behind", async () => {
    const here = await start({ traps: { listLagMs: 300 } });
    expect((await build(here)).run.verdict.kind).toBe("done");
  });

  it("removed by somebody meanwhile has failed", async () => {
    const here = await start({ speed: 1 });
    const [planned] = here.cloud.provision(here.order);
    if (planned === undefined) throw new Error("no step");
    const context = contextOf(here.cloud, planned, options());
    const step = definitionOf(here.cloud, planned.name);
    const issued = await step.issue(context);
    if (issued.kind !== "wait") throw new Error("nothing to wait for");
    const externalId = String(issued.reference["serverId"]);
    await runAll(here.cloud, here.cloud.remove({ externalId }), options());
    const wait = { id: "w", condition: issued.condition, since: context.issuedAt, observedAt: null };
    expect(await here.cloud.watch([wait])).toEqual([
      { waitId: "w", result: { outcome: "gone", detail: "DELETED" } },
    ]);
    const verdict = await step.verify?.({ ...context, reference: issued.reference });
    expect(verdict).toMatchObject({ kind: "failed", error: { code: "cloud_failed" } });
  });
});

describe("a resize", () => {
  const change = (here: Opened, externalId: string) => {
    const [move, confirm] = here.cloud.resize({ externalId, before: here.order.size, after: SMALL });
    if (move === undefined || confirm === undefined) throw new Error("no steps");
    return { move, confirm };
  };

  it("that Nova gives up silently is told as a failure", async () => {
    const here = await start();
    const { move } = change(here, await built(here, "sim-silent-resize"));
    const error = failureOf((await runStep(here.cloud, move, options())).verdict);
    expect(error.code).toBe("cloud_failed");
    expect(error.message).toMatch(/^OpenStack gave up the resize and put the server back as it was\./u);
    expect(error.staffDetail).toMatch(/action resize \(request req-/u);
  });

  it("for which no host has room says so", async () => {
    const here = await start();
    const { move } = change(here, await built(here));
    here.simulator.state.traps = { noCapacity: true };
    expect(failureOf((await runStep(here.cloud, move, options())).verdict).message).toMatch(
      /no host has room/u,
    );
  });

  it("that fails on the target leaves an error state, and says how it is brought back", async () => {
    const here = await start();
    const externalId = await built(here, "web-1", { osr_fail: "resize" });
    const { verdict } = await runStep(here.cloud, change(here, externalId).move, options());
    expect(failureOf(verdict).message).toMatch(/error state.*hard reset/u);
    expect((await power(here, externalId, "reset")).verdict).toMatchObject({ server: { state: "active" } });
  });

  it("that confirmed itself is kept without our confirmation", async () => {
    const here = await start({ traps: { resizeConfirmWindowMs: 0 } });
    const { move, confirm } = change(here, await built(here));
    await runAll(here.cloud, [move], options());
    const [server] = here.simulator.state.servers;
    await expect.poll(async () => (await here.cloud.inspect(server?.id ?? "")).state).toBe("active");
    const run = await runStep(here.cloud, confirm, options());
    expect(run.verdict).toMatchObject({ kind: "done", server: { memoryMib: 2048, state: "active" } });
    expect(run.notes.join(" ")).toMatch(/kept the new size by itself/u);
  });

  it("whose answer was lost is found in Nova's own record", async () => {
    const here = await start();
    const { move } = change(here, await built(here));
    here.simulator.addFault({ method: "POST", path: "/action$", kind: "drop_after" });
    const run = await runStep(here.cloud, move, options());
    expect(run).toMatchObject({ issued: 1, lost: { code: "unknown_outcome" }, verdict: { kind: "done" } });
    const actions = here.simulator.state.servers[0]?.actions.filter(({ action }) => action === "resize");
    expect(actions).toHaveLength(1);
  });

  it("that met another one of the same instant is neither proof of success nor of failure", async () => {
    const here = await start();
    const { move } = change(here, await built(here));
    here.simulator.addFault({
      method: "POST",
      path: "/action$",
      kind: "status",
      status: 500,
      body: { computeFault: { code: 500, message: "<class 'nova.exception.UnexpectedTaskStateError'>" } },
    });
    const step = definitionOf(here.cloud, move.name);
    const context = contextOf(here.cloud, move, options());
    const error = await problemOf(step.issue(context));
    expect(error.code).toBe("unknown_outcome");
    expect(error.staffDetail).toMatch(/nova\.exception\.UnexpectedTaskStateError/u);
    expect(await step.probe?.(context)).toEqual({ effect: "absent" });
  });

  it("undone in the cloud before it was kept has failed", async () => {
    const here = await start();
    const externalId = await built(here);
    const { confirm } = change(here, externalId);
    const error = await problemOf(runStep(here.cloud, confirm, options()));
    expect(error.message).toMatch(/went back to its old size/u);
  });
});

describe("power and password", () => {
  it("a stop that the host gives up is told as a failure", async () => {
    const here = await start();
    const { verdict } = await power(here, await built(here, "sim-fail-power"), "stop");
    expect(failureOf(verdict)).toMatchObject({ code: "cloud_failed" });
    expect(failureOf(verdict).message).toMatch(/the server is running/u);
  });

  it("a restart whose answer was lost is done once", async () => {
    const here = await start();
    const externalId = await built(here);
    here.simulator.addFault({ method: "POST", path: "/action$", kind: "drop_after" });
    const run = await power(here, externalId, "reboot");
    expect(run).toMatchObject({ issued: 1, verdict: { kind: "done" } });
    const reboots = here.simulator.state.servers[0]?.actions.filter(({ action }) => action === "reboot");
    expect(reboots).toHaveLength(1);
  });

  it("a soft restart and a password of a server that is off are refused with a hint", async () => {
    const here = await start();
    const externalId = await built(here);
    await power(here, externalId, "stop");
    const error = await problemOf(power(here, externalId, "reboot"));
    expect(error).toMatchObject({ code: "cloud_conflict" });
    expect(error.message).toMatch(/off: use "start"/u);
    const [password] = here.cloud.password({ externalId, secretId: "s" });
    const late = await problemOf(password ? runStep(here.cloud, password, options()) : Promise.resolve());
    expect(late.message).toMatch(/must be running/u);
  });

  it("no guest agent means no password, with the ways that are left", async () => {
    const here = await start();
    const externalId = await built(here, "sim-no-agent");
    const [planned] = here.cloud.password({ externalId, secretId: "s" });
    const error = await problemOf(planned ? runStep(here.cloud, planned, options()) : Promise.resolve());
    expect(error).toMatchObject({ code: "unsupported" });
    expect(error.message).toMatch(/no guest agent/u);
  });

  it("a dead host: the password is unknown, and a delete still works", async () => {
    const here = await start({ traps: { rpcTimeoutMs: 50 } });
    const externalId = await built(here);
    here.simulator.state.traps = { deadCompute: true, rpcTimeoutMs: 50 };
    const [planned] = here.cloud.password({ externalId, secretId: "s" });
    if (planned === undefined) throw new Error("no step");
    const step = definitionOf(here.cloud, planned.name);
    const context = contextOf(here.cloud, planned, options());
    expect((await problemOf(step.issue(context))).code).toBe("unknown_outcome");
    expect(await step.verify?.(context)).toMatchObject({ kind: "pending" });
    const [gone] = await runAll(here.cloud, here.cloud.remove({ externalId }), options());
    expect(gone?.verdict).toMatchObject({ kind: "done", gone: true });
  });
});

describe("a delete", () => {
  it("counts the bin as gone and says so", async () => {
    const here = await start({ traps: { softDelete: true } });
    const [run] = await runAll(here.cloud, here.cloud.remove({ externalId: await built(here) }), options());
    expect(run?.verdict).toMatchObject({ kind: "done", gone: true });
    expect(run?.notes.join(" ")).toMatch(/in its bin/u);
  });

  it("whose answer was lost is asked for again and finds it gone", async () => {
    const here = await start();
    const externalId = await built(here);
    here.simulator.addFault({ method: "DELETE", kind: "drop_after" });
    const [run] = await runAll(here.cloud, here.cloud.remove({ externalId }), options());
    expect(run).toMatchObject({ issued: 2, verdict: { kind: "done", gone: true } });
  });
});

describe("the services", () => {
  it("links with a foreign origin are followed on our own endpoint", async () => {
    const here = await start({ maxLimit: 2, traps: { linkOrigin: "http://10.99.99.99:8774" } });
    for (let index = 0; index < 5; index += 1) here.simulator.addStranger({ name: `s-${index}` });
    expect(await here.cloud.listServers()).toHaveLength(5);
  });

  it("another tenant's servers are not seen", async () => {
    const here = await start();
    const foreign = here.simulator.addStranger({ project: "customer-b" });
    expect(await here.cloud.listServers()).toEqual([]);
    expect((await problemOf(here.cloud.inspect(foreign.id))).code).toBe("cloud_not_found");
  });

  it("revoked tokens are renewed once, for all calls under way together", async () => {
    const here = await start();
    here.simulator.revokeTokens();
    const before = here.simulator.state.requests.filter(({ path }) => path.endsWith("/auth/tokens")).length;
    await Promise.all([here.cloud.listServers(), here.cloud.listImages(), here.cloud.listNetworks()]);
    const after = here.simulator.state.requests.filter(({ path }) => path.endsWith("/auth/tokens")).length;
    expect(after - before).toBe(1);
  });

  it("Keystone away is unreachable, for reads and for changes that the service never saw", async () => {
    const here = await start();
    const externalId = await built(here);
    here.simulator.state.traps = { keystone: "503" };
    expect((await problemOf(here.cloud.listServers())).code).toBe("unreachable");
    const [planned] = here.cloud.password({ externalId, secretId: "s" });
    const error = await problemOf(planned ? runStep(here.cloud, planned, options()) : Promise.resolve());
    expect(error.code).toBe("unreachable");
    expect((await here.cloud.check()).filter((check) => !check.ok).length).toBeGreaterThanOrEqual(2);
  });

  it("nobody answering is a timeout for a read and unknown for a change", async () => {
    const here = await start({}, 150);
    const externalId = await built(here);
    here.simulator.addFault({ method: "GET", path: "/servers/", kind: "hang" });
    expect((await problemOf(here.cloud.inspect(externalId))).code).toBe("timeout");
    here.simulator.addFault({ method: "DELETE", kind: "drop" });
    const [planned] = here.cloud.remove({ externalId });
    if (planned === undefined) throw new Error("no step");
    const step = definitionOf(here.cloud, planned.name);
    expect((await problemOf(step.issue(contextOf(here.cloud, planned, options())))).code).toBe(
      "unknown_outcome",
    );
  });

  it.each([
    ["neutronDown", "unknown_outcome"],
    ["glanceDown", "unknown_outcome"],
  ] as const)("%s at a create is %s", async (trap, code) => {
    const here = await start();
    const [planned] = here.cloud.provision(here.order);
    if (planned === undefined) throw new Error("no step");
    here.simulator.state.traps = { [trap]: true };
    const step = definitionOf(here.cloud, planned.name);
    expect((await problemOf(step.issue(contextOf(here.cloud, planned, options())))).code).toBe(code);
  });

  it("a cloud that is not there is unreachable", async () => {
    const here = await start();
    await here.simulator.close();
    expect(await problemOf(here.cloud.listServers())).toMatchObject({ code: "unreachable", retryable: true });
    opened = { ...here, close: () => here.cloud.close() };
  });

  it("the project id may stand in the compute URL", async () => {
    const here = await start({ projectIdInComputeUrl: true });
    expect((await build(here)).run.verdict.kind).toBe("done");
  });
});
