/**
 * The baseline of the bench `pve`: the same writes, and the status of each one's task asked for every second until it ends, as
 * bpg's Terraform provider does. It looks at nothing before and verifies nothing after, which is kind to it.
 */
import { setTimeout as delay } from "node:timers/promises";
import { Agent } from "undici";
import { z } from "zod";

export interface PveAccess {
  url: string;
  tokenId: string;
  tokenSecret: string;
  fingerprint: string;
}

/** One write; those that answer with a task's id are waited for. */
export interface Write {
  method: "POST" | "PUT" | "DELETE";
  /** Below /api2/json. */
  path: string;
  parameters?: Record<string, string>;
}

const pollEveryMs = 1_000;
const Answer = z.object({ data: z.string().nullable() });
const TaskStatus = z.object({ data: z.object({ status: z.string(), exitstatus: z.string().optional() }) });

/** Carries out each list of writes in its order, all lists at the same time. Throws when a task ends badly. */
export async function pollEach(access: PveAccess, lists: readonly (readonly Write[])[]): Promise<void> {
  // The certificate is the simulator's own, and this is no test of TLS.
  const agent = new Agent({ connect: { rejectUnauthorized: false }, connections: 64 });
  const ask = async ({ method, path, parameters }: Write | (Omit<Write, "method"> & { method: "GET" })) => {
    const form = parameters === undefined ? undefined : new URLSearchParams(parameters).toString();
    const inQuery = method === "DELETE" && form !== undefined;
    const response = await agent.request({
      origin: access.url,
      path: `/api2/json${path}${inQuery ? `?${form}` : ""}`,
      method,
      headers: {
        authorization: `PVEAPIToken=${access.tokenId}=${access.tokenSecret}`,
        ...(inQuery || form === undefined ? {} : { "content-type": "application/x-www-form-urlencoded" }),
      },
      ...(inQuery || form === undefined ? {} : { body: form }),
    });
    const text = await response.body.text();
    if (response.statusCode !== 200) throw new Error(`${method} ${path}: ${response.statusCode} ${text}`);
    const answered: unknown = JSON.parse(text);
    return answered;
  };

  async function untilEnded(upid: string): Promise<void> {
    const node = upid.split(":")[1] ?? "";
    for (;;) {
      const path = `/nodes/${node}/tasks/${encodeURIComponent(upid)}/status`;
      const { data } = TaskStatus.parse(await ask({ method: "GET", path }));
      if (data.status === "stopped" && data.exitstatus === "OK") return;
      if (data.status === "stopped") throw new Error(`${upid} ended with ${data.exitstatus}`);
      await delay(pollEveryMs);
    }
  }

  try {
    await Promise.all(
      lists.map(async (writes) => {
        for (const write of writes) {
          const { data } = Answer.parse(await ask(write));
          if (data !== null) await untilEnded(data);
        }
      }),
    );
  } finally {
    await agent.close();
  }
}
