import { Webhook } from "standardwebhooks";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type Receiver, startReceiver } from "../../src/sandbox/receiver.ts";

const SECRET = `whsec_${Buffer.from("a secret of the tests, 32 bytes!").toString("base64")}`;
const OTHER = `whsec_${Buffer.from("another secret of 32 bytes here!").toString("base64")}`;

let receiver: Receiver;

beforeEach(async () => {
  receiver = await startReceiver({ secret: SECRET });
});
afterEach(() => receiver.close());

async function deliver(id: string, secret = SECRET): Promise<number> {
  const body = JSON.stringify({ type: "server.created", data: { name: "web-1" } });
  const at = new Date();
  const headers = {
    "content-type": "application/json",
    "webhook-id": id,
    "webhook-timestamp": String(Math.floor(at.getTime() / 1000)),
    "webhook-signature": new Webhook(secret).sign(id, at, body),
  };
  return (await fetch(receiver.url, { method: "POST", headers, body })).status;
}

describe("the webhook receiver", () => {
  it("verifies, and tells a first delivery from a repeated one", async () => {
    expect(await deliver("evt_1")).toBe(204);
    expect(await deliver("evt_1")).toBe(204);

    expect(receiver.deliveries).toMatchObject([
      {
        id: "evt_1",
        type: "server.created",
        verified: true,
        duplicate: false,
        body: { data: { name: "web-1" } },
      },
      { id: "evt_1", verified: true, duplicate: true },
    ]);
  });

  it("refuses a wrong signature with 401 and says why", async () => {
    expect(await deliver("evt_2", OTHER)).toBe(401);
    expect(receiver.deliveries).toMatchObject([{ verified: false, status: 401 }]);
    expect(receiver.deliveries[0]?.problem).toBeTruthy();

    receiver.useSecret(OTHER);
    expect(await deliver("evt_2", OTHER)).toBe(204);
    expect(receiver.deliveries.at(-1)?.duplicate).toBe(false);
  });

  it("answers as told, in turn, and counts a refused delivery as not received", async () => {
    receiver.answerWith(500, 410, 0);
    expect(await deliver("evt_3")).toBe(500);
    expect(await deliver("evt_3")).toBe(410);
    await expect(deliver("evt_3")).rejects.toThrow("fetch failed");
    expect(await deliver("evt_3")).toBe(204);
    expect(receiver.deliveries.map(({ duplicate }) => duplicate)).toEqual([false, false, false, false]);
  });
});
