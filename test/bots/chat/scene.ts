/** What stands behind a bot in the chat suites: operations and cards in the embedded database, and the real projector. */
import { pino } from "pino";
import { createProjector, type Projector } from "../../../src/bots/projector.ts";
import type { CardSource } from "../../../src/bots/turn.ts";
import type { Bot, Platform } from "../../../src/core/bot.ts";
import { readLines } from "../../../src/core/operations/card.ts";
import type { Answer, Request } from "../../../src/core/request.ts";
import type { View } from "../../../src/core/view.ts";
import { localWake } from "../../../src/core/wake.ts";
import { newId, newPublicId } from "../../../src/database/id.ts";
import { moveClock, testDatabase } from "../../support/database.ts";

export interface Scene {
  /** For FakeEntrance.script.dispatch: an operation with its card; the same key again is the same operation. */
  enter(request: Request): Promise<Extract<Answer, { kind: "operation" }>>;
  /** The operation's next state and a line for its thread. */
  become(operationId: string, state: string, line: string): Promise<void>;
  /** Added to the cards from now on. */
  extra(view: Partial<View>): void;
  /** A projector's turn, some seconds later by every clock but the stand-in's own. */
  tick(): Promise<void>;
  operations(): Promise<number>;
  cardOf(operationId: string): Promise<string | null>;
  attach(bot: Bot): void;
  close(): Promise<void>;
}

export async function chatScene(platform: Platform): Promise<Scene> {
  const database = await testDatabase();
  let extra: Partial<View> = {};
  let projector: Projector | undefined;
  let passedMs = 0;

  const source: CardSource = {
    async renderCard(queryable, id) {
      const [row] = await queryable.sql<{ version: number; logSeq: number; state: string; publicId: string }>(
        `SELECT version, log_seq AS "logSeq", state, public_id AS "publicId" FROM operations WHERE id = $1`,
        [id],
      );
      if (row === undefined) throw new Error("no such operation");
      const final = row.state === "succeeded";
      const view: View = {
        title: `Build web-1: ${row.state}`,
        tone: final ? "success" : "progress",
        footer: row.publicId,
        ...extra,
      };
      return { version: row.version, logSeq: row.logSeq, final, view };
    },
    readLines,
  };

  async function existing(key: string): Promise<{ id: string; publicId: string } | undefined> {
    const rows = await database.sql<{ id: string; publicId: string }>(
      `SELECT id, public_id AS "publicId" FROM operations WHERE idempotency_key = $1`,
      [key],
    );
    return rows[0];
  }

  const scene: Scene = {
    async enter({ action, idempotencyKey, origin }) {
      const view: View = { title: "Build web-1", tone: "progress" };
      const before = await existing(idempotencyKey);
      if (before !== undefined) {
        return { kind: "operation", operationId: before.id, publicId: before.publicId, existing: true, view };
      }
      const [id, publicId] = [newId(), newPublicId("op")];
      await database.sql(
        `INSERT INTO operations (id, public_id, action, spec_version, state, input, plan, plan_hash, idempotency_key, request_hash,
           requester_kind, requester_id, requester_name, source) VALUES ($1, $2, $3, 1, 'queued', '{}', '{}', 'h', $4, 'h', 'staff', 'a', 'A', $5)`,
        [id, publicId, action, idempotencyKey, platform],
      );
      if (origin !== null) {
        await database.sql(
          `INSERT INTO cards (id, operation_id, platform, workspace, channel, user_id) VALUES ($1, $2, $3, $4, $5, $6)`,
          [newId(), id, platform, origin.workspace, origin.channel, origin.userId],
        );
      }
      return { kind: "operation", operationId: id, publicId, existing: false, view };
    },
    async become(operationId, state, line) {
      await database.sql(
        `WITH o AS (UPDATE operations SET log_seq = log_seq + 1, version = version + 1, state = $2,
           finished_at = CASE WHEN $2 = 'succeeded' THEN clock() END WHERE id = $1 RETURNING id, log_seq)
         INSERT INTO operation_log (operation_id, seq, level, text) SELECT id, log_seq, 'info', $3 FROM o`,
        [operationId, state, line],
      );
      await scene.tick();
    },
    extra(view) {
      extra = view;
    },
    async tick() {
      passedMs += 5_000;
      await moveClock(database, passedMs);
      await projector?.tick();
    },
    async operations() {
      const [row] = await database.sql<{ count: number }>("SELECT count(*)::int AS count FROM operations");
      return row?.count ?? 0;
    },
    async cardOf(operationId) {
      const [row] = await database.sql<{ ref: string | null }>(
        "SELECT message_ref AS ref FROM cards WHERE operation_id = $1",
        [operationId],
      );
      return row?.ref ?? null;
    },
    attach(bot) {
      projector = createProjector({
        database,
        messengers: new Map([[platform, bot.messenger]]),
        source,
        wake: localWake(),
        log: pino({ level: "silent" }),
        now: () => Date.now() + passedMs,
      });
    },
    close: () => database.close(),
  };
  return scene;
}
