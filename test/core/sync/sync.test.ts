import { pino } from "pino";
import { beforeEach, describe, expect, test } from "vitest";
import type {
  Cloud,
  RemoteFlavor,
  RemoteImage,
  RemoteNetwork,
  RemoteServer,
  ServerState,
} from "../../../src/core/cloud.ts";
import { ServiceError } from "../../../src/core/errors.ts";
import { syncPeople } from "../../../src/core/people/sync.ts";
import { dropOldRows } from "../../../src/core/retention.ts";
import type { SyncResource } from "../../../src/core/sync/pass.ts";
import { runSync } from "../../../src/core/sync/run.ts";
import { scheduleSync, syncCloud } from "../../../src/core/sync/schedule.ts";
import type { Database } from "../../../src/database/client.ts";
import { newId, newPublicId } from "../../../src/database/id.ts";
import { clean, eachBackend, moveClock } from "../../support/database.ts";

const log = pino({ level: "silent" });

interface FakeCloud extends Cloud {
  flavors: RemoteFlavor[];
  servers: RemoteServer[];
  inspected: string[];
  /** Thrown by every list. */
  failure: Error | undefined;
  /** Runs while a list is on its way. */
  during: (() => Promise<void>) | undefined;
  /** What `inspect` answers beside the listed servers. */
  hidden: Map<string, RemoteServer | Error>;
}

/** A cloud in memory: only what synchronisation calls. */
function fakeCloud(name = "main"): FakeCloud {
  async function answer<T>(cloud: FakeCloud, items: T[]): Promise<T[]> {
    await cloud.during?.();
    if (cloud.failure !== undefined) throw cloud.failure;
    return structuredClone(items);
  }
  const cloud = {
    name,
    flavors: [] as RemoteFlavor[],
    servers: [] as RemoteServer[],
    inspected: [] as string[],
    failure: undefined,
    during: undefined,
    hidden: new Map<string, RemoteServer | Error>(),
    listFlavors: () => answer(cloud, cloud.flavors),
    listImages: (): Promise<RemoteImage[]> =>
      answer(cloud, [
        {
          externalId: "i1",
          name: "debian-12",
          status: "active",
          minMemoryMib: 512,
          minDiskGib: 1,
          hasAgent: null,
          defaultUser: "debian",
        },
      ]),
    listNetworks: (): Promise<RemoteNetwork[]> =>
      answer(cloud, [{ externalId: "n1", name: "", status: "ACTIVE", isExternal: false, isShared: false }]),
    listServers: () => answer(cloud, cloud.servers),
    inspect(externalId: string): Promise<RemoteServer> {
      cloud.inspected.push(externalId);
      const found =
        cloud.hidden.get(externalId) ?? cloud.servers.find((server) => server.externalId === externalId);
      if (found instanceof Error) return Promise.reject(found);
      if (found !== undefined) return Promise.resolve(found);
      return Promise.reject(new ServiceError("cloud_not_found", "The cloud has no such server."));
    },
  } as unknown as FakeCloud;
  return cloud;
}

function flavor(n: number): RemoteFlavor {
  return { externalId: `f${n}`, name: `m${n}`, vcpus: n, memoryMib: 1024 * n, diskGib: 10, isPublic: true };
}

function remote(
  externalId: string,
  state: ServerState = "active",
  more: Partial<RemoteServer> = {},
): RemoteServer {
  return {
    externalId,
    name: externalId,
    state,
    providerStatus: state.toUpperCase(),
    busy: false,
    vcpus: 1,
    memoryMib: 512,
    diskGib: 1,
    addresses: ["10.0.0.5"],
    markers: [],
    ...more,
  };
}

