import { describe, expect, it } from "vitest";
import { methods } from "../../src/sandbox/pve/api.ts";
import { startPveSimulator } from "../../src/sandbox/pve/index.ts";
import { type ApiRule, invalidRequests, loadPveApi } from "../support/pve-schema.ts";
import { pveClient } from "./pve-client.ts";

const api = loadPveApi();
const reason = api
  ? ""
  : " (skipped: PVE's API description is not on this machine; PVE_API_SCHEMA names its file)";

/** What both sides say of a parameter, in one form: the description writes some bounds as text. */
function limitsOf(rule: ApiRule): object {
  const bound = (value: number | string | undefined): number | undefined =>
    value === undefined ? undefined : Number(value);
  const { type, minimum, maximum, minLength, maxLength } = rule;
  return {
    type,
    optional: rule.optional === 1 || rule.optional === true,
    enum: rule.enum?.toSorted(),
    minimum: bound(minimum),
    maximum: bound(maximum),
    minLength: bound(minLength),
    maxLength: bound(maxLength),
  };
}

describe.skipIf(!api)(`against the API description of PVE 9.2${reason}`, () => {
  const rows = methods.map((method) => ({ name: `${method.method} ${method.path}`, method }));

  it.each(rows)("$name takes the parameters it takes there", ({ name, method }) => {
    const described = api?.get(name);
    expect(described, "no such method").toBeDefined();
    const theirs = described?.parameters?.properties ?? {};

    expect(Object.keys(method.schema).toSorted()).toEqual(Object.keys(theirs).toSorted());
    const wanted = Object.entries(theirs).map(([key, rule]) => [key, limitsOf(rule)]);
    const ours = Object.keys(theirs).map((key) => [key, limitsOf(method.schema[key] ?? {})]);
    expect(Object.fromEntries(ours)).toEqual(Object.fromEntries(wanted));
  });

  it.each(rows)("$name is done where it is done there", ({ name, method }) => {
    const described = api?.get(name);
    expect(method.proxied).toBe(described?.proxyto === "node");
    expect(method.protected).toBe(described?.protected === 1);
  });

  it.each(rows.filter(({ method }) => typeof method.permission !== "string"))(
    "$name needs the right it needs there",
    ({ name, method }) => {
      const permission =
        typeof method.permission === "function" ? method.permission("9.2") : method.permission;
      const text = JSON.stringify(api?.get(name)?.permissions?.check);
      if (typeof permission === "string") throw new Error("filtered above");
      for (const privilege of permission.privileges) expect(text).toContain(`"${privilege}"`);
      expect(text).toContain(permission.path);
    },
  );

  it("would take every request of a VM's life", async () => {
    const simulator = await startPveSimulator({ speed: 0, tls: false });
    const client = pveClient(simulator);
    try {
      await client.clone(500, { name: "web-1", description: "op:1.1", storage: "local", format: "qcow2" });
      const vm = "/nodes/n1/qemu/500";
      await client.exit(client.put(`${vm}/resize`, { disk: "scsi0", size: "8G" }));
      await client.put(`${vm}/config`, {
        cores: 2,
        memory: 1024,
        ipconfig0: "ip=dhcp",
        cipassword: "secret",
        tags: "a;b",
      });
      await client.call("PUT", `${vm}/config`, { json: { onboot: true, cores: 3 } });
      await client.exit(client.post(`${vm}/config`, { description: "new" }));
      await client.exit(client.post(`${vm}/status/start`));
      await client.post(`${vm}/agent/set-user-password`, { username: "root", password: "second" });
      await client.post(`${vm}/agent/exec`, { command: ["echo", "hello"] });
      await client.exit(client.post(`${vm}/snapshot`, { snapname: "s1", vmstate: 1 }));
      await client.exit(client.post(`${vm}/snapshot/s1/rollback`));
      await client.exit(client.del(`${vm}/snapshot/s1`));
      await client.exit(client.post(`${vm}/status/shutdown`, { timeout: 60, forceStop: 1 }));
      await client.get("/nodes/n1/tasks", { source: "all", since: 1, limit: 500, statusfilter: "ok,error" });
      await client.get("/cluster/resources", { type: "vm" });
      await client.exit(client.del(vm, { purge: 1, "destroy-unreferenced-disks": 1 }));

      expect(simulator.state.requests.filter(({ status }) => status !== 200)).toEqual([]);
      expect(invalidRequests(api ?? new Map(), simulator.state.requests)).toEqual([]);
    } finally {
      client.close();
      await simulator.close();
    }
  });

  it("notices a request that PVE would refuse", () => {
    const wrong = {
      method: "PUT",
      template: "/nodes/{node}/qemu/{vmid}/resize",
      status: 200,
      params: { node: "n1", vmid: "12", size: "x", nonsense: "1" },
    };
    expect(invalidRequests(api ?? new Map(), [wrong])).toHaveLength(4);
  });
});

it.runIf(!api)("says why the API description was not looked at", () => {
  expect(reason).toContain("PVE_API_SCHEMA");
});
