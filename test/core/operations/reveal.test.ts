import { afterEach, beforeEach, expect, it } from "vitest";
import { eachBackend } from "../../support/database.ts";
import { createScene, type Scene } from "./scene.ts";

eachBackend("revealing a secret", (database) => {
  let at: Scene;
  let token: string;

  beforeEach(async () => {
    at = await createScene({ database: database() });
    const done = await at.order("web-1");
    const [button] = await at.database.sql<{ token: string }>(
      `SELECT token FROM capabilities WHERE operation_id = $1 AND action = 'secret.reveal'`,
      [done.id],
    );
    token = button?.token ?? "";
  });
  afterEach(() => at.close());

  const show = (person: Scene["sam"]) => at.entrance.reveal(token, person, "console");

  it("is claimed once by two presses at once", async () => {
    const pressed = await Promise.allSettled([show(at.sam), show(at.sam)]);
    expect(pressed.map((result) => result.status).toSorted()).toEqual(["fulfilled", "rejected"]);
    const refused = pressed.find((result) => result.status === "rejected");
    expect(refused?.reason).toMatchObject({ code: "conflict" });
  });

  it("can be claimed again when it could not be shown", async () => {
    const first = await show(at.sam);
    await first.release();
    const second = await show(at.sam);
    expect(second.text).toBe(first.text);
  });

  it("is deleted once it was shown, even when it is released afterwards", async () => {
    const shown = await show(at.sam);
    await shown.burn();
    expect(await at.database.sql(`SELECT 1 FROM secrets`)).toEqual([]);
    await expect(show(at.sam)).rejects.toMatchObject({ code: "conflict" });
    await shown.release();
    await expect(show(at.sam)).rejects.toMatchObject({ code: "expired" });
  });

  it("is refused to everybody else, and that costs the asker nothing", async () => {
    await expect(show(at.rita)).rejects.toMatchObject({ code: "forbidden" });
    // Another customer is not even told that there is such a button.
    await expect(show(at.bob)).rejects.toMatchObject({ code: "expired" });
    expect((await show(at.sam)).text).toMatch(/\S{12,}/);
    const told = await at.database.sql(
      `SELECT principal_id AS who, outcome FROM audit_entries WHERE action = 'secret.reveal' AND principal_kind = 'staff' ORDER BY seq`,
    );
    expect(told).toEqual([
      { who: "rita", outcome: "denied" },
      { who: "sam", outcome: "allowed" },
    ]);
  });

  it("is over when its time is", async () => {
    await at.later(25 * 3_600_000);
    await expect(show(at.sam)).rejects.toMatchObject({ code: "expired" });
  });
});