eachBackend("sync", (open) => {
  let database: Database;
  let cloud: FakeCloud;

  beforeEach(async () => {
    database = open();
    await clean(database);
    await moveClock(database, 0);
    cloud = fakeCloud();
    await database.transaction((tx) =>
      syncPeople(tx, {
        customers: [],
        plans: [],
        clouds: [{ name: "main", type: "openstack", maxConcurrent: 1 }],
      }),
    );
  });

  const sync = (resource: SyncResource, force = false) =>
    runSync({ database, cloud, resource, requester: "staff:sam", log, force });

  async function server(externalId: string, state: ServerState = "active"): Promise<string> {
    const id = newId();
    await database.sql(
      `INSERT INTO servers (id, public_id, cloud_id, external_id, name, state, provider_status, vcpus, memory_mib, disk_gib, addresses)
       SELECT $1, $2, c.id, $3, $3, $4, $5, 1, 512, 1, '{10.0.0.5}' FROM clouds c`,
      [id, newPublicId("srv"), externalId, state, state.toUpperCase()],
    );
    return id;
  }

  async function operation(
    state: string,
    about: { serverId?: string; lockKey?: string; finished?: boolean } = {},
  ) {
    const id = newId();
    await database.sql(
      `INSERT INTO operations (id, public_id, action, spec_version, state, input, plan, plan_hash, idempotency_key, request_hash,
         requester_kind, requester_id, requester_name, source, server_id, lock_key, finished_at)
       VALUES ($1, $2, 'server.power', 1, $3, '{}', '{}', '', $2, '', 'staff', 'sam', 'Sam', 'console', $4, $5,
         CASE WHEN $6 THEN clock() END)`,
      [id, newPublicId("op"), state, about.serverId ?? null, about.lockKey ?? null, about.finished ?? false],
    );
    return id;
  }

  const flavorRows = () =>
    database.sql<{ externalId: string; name: string; missed: number; disabled: boolean }>(
      `SELECT external_id AS "externalId", name, missed_passes AS missed, disabled_at IS NOT NULL AS disabled
         FROM flavors ORDER BY external_id`,
    );
  const stateOf = async (id: string) =>
    (await database.sql<{ state: string }>("SELECT state FROM servers WHERE id = $1", [id]))[0]?.state;
  const events = () =>
    database.sql<{ type: string; sequence: bigint; data: Record<string, unknown> }>(
      "SELECT type, sequence, data FROM events ORDER BY server_id, sequence",
    );

  describe("the catalogue", () => {
    test("250 flavors: one new, one changed, one gone, one malformed", async () => {
      cloud.flavors = Array.from({ length: 250 }, (_, index) => flavor(index + 1));
      expect(await sync("flavors")).toMatchObject({
        state: "completed",
        seen: 250,
        created: 250,
        updated: 0,
        missing: 0,
      });
      expect(await sync("flavors")).toMatchObject({
        state: "completed",
        seen: 250,
        created: 0,
        updated: 0,
        missing: 0,
      });

      cloud.flavors = [...cloud.flavors.slice(1), flavor(999), { ...flavor(2), vcpus: Number.NaN }];
      cloud.flavors[1] = { ...flavor(3), name: "renamed" };
      cloud.flavors.splice(0, 1);
      const second = await sync("flavors");

      expect(second).toMatchObject({ state: "partial", seen: 250, created: 1, updated: 1, missing: 1 });
      expect(second.errors).toEqual([expect.stringContaining("f2) cannot be used: vcpus")]);
      expect((await flavorRows()).find((row) => row.externalId === "f1")).toMatchObject({
        missed: 1,
        disabled: false,
      });
      expect((await flavorRows()).find((row) => row.externalId === "f2")).toMatchObject({
        missed: 0,
        disabled: false,
      });

      expect(await sync("flavors")).toMatchObject({ missing: 1 });
      expect((await flavorRows()).find((row) => row.externalId === "f1")).toMatchObject({ disabled: true });
      expect(await sync("flavors")).toMatchObject({ missing: 0 });

      cloud.flavors.push(flavor(1));
      expect(await sync("flavors")).toMatchObject({ created: 0, updated: 1 });
      expect((await flavorRows()).find((row) => row.externalId === "f1")).toMatchObject({
        missed: 0,
        disabled: false,
      });
    });

    test("a list that comes back in between starts the count again", async () => {
      cloud.flavors = [flavor(1), flavor(2)];
      await sync("flavors");
      cloud.flavors = [flavor(2)];
      await sync("flavors");
      cloud.flavors = [flavor(1), flavor(2)];
      await sync("flavors");
      cloud.flavors = [flavor(2)];
      await sync("flavors");

      expect((await flavorRows())[0]).toMatchObject({ missed: 1, disabled: false });
    });

    test("an empty list takes nothing away, even with force", async () => {
      cloud.flavors = [flavor(1)];
      await sync("flavors");
      cloud.flavors = [];

      for (const force of [false, true, true]) {
        const report = await sync("flavors", force);
        expect(report).toMatchObject({ state: "aborted", missing: 0 });
        expect(report.errors[0]).toContain("The list was empty although 1 are known");
      }
      expect(await flavorRows()).toEqual([expect.objectContaining({ missed: 0, disabled: false })]);
    });

    test("a list that lost a fifth takes nothing away, unless a person says so", async () => {
      cloud.flavors = Array.from({ length: 20 }, (_, index) => flavor(index + 1));
      await sync("flavors");
      cloud.flavors = cloud.flavors.slice(5);

      expect(await sync("flavors")).toMatchObject({ state: "aborted", missing: 0 });
      expect((await flavorRows()).filter((row) => row.missed > 0)).toEqual([]);
      expect(await sync("flavors", true)).toMatchObject({ state: "completed", missing: 5 });
    });

    test("a failed list takes nothing away; the cloud's problem is kept until it answers", async () => {
      cloud.flavors = [flavor(1)];
      await sync("flavors");
      cloud.failure = new ServiceError("unreachable", "The cloud does not answer.", {
        staffDetail: "connect ECONNREFUSED",
      });

      const report = await sync("flavors");

      expect(report).toMatchObject({
        state: "failed",
        seen: 0,
        errors: ["The cloud does not answer. (connect ECONNREFUSED)"],
      });
      expect(await flavorRows()).toEqual([expect.objectContaining({ missed: 0, disabled: false })]);
      const health = () =>
        database.sql(`SELECT last_problem ->> 'code' AS code, last_ok_at IS NOT NULL AS ok FROM clouds`);
      expect(await health()).toEqual([{ code: "unreachable", ok: true }]);
      cloud.failure = undefined;
      await sync("flavors");
      expect(await health()).toEqual([{ code: null, ok: true }]);
    });

    test("an unexpected fault is told without its text", async () => {
      cloud.failure = new TypeError("canary in a stack");

      const report = await sync("flavors");

      expect(report.state).toBe("failed");
      expect(JSON.stringify([report, await database.sql("SELECT errors FROM sync_runs")])).not.toContain(
        "canary",
      );
    });

    test("a flavor whose name cannot be stored costs no other one", async () => {
      cloud.flavors = [flavor(1), { ...flavor(2), name: "m2\u0000" }, { ...flavor(3), name: "m\ud800" }];

      const report = await sync("flavors");

      expect(report).toMatchObject({ state: "partial", created: 1 });
      expect(report.errors).toEqual([
        expect.stringContaining("f2) cannot be used: name"),
        expect.stringContaining("f3) cannot be used: name"),
      ]);
    });

    test("images and networks, one of them without a name", async () => {
      expect(await sync("images")).toMatchObject({ state: "completed", created: 1 });
      expect(await sync("networks")).toMatchObject({ state: "completed", created: 1 });

      expect(
        await database.sql(`SELECT name, default_user AS "user", has_agent AS agent FROM images`),
      ).toEqual([{ name: "debian-12", user: "debian", agent: null }]);
      expect(await database.sql("SELECT name FROM networks")).toEqual([{ name: "n1" }]);
    });

    test("one run at a time; one whose process died is taken over when its lease is over", async () => {
      let second: unknown;
      cloud.during = async () => {
        cloud.during = undefined;
        second = await sync("flavors").catch((error: unknown) => error);
      };
      await sync("flavors");
      expect(second).toMatchObject({ code: "busy", retryable: true });

      await database.sql(
        `INSERT INTO sync_runs (id, cloud_id, resource, state, requester, lease_until)
         SELECT $1, id, 'flavors', 'running', 'system', clock() + interval '5 minutes' FROM clouds`,
        [newId()],
      );
      await expect(sync("flavors")).rejects.toMatchObject({ code: "busy" });
      await moveClock(database, 6 * 60_000);
      expect(await sync("flavors")).toMatchObject({ state: "completed" });
      expect(await database.sql("SELECT state FROM sync_runs ORDER BY started_at")).toEqual([
        { state: "completed" },
        { state: "failed" },
        { state: "completed" },
      ]);
    });

    test("a run that lost its lease to another one writes nothing any more", async () => {
      cloud.flavors = [flavor(1)];
      cloud.during = async () => {
        await database.sql("UPDATE sync_runs SET state = 'failed', finished_at = clock()");
      };

      const report = await sync("flavors");

      expect(report).toMatchObject({ state: "aborted", created: 0 });
      expect(await flavorRows()).toEqual([]);
    });

    test("a cloud that the database does not know is an error", async () => {
      cloud = fakeCloud("elsewhere");

      await expect(sync("flavors")).rejects.toMatchObject({ code: "not_found" });
    });
  });

  describe("servers", () => {
    test("a change is written with its event; what is the same has none", async () => {
      const changed = await server("a");
      const same = await server("b");
      cloud.servers = [remote("a", "stopped", { addresses: ["10.0.0.9"] }), remote("b"), remote("stranger")];

      expect(await sync("servers")).toMatchObject({
        state: "completed",
        seen: 3,
        created: 0,
        updated: 1,
        missing: 0,
      });

      expect(await stateOf(changed)).toBe("stopped");
      expect(
        await database.sql("SELECT addresses, provider_status AS status FROM servers WHERE id = $1", [
          changed,
        ]),
      ).toEqual([{ addresses: ["10.0.0.9"], status: "STOPPED" }]);
      expect(await events()).toEqual([
        expect.objectContaining({
          type: "server.state.changed",
          sequence: 1n,
          data: expect.objectContaining({ from: "active", to: "stopped" }),
        }),
      ]);
      expect(await database.sql("SELECT id FROM servers WHERE synced_at IS NULL")).toEqual([]);
      expect(await stateOf(same)).toBe("active");
      expect(await sync("servers")).toMatchObject({ updated: 0 });
    });

    test("a row under an operation, or one that finished since the list was asked for, is left alone", async () => {
      const busy = await server("busy");
      const done = await server("done");
      const observed = await server("observed");
      await operation("running", { lockKey: `server:${busy}`, serverId: busy });
      cloud.servers = [remote("busy", "stopped"), remote("done", "stopped"), remote("observed", "stopped")];
      cloud.during = async () => {
        await operation("succeeded", { serverId: done, finished: true });
        await database.sql("UPDATE servers SET synced_at = clock() WHERE id = $1", [observed]);
      };

      expect(await sync("servers")).toMatchObject({ updated: 0 });

      for (const id of [busy, done, observed]) expect(await stateOf(id)).toBe("active");
      expect(await events()).toEqual([]);
    });

    test("an unknown state says nothing", async () => {
      const id = await server("a");
      cloud.servers = [remote("a", "unknown")];

      expect(await sync("servers")).toMatchObject({ updated: 0, missing: 0 });
      expect(await stateOf(id)).toBe("active");
    });

    test("one server with what cannot be stored costs no other's row, and is named", async () => {
      const ids = Array.from({ length: 7 }, (_, index) => `vm-${index}`);
      for (const id of ids) await server(id);
      cloud.servers = ids.map((id) => remote(id, "stopped"));
      cloud.servers[2] = remote("vm-2", "stopped", { providerStatus: "stopped\u0000" });
      cloud.servers[4] = remote("vm-4", "stopped", { addresses: ["10.0.0.5\u0000"] });
      cloud.servers[5] = remote("vm-5", "stopped", { memoryMib: Number.NaN });
      cloud.servers[6] = remote("vm-6", "stopped", { data: { node: "n1\u0000" } });

      const report = await sync("servers");

      expect(report).toMatchObject({ state: "partial", updated: 3 });
      expect(report.errors.map((error) => /the server (\S+) cannot be stored/.exec(error)?.[1])).toEqual(
        expect.arrayContaining(["vm-2", "vm-4", "vm-5", "vm-6"]),
      );
      expect(await database.sql("SELECT name FROM servers WHERE state = 'stopped' ORDER BY name")).toEqual([
        { name: "vm-0" },
        { name: "vm-1" },
        { name: "vm-3" },
      ]);
      expect(await database.sql("SELECT state FROM sync_runs")).toEqual([{ state: "partial" }]);
    });

    test("snapshots that cannot be stored cost no other server's", async () => {
      const id = await server("a");
      const other = await server("b");
      const snapshots = (description: string) => [
        { name: "before", description, withMemory: false, takenAt: null, markers: [] },
      ];
      Object.assign(cloud, { snapshots: {} });
      cloud.servers = [
        remote("a", "active", { snapshots: snapshots("half \ud800 of a pair\u0000") }),
        remote("b", "active", { snapshots: snapshots("fine") }),
      ];

      expect(await sync("servers")).toMatchObject({
        state: "partial",
        errors: [expect.stringContaining("the server a cannot be stored")],
      });
      expect(await database.sql("SELECT server_id AS id, description FROM snapshots")).toEqual([
        { id: other, description: "fine" },
      ]);
      expect(await stateOf(id)).toBe("active");
    });

    test("what a stranger is called, and what a cloud says of its failure, can always be stored", async () => {
      const name = `twin\u0000\ud800${"x".repeat(5_000)}`;
      cloud.servers = [remote("a", "active", { name, markers: [`op=${newId()}.1`] })];

      const report = await sync("servers");

      expect(report).toMatchObject({ state: "completed", lateTwins: [{ externalId: "a" }] });
      cloud.failure = new ServiceError("timeout", "The cloud did not answer.", { staffDetail: name });
      expect(await sync("servers")).toMatchObject({ state: "failed" });
      expect(await database.sql("SELECT state FROM sync_runs ORDER BY started_at")).toEqual([
        { state: "completed" },
        { state: "failed" },
      ]);
      expect(
        JSON.stringify(await database.sql("SELECT errors, last_problem FROM sync_runs, clouds")),
      ).toContain("twin\uFFFD\uFFFDx");
    });

    test("a server that has moved is kept with where it is now; what was not seen this time stays", async () => {
      const id = await server("a");
      await database.sql(`UPDATE servers SET provider_data = '{"node": "n1", "bootDisk": "scsi0"}'`);
      cloud.servers = [remote("a", "active", { data: { node: "n2", iso: null, uuid: undefined } })];

      expect(await sync("servers")).toMatchObject({ updated: 1 });
      expect(await database.sql("SELECT id, provider_data AS data FROM servers")).toEqual([
        { id, data: { node: "n2", bootDisk: "scsi0", iso: null } },
      ]);
      expect(await sync("servers")).toMatchObject({ updated: 0 });
    });

    test("missing only when the cloud confirms it, and back when it is back", async () => {
      const gone = await server("gone");
      const hidden = await server("hidden");
      const unclear = await server("unclear");
      await server("there");
      cloud.servers = [remote("there")];
      cloud.hidden.set("hidden", remote("hidden"));
      cloud.hidden.set("unclear", new ServiceError("timeout", "The cloud did not answer in time."));

      const report = await sync("servers");

      expect(report).toMatchObject({ state: "partial", missing: 1 });
      expect(report.errors).toEqual([
        expect.stringContaining("unclear still exists is not known: The cloud did not answer"),
      ]);
      expect([await stateOf(gone), await stateOf(hidden), await stateOf(unclear)]).toEqual([
        "missing",
        "active",
        "active",
      ]);
      expect(await events()).toEqual([
        expect.objectContaining({
          type: "server.state.changed",
          data: expect.objectContaining({ to: "missing" }),
        }),
      ]);
      cloud.inspected = [];
      await sync("servers");
      expect(cloud.inspected).not.toContain("gone");

      cloud.servers = [remote("there"), remote("gone")];
      await sync("servers");
      expect(await stateOf(gone)).toBe("active");
      expect(await database.sql("SELECT missing_since AS at FROM servers WHERE id = $1", [gone])).toEqual([
        { at: null },
      ]);
    });

    test("a server in the state deleted is gone when asked for by itself, too", async () => {
      const id = await server("a");
      await server("b");
      cloud.servers = [remote("a", "deleted"), remote("b")];

      expect(await sync("servers")).toMatchObject({ missing: 1 });
      expect(await stateOf(id)).toBe("missing");
    });

    test("an empty or shrunken list makes nothing missing and asks nothing", async () => {
      const ids = await Promise.all(Array.from({ length: 10 }, (_, index) => server(`s${index}`)));

      expect(await sync("servers")).toMatchObject({ state: "aborted", missing: 0 });
      cloud.servers = [1, 2, 3, 4, 5].map((n) => remote(`s${n}`));
      expect(await sync("servers")).toMatchObject({ state: "aborted", missing: 0 });
      expect(cloud.inspected).toEqual([]);
      for (const id of ids) expect(await stateOf(id)).toBe("active");

      expect(await sync("servers", true)).toMatchObject({ state: "completed", missing: 5 });
    });

    test("an operation that begins while a missing server is asked for wins", async () => {
      const id = await server("a");
      await server("b");
      cloud.servers = [remote("b")];
      const inspect = cloud.inspect.bind(cloud);
      Object.assign(cloud, {
        async inspect(externalId: string) {
          await operation("running", { lockKey: `server:${id}`, serverId: id });
          return inspect(externalId);
        },
      });

      expect(await sync("servers")).toMatchObject({ missing: 0 });
      expect(await stateOf(id)).toBe("active");
    });

    test("a marked server without a row is reported, not touched; one under way is not", async () => {
      await server("mine");
      const ended = await operation("succeeded");
      const live = await operation("running", { lockKey: "order:1" });
      const needsPerson = await operation("needs_attention", { lockKey: "order:2" });
      const unknown = newId();
      cloud.servers = [
        remote("mine", "active", { markers: [`op=${ended}.1`] }),
        remote("twin", "active", { markers: [`op=${ended}.2`] }),
        remote("building", "building", { markers: [`op=${live}.1`] }),
        remote("attention", "building", { markers: [`op=${needsPerson}.1`] }),
        remote("forgotten", "active", { markers: [`op=${unknown}.1`] }),
        remote("foreign", "active", { markers: ["op=mine", "tag"] }),
      ];

      const report = await sync("servers");

      expect(report.lateTwins).toEqual([
        { externalId: "twin", name: "twin", operationId: ended, marker: `op=${ended}.2` },
        { externalId: "forgotten", name: "forgotten", operationId: unknown, marker: `op=${unknown}.1` },
      ]);
      expect(report.state).toBe("completed");
      const [run] = await database.sql<{ errors: string[] }>("SELECT errors FROM sync_runs");
      expect(run?.errors[0]).toContain("The server twin (twin) carries the marker");
    });

    test("what an operation is about to delete after a rebuild is reported only when that has ended without it", async () => {
      const built = await operation("succeeded");
      const rebuilt = await operation("needs_attention", { lockKey: "server:1" });
      await database.sql(
        `UPDATE operations SET output = '{"retiring": {"externalId": "old"}}', cloud_id = (SELECT id FROM clouds) WHERE id = $1`,
        [rebuilt],
      );
      await server("new");
      cloud.servers = [
        remote("old", "stopped", { markers: [`op=${built}.1`] }),
        remote("other", "stopped", { markers: [`op=${built}.1`] }),
        remote("new", "active", { markers: [`op=${rebuilt}.1`] }),
      ];
      const reported = async () => (await sync("servers")).lateTwins.map((twin) => twin.externalId);

      expect(await reported()).toEqual(["other"]);

      await database.sql(
        `UPDATE operations SET state = 'failed', finished_at = clock() - interval '1 minute' WHERE id = $1`,
        [rebuilt],
      );
      expect(await reported()).toEqual(["old", "other"]);
    });

    test("150 servers that all changed are written with their events", async () => {
      cloud.servers = [];
      for (let n = 0; n < 150; n += 1) {
        await server(`s${n}`);
        cloud.servers.push(remote(`s${n}`, "stopped"));
      }

      expect(await sync("servers")).toMatchObject({ state: "completed", updated: 150 });
      expect(await events()).toHaveLength(150);
    });
  });

  describe("the schedule", () => {
    test("runs everything at start, again only when it is due, and then by the clock", async () => {
      cloud.flavors = [flavor(1)];
      const clouds = { get: () => cloud, list: () => [cloud] };
      const scheduled: { name: string; everyMs: number; run: () => Promise<void> }[] = [];
      const options = {
        database,
        clouds,
        log,
        enabled: true,
        intervalMs: 300_000,
        schedule: (name: string, everyMs: number, run: () => Promise<void>) =>
          scheduled.push({ name, everyMs, run }),
      };
      const runs = async () =>
        (await database.sql("SELECT id FROM sync_runs WHERE state = 'completed'")).length;

      await scheduleSync(options);
      expect(scheduled).toEqual([expect.objectContaining({ name: "sync:main", everyMs: 300_000 })]);
      expect(await runs()).toBe(4);
      await scheduleSync(options);
      expect(await runs()).toBe(4);
      await scheduled[0]?.run();
      expect(await runs()).toBe(8);
      await moveClock(database, 301_000);
      await scheduleSync(options);
      expect(await runs()).toBe(12);
      await scheduleSync({ ...options, enabled: false });
      expect(await runs()).toBe(12);
    });

    test("a cloud that does not answer is asked once, not four times", async () => {
      cloud.failure = new ServiceError("unreachable", "The cloud does not answer.");

      expect(await syncCloud({ database, cloud, requester: "system", log })).toEqual([
        expect.objectContaining({ resource: "flavors", state: "failed" }),
      ]);
    });
  });

  test("old runs go, running and recent ones stay", async () => {
    cloud.flavors = [flavor(1)];
    await sync("flavors");
    await moveClock(database, 31 * 24 * 3600_000);
    await sync("flavors");

    expect(await dropOldRows(database, { syncRunsDays: 30, deliveriesDays: 30 })).toBe(1);
    expect(await database.sql("SELECT id FROM sync_runs")).toHaveLength(1);
  });
});
