/** What is written down: events without gaps, in the transaction of what they tell, and an audit trail that verifies. */
import { createHash } from "node:crypto";
import { afterEach, beforeEach, expect, it } from "vitest";
import { eachBackend } from "../../support/database.ts";
import { createScene, order, type Scene } from "./scene.ts";

eachBackend("the record", (database) => {
  let at: Scene;

  beforeEach(async () => {
    at = await createScene({ database: database() });
  });
  afterEach(() => at.close());

  async function live(): Promise<void> {
    await at.order("web-1");
    await at.run(at.sam, "server.resize", { server: "web-1", plan: "m" });
    await at.run(at.sam, "server.power", { server: "web-1", action: "stop" });
    await Promise.all(["a", "b", "c"].map((name) => at.order(name)));
    await at.run(at.sam, "server.provision", { ...order, name: "bad", metadata: "osr_fail=spawn" });
    await at.run(at.rita, "server.delete", { server: "web-1" });
    await at.ask(at.bob, "server.power", { server: "a", action: "stop" }).catch(() => undefined);
  }

  it("numbers each server's events without gaps, and tells every change of its state", {
    timeout: 40_000,
  }, async () => {
    await live();
    const servers = await at.database.sql<{
      id: string;
      state: string;
      seq: string;
      sameTransaction: boolean;
    }>(
      `SELECT s.id, s.state, s.event_seq::text AS seq,
         s.xmin = (SELECT e.xmin FROM events e WHERE e.server_id = s.id AND e.sequence = s.event_seq) AS "sameTransaction"
       FROM servers s`,
    );
    expect(servers).toHaveLength(5);
    for (const server of servers) {
      const events = await at.database.sql<{
        sequence: string;
        type: string;
        data: { from?: string; to?: string };
      }>(
        `SELECT sequence::text AS sequence, type, data FROM events WHERE server_id = $1 ORDER BY events.sequence`,
        [server.id],
      );
      expect(events.map((event) => Number(event.sequence))).toEqual(events.map((_, index) => index + 1));
      expect(Number(server.seq)).toBe(events.length);
      const moves = events
        .filter((event) => event.type === "server.state.changed")
        .map((event) => event.data);
      expect(moves[0]?.from).toBe("pending");
      for (const [index, move] of moves.entries()) expect(move.from).toBe(moves[index - 1]?.to ?? "pending");
      expect(moves.at(-1)?.to).toBe(server.state);
      expect(server.sameTransaction).toBe(true);
    }
  });

  it("chains the audit trail, refusals included", { timeout: 40_000 }, async () => {
    await live();
    const entries = await at.database.sql<{
      hashed: string;
      hash: string;
      previous: string;
      outcome: string;
    }>(
      `SELECT concat_ws('|', previous_hash, seq, extract(epoch FROM at)::numeric(20, 3), principal_kind, principal_id, principal_name,
         source, action, coalesce(subject, ''), coalesce(customer_id::text, ''), coalesce(operation_id::text, ''), outcome,
         coalesce(reason, ''), data::text) AS hashed, hash, previous_hash AS previous, outcome
       FROM audit_entries ORDER BY seq`,
    );
    expect(entries.length).toBeGreaterThan(8);
    expect(new Set(entries.map((entry) => entry.outcome))).toEqual(new Set(["allowed", "denied"]));
    for (const [index, entry] of entries.entries()) {
      expect(entry.previous).toBe(entries[index - 1]?.hash ?? "");
      expect(createHash("sha256").update(entry.hashed).digest("hex")).toBe(entry.hash);
    }
    await expect(at.database.sql(`UPDATE audit_entries SET reason = 'x'`)).rejects.toThrow("append-only");
  });

  it("keeps the chain with many writers at once", { timeout: 40_000 }, async () => {
    await Promise.all(
      Array.from({ length: 12 }, (_, n) =>
        at.ask(at.sam, "server.provision", { ...order, name: `web-${n}` }),
      ),
    );
    const rows = await at.database.sql<{ ok: boolean }>(
      `SELECT previous_hash = lag(hash, 1, '') OVER (ORDER BY seq) AS ok FROM audit_entries`,
    );
    expect(rows).toHaveLength(12);
    expect(rows.every((row) => row.ok)).toBe(true);
  });
});
