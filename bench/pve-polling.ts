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
  const ask = async (method: string, path: string, parameters?: Record<string, string>): Promise<unknown> => {
    const inQuery = method === "DELETE" && parameters !== undefined;
    const response = await agent.request({
      origin: access.url,
      path: `/api2/json${path}${inQuery ? `?${new URLSearchParams(parameters)}` : ""}`,
      method: method as "GET",
      headers: {
        authorization: `PVEAPIToken=${access.tokenId}=${access.tokenSecret}`,
        ...(inQuery || parameters === undefined
          ? {}
          : { "content-type": "application/x-www-form-urlencoded" }),
      },
      ...(inQuery || parameters === undefined ? {} : { body: new URLSearchParams(parameters).toString() }),
    });
    const text = await response.body.text();
    if (response.statusCode !== 200) throw new Error(`${method} ${path}: ${response.statusCode} ${text}`);
    return JSON.parse(text);
  };

  async function untilEnded(upid: string): Promise<void> {
    const node = upid.split(":")[1] ?? "";
    for (;;) {
      const { data } = TaskStatus.parse(
        await ask("GET", `/nodes/${node}/tasks/${encodeURIComponent(upid)}/status`),
      );
      if (data.status === "stopped" && data.exitstatus === "OK") return;
      if (data.status === "stopped") throw new Error(`${upid} ended with ${data.exitstatus}`);
      await delay(pollEveryMs);
    }
  }

  try {
    await Promise.all(
      lists.map(async (writes) => {
        for (const { method, path, parameters } of writes) {
          const { data } = Answer.parse(await ask(method, path, parameters));
          if (data !== null) await untilEnded(data);
        }
      }),
    );
  } finally {
    await agent.close();
  }
}
