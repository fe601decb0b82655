import { readFileSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { Agent, request } from "undici";
import type { Database } from "../../../src/database/client.ts";
import { isReal, type Variables, variables } from "./live-variables.ts";

async function until(isSo: () => Promise<boolean>): Promise<void> {
  const end = performance.now() + 60_000;
  // oxlint-disable-next-line no-await-in-loop -- a poll
  while (!(await isSo())) {
    if (performance.now() > end)
      throw new Error("what this suite made could not be removed: VMs 990000 to 990999");
    // oxlint-disable-next-line no-await-in-loop
    await delay(isReal ? 1_000 : 5);
  }
}

/** The node past our client: what PVE itself says, and how what is left of a suite is removed. */
export interface LiveNode {
  variables: Variables;
  name: string;
  tokenId: string;
  tokenSecret: string;
  /** What counts now; throws with PVE's words. */
  config(vmid: number): Promise<Record<string, string>>;
  /** What counts from the next start on. */
  wanted(vmid: number): Promise<Record<string, string>>;
  /** The keys that wait for a restart. */
  pending(vmid: number): Promise<string[]>;
  status(vmid: number): Promise<string>;
  snapshots(vmid: number): Promise<string[]>;
  /** VMIDs of the range that carry a marker of these operations. */
  own(rows: Database): Promise<number[]>;
  removeOwn(rows: Database): Promise<void>;
  close(): Promise<void>;
}

export async function openNode(range: readonly [number, number]): Promise<LiveNode> {
  const values = await variables();
  const [tokenId = "", tokenSecret = ""] = values.TEST_PVE_TOKEN.split("=");
  const agent = new Agent({ connect: { ca: readFileSync(values.TEST_PVE_CA, "utf8") } });
  const name = values.TEST_PVE_NODE;

  async function call<T>(method: "GET" | "PUT" | "POST" | "DELETE", path: string, form = ""): Promise<T> {
    const inBody = form !== "" && (method === "PUT" || method === "POST");
    const { statusCode, statusText, body } = await request(
      `${values.TEST_PVE_URL}/api2/json/nodes/${name}/qemu${path}${inBody || form === "" ? "" : `?${form}`}`,
      {
        dispatcher: agent,
        method,
        headers: {
          authorization: `PVEAPIToken=${tokenId}=${tokenSecret}`,
          ...(inBody ? { "content-type": "application/x-www-form-urlencoded" } : {}),
        },
        ...(inBody ? { body: form } : {}),
      },
    );
    const text = await body.text();
    if (statusCode !== 200) throw new Error(`${method} ${path}: ${statusCode} ${statusText} ${text}`);
    return (JSON.parse(text) as { data: T }).data;
  }

  const texts = (config: Record<string, unknown>) =>
    Object.fromEntries(Object.entries(config).map(([key, value]) => [key, String(value)]));
  const opened: LiveNode = {
    variables: values,
    name,
    tokenId,
    tokenSecret,
    config: async (vmid) => texts(await call("GET", `/${vmid}/config`, "current=1")),
    wanted: async (vmid) => texts(await call("GET", `/${vmid}/config`)),
    async pending(vmid) {
      const rows = await call<{ key: string; pending?: unknown; delete?: number }[]>(
        "GET",
        `/${vmid}/pending`,
      );
      return rows
        .filter((row) => row.pending !== undefined || row.delete !== undefined)
        .map((row) => row.key);
    },
    status: async (vmid) => (await call<{ status: string }>("GET", `/${vmid}/status/current`)).status,
    async snapshots(vmid) {
      const rows = await call<{ name: string }[]>("GET", `/${vmid}/snapshot`);
      return rows
        .map((row) => row.name)
        .filter((one) => one !== "current")
        .toSorted();
    },
    async own(rows) {
      const ids = (await rows.sql<{ id: string }>(`SELECT id FROM operations`)).map(({ id }) => id);
      const vms = await call<{ vmid: number | string }[]>("GET", "");
      const found: number[] = [];
      for (const vmid of vms
        .map((vm) => Number(vm.vmid))
        .filter((one) => one >= range[0] && one <= range[1])) {
        // oxlint-disable-next-line no-await-in-loop -- a few
        const { description = "" } = await opened.config(vmid);
        if (ids.some((id) => description.includes(`op:${id}.`))) found.push(vmid);
      }
      return found;
    },
    async removeOwn(rows) {
      for (const vmid of await opened.own(rows)) {
        // oxlint-disable no-await-in-loop -- a few
        await call("PUT", `/${vmid}/config`, "protection=0");
        await call("POST", `/${vmid}/status/stop`);
        await until(async () => (await opened.status(vmid)) === "stopped");
        await call("DELETE", `/${vmid}`, "purge=1&destroy-unreferenced-disks=1");
        // oxlint-enable no-await-in-loop
      }
      await until(async () => (await opened.own(rows)).length === 0);
    },
    async close() {
      await agent.close();
      await values.stop();
    },
  };
  return opened;
}
