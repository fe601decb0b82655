import { pino } from "pino";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { createProjector, type ProjectorOptions } from "../../src/bots/projector.ts";
import type { CardSource } from "../../src/bots/turn.ts";
import {
  type Budget,
  ChatError,
  type Messenger,
  type Platform,
  type ThreadLine,
} from "../../src/core/bot.ts";
import { readLines } from "../../src/core/operations/card.ts";
import { localWake } from "../../src/core/wake.ts";
import type { Database } from "../../src/database/client.ts";
import { newId, newPublicId } from "../../src/database/id.ts";
import { clean, moveClock, testDatabase } from "../support/database.ts";

const log = pino({ level: "silent" });

let database: Database;
beforeAll(async () => {
  database = await testDatabase();
});
afterAll(() => database.close());
beforeEach(async () => {
  await moveClock(database, 0);
  await clean(database);
});

interface Operation {
  id: string;
  card: string;
}

async function operation(
  over: {
    platform?: string;
    workspace?: string;
    channel?: string;
    userId?: string | null;
    audience?: string;
  } = {},
): Promise<Operation> {
  const [id, card] = [newId(), newId()];
  await database.sql(
    `INSERT INTO operations (id, public_id, action, spec_version, state, input, plan, plan_hash, idempotency_key, request_hash,
       requester_kind, requester_id, requester_name, source)
     VALUES ($1, $2, 'server.resize', 1, 'queued', '{}', '{}', 'h', $3, 'h', 'staff', 'a', 'Alice', 'slack')`,
    [id, newPublicId("op"), id],
  );
  await database.sql(
    `INSERT INTO cards (id, operation_id, platform, workspace, channel, user_id, audience) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
    [
      card,
      id,
      over.platform ?? "slack",
      over.workspace ?? "T1",
      over.channel ?? "C1",
      over.userId === undefined ? "U1" : over.userId,
      over.audience ?? "staff",
    ],
  );
  return { id, card };
}

async function enter(id: string, state: string): Promise<void> {
  await database.sql(
    `UPDATE operations SET state = $2, version = version + 1,
       finished_at = CASE WHEN $2 IN ('succeeded', 'failed') THEN clock() END WHERE id = $1`,
    [id, state],
  );
}

async function say(id: string, text: string, audience = "everyone"): Promise<void> {
  await database.sql(
    `WITH o AS (UPDATE operations SET log_seq = log_seq + 1, version = version + 1 WHERE id = $1 RETURNING log_seq)
     INSERT INTO operation_log (operation_id, seq, level, audience, text) SELECT $1, log_seq, 'info', $2, $3 FROM o`,
    [id, audience, text],
  );
}

async function cardRow(id: string): Promise<Record<string, unknown>> {
  const [row] = await database.sql<Record<string, unknown>>(`SELECT * FROM cards WHERE id = $1`, [id]);
  return row ?? {};
}

/** Titles are states, so that a test reads what the platform shows. */
const source: CardSource = {
  async renderCard(queryable, id) {
    const [row] = await queryable.sql<{ version: number; logSeq: number; state: string }>(
      `SELECT version, log_seq AS "logSeq", state FROM operations WHERE id = $1`,
      [id],
    );
    if (row === undefined) throw new Error("gone");
    const final = ["succeeded", "failed"].includes(row.state);
    const view = { title: row.state, tone: final ? ("success" as const) : ("progress" as const) };
    return {
      version: row.version,
      logSeq: row.logSeq,
      final,
      needsPerson: row.state === "needs_attention",
      view,
    };
  },
  readLines,
};

type Sent =
  | { kind: "post"; handle: string; title: string; channel: string }
  | { kind: "edit"; handle: string; title: string }
  | { kind: "lines"; handle: string; texts: string[]; mention: boolean };

interface Recorder extends Messenger {
  sent: Sent[];
  /** The error that the next send of this kind ends with, made or not. */
  failNext(kind: Sent["kind"], error: ChatError, made?: boolean): void;
  /** Runs while a send is on its way. */
  during: (kind: Sent["kind"]) => Promise<void>;
}

const ample: Budget = { editsPerMinute: 6000, postsPerMinute: 6000, channelPostGapMs: 0 };

function recorder(budget: Budget = ample, platform: Platform = "slack", name = "m"): Recorder {
  const sent: Sent[] = [];
  const failures: { kind: Sent["kind"]; error: ChatError; made: boolean }[] = [];
  let handles = 0;
  const send = async (entry: Sent): Promise<void> => {
    await self.during(entry.kind);
    const index = failures.findIndex(({ kind }) => kind === entry.kind);
    const [failure] = index < 0 ? [] : failures.splice(index, 1);
    if (failure === undefined || failure.made) sent.push(entry);
    if (failure !== undefined) throw failure.error;
  };
  const self: Recorder = {
    platform,
    budget,
    sent,
    during: () => Promise.resolve(),
    failNext: (kind, error, made = false) => void failures.push({ kind, error, made }),
    async postCard(target, card) {
      const handle = `${name}${(handles += 1)}`;
      await send({ kind: "post", handle, title: card.title, channel: target.channel });
      return handle;
    },
    editCard: (_target, handle, card) => send({ kind: "edit", handle, title: card.title }),
    postLines: (_target, handle, lines: ThreadLine[], options) =>
      send({ kind: "lines", handle, texts: lines.map(({ text }) => text), mention: options.mention }),
  };
  return self;
}

function projector(messenger: Messenger | Messenger[], over: Partial<ProjectorOptions> = {}) {
  const all = Array.isArray(messenger) ? messenger : [messenger];
  return createProjector({
    database,
    messengers: new Map(all.map((each) => [each.platform, each])),
    source,
    wake: localWake(),
    log,
    ...over,
  });
}

function titles(sent: readonly Sent[]): string[] {
  return sent.map((entry) =>
    entry.kind === "lines"
      ? `${entry.kind}: ${entry.texts.join(", ")}${entry.mention ? " @" : ""}`
      : `${entry.kind}: ${entry.title}`,
  );
}

describe("what is shown", () => {
  it("posts one card, edits it to the latest state only, and tells the thread in one message", async () => {
    const { id, card } = await operation();
    const messenger = recorder();
    const { tick } = projector(messenger);
    await tick();
    await tick();
    expect(titles(messenger.sent)).toEqual(["post: queued"]);

    await enter(id, "running");
    await say(id, "Cloning");
    await enter(id, "waiting");
    await say(id, "Still cloning");
    await moveClock(database, 1000);
    await tick();
    expect(titles(messenger.sent).slice(1)).toEqual(["edit: waiting", "lines: Cloning, Still cloning"]);

    // The end does not wait until the last progress has settled.
    await say(id, "Done");
    await enter(id, "succeeded");
    await tick();
    await tick();
    expect(titles(messenger.sent).slice(3)).toEqual(["edit: succeeded", "lines: Done @"]);
    expect(await cardRow(card)).toMatchObject({
      announced: true,
      failures: 0,
      problem: null,
      lease_by: null,
    });
  });

  it("keeps the end's line for the post that mentions, when the end comes while the card is sent", async () => {
    const { id } = await operation();
    const messenger = recorder();
    messenger.during = async (kind) => {
      if (kind !== "post") return;
      await say(id, "Done");
      await enter(id, "succeeded");
    };
    const { tick } = projector(messenger);
    await tick();
    await tick();
    await tick();
    expect(titles(messenger.sent)).toEqual(["post: queued", "edit: succeeded", "lines: Done @"]);
  });

  it("does not edit more often than progress settles", async () => {
    const { id } = await operation();
    const messenger = recorder();
    const { tick } = projector(messenger);
    await tick();
    await enter(id, "running");
    await tick();
    expect(titles(messenger.sent)).toEqual(["post: queued"]);
    await moveClock(database, 1000);
    await tick();
    expect(titles(messenger.sent)).toEqual(["post: queued", "edit: running"]);
  });

  it("keeps staff's lines from a customer's thread, and has nothing left to do after them", async () => {
    const { id, card } = await operation({ audience: "customer" });
    const messenger = recorder();
    const { tick } = projector(messenger);
    await say(id, "req-1 No valid host", "staff");
    await tick();
    await moveClock(database, 5000);
    await tick();
    expect(titles(messenger.sent)).toEqual(["post: queued"]);
    expect(await cardRow(card)).toMatchObject({ shown_log: 1 });
  });

  it("announces an end without lines, and mentions nobody when nobody asked", async () => {
    const asked = await operation();
    const billing = await operation({ userId: null, channel: "C2" });
    for (const { id } of [asked, billing]) await enter(id, "failed");
    const messenger = recorder();
    await projector(messenger).tick();
    expect(
      titles(messenger.sent)
        .filter((text) => text.startsWith("lines"))
        .toSorted(),
    ).toEqual(["lines: failed", "lines: failed @"]);
  });

  it("mentions staff when an operation needs a person", async () => {
    const { id } = await operation();
    await say(id, "The answer was lost");
    await enter(id, "needs_attention");
    const messenger = recorder();
    await projector(messenger).tick();
    expect(titles(messenger.sent)).toEqual(["post: needs_attention", "lines: The answer was lost @"]);
  });

  it("still follows an announced card when something changes late", async () => {
    const { id } = await operation();
    const messenger = recorder();
    const { tick } = projector(messenger);
    await enter(id, "succeeded");
    await tick();
    await say(id, "The password was revealed");
    await moveClock(database, 1000);
    await tick();
    expect(titles(messenger.sent).at(-1)).toBe("lines: The password was revealed");
  });
});

describe("several processes and restarts", () => {
  it("posts a card once when two projectors see it at the same time", async () => {
    for (let n = 0; n < 6; n += 1) await operation({ channel: `C${n}` });
    const [one, two] = [recorder(), recorder()];
    await Promise.all([projector(one).tick(), projector(two).tick()]);
    expect([...one.sent, ...two.sent]).toHaveLength(6);
  });

  it("leaves what is another console's to that console", async () => {
    await operation({ platform: "console", workspace: "customer:ada", channel: "1" });
    await operation({ platform: "console", workspace: "staff:sam", channel: "2" });
    const ada = { ...recorder(ample, "console"), workspaces: () => ["customer:ada"] };
    const sam = { ...recorder(ample, "console"), workspaces: () => ["staff:sam"] };
    await projector(ada).tick();
    expect(ada.sent.map((entry) => entry.kind === "post" && entry.channel)).toEqual(["1"]);
    await projector(sam).tick();
    expect(sam.sent.map((entry) => entry.kind === "post" && entry.channel)).toEqual(["2"]);
  });

  it("goes on where it stopped: a new process edits the same card and tells only what is new", async () => {
    const { id } = await operation();
    await say(id, "Cloning");
    const before = recorder();
    await projector(before).tick();
    await enter(id, "succeeded");
    const after = recorder();
    await projector(after).tick();
    expect(titles(after.sent)).toEqual(["edit: succeeded", "lines: succeeded @"]);
    expect(after.sent[0]?.handle).toBe(before.sent[0]?.handle);
  });

  it("takes a card over when its process died while sending, and the dead one's answer changes nothing", async () => {
    const { card } = await operation();
    const slow = recorder();
    let release: () => void = () => {};
    let reached: () => void = () => {};
    const inFlight = new Promise<void>((resolve) => (reached = resolve));
    slow.during = () => new Promise((resolve) => ((release = resolve), reached()));
    const dying = projector(slow).tick();
    await inFlight;

    const other = recorder(ample, "slack", "other");
    await projector(other).tick();
    expect(other.sent).toEqual([]);
    await moveClock(database, 31_000);
    await projector(other).tick();
    expect(titles(other.sent)).toEqual(["post: queued"]);
    const shown = await cardRow(card);
    release();
    await dying;
    expect(await cardRow(card)).toMatchObject({
      message_ref: shown["message_ref"],
      shown_version: shown["shown_version"],
    });
  });

  it("wakes up by a nudge, and ends what it sends before it stops", async () => {
    await operation();
    const wake = localWake();
    const messenger = recorder();
    const running = projector(messenger, { wake });
    running.start();
    wake.nudge("cards");
    await expect.poll(() => messenger.sent.length).toBe(1);
    await running.stop();
    await operation();
    wake.nudge("cards");
    await projector(recorder()).tick();
    expect(messenger.sent).toHaveLength(1);
  });
});

describe("failures", () => {
  it("posts anew when a card is gone, and gives up on one that is deleted again and again", async () => {
    const { id, card } = await operation();
    const refusals: unknown[] = [];
    const messenger = recorder();
    const { tick } = projector(messenger, { onRefused: (refusal) => refusals.push(refusal) });
    await tick();
    await enter(id, "running");
    messenger.failNext("edit", new ChatError("gone", "The message is gone."));
    let at = 1000;
    for (let n = 0; n < 2; n += 1) {
      await moveClock(database, at);
      await tick();
      at += 61_000;
    }
    expect(titles(messenger.sent)).toEqual(["post: queued", "post: running"]);
    expect(messenger.sent.map(({ handle }) => handle)).toEqual(["m1", "m2"]);

    await say(id, "line");
    for (let n = 0; n < 8; n += 1) {
      messenger.failNext("lines", new ChatError("gone", "The message is gone."));
      await moveClock(database, at);
      await tick();
      at += 61_000;
    }
    expect(messenger.sent.filter(({ kind }) => kind === "post").length).toBeLessThanOrEqual(5);
    expect(refusals).toHaveLength(1);
    expect(await cardRow(card)).toMatchObject({
      problem: expect.stringContaining("deleted again and again"),
    });
  });

  it("backs off while the platform is away and loses nothing", async () => {
    const { id, card } = await operation();
    const messenger = recorder();
    const { tick } = projector(messenger);
    for (let n = 0; n < 3; n += 1)
      messenger.failNext("post", new ChatError("unavailable", "Slack could not be reached."));
    await tick();
    await tick();
    expect(await cardRow(card)).toMatchObject({ failures: 1, problem: "Slack could not be reached." });
    await moveClock(database, 1100);
    await tick();
    await moveClock(database, 3200);
    await tick();
    expect(await cardRow(card)).toMatchObject({ failures: 3 });
    await enter(id, "succeeded");
    await tick();
    expect(messenger.sent).toEqual([]);
    await moveClock(database, 8000);
    await tick();
    expect(titles(messenger.sent)).toEqual(["post: succeeded", "lines: succeeded @"]);
    expect(await cardRow(card)).toMatchObject({ failures: 0, problem: null, announced: true });
  });

  it("may post twice when the answer is lost, and then keeps to the second card", async () => {
    const { id } = await operation();
    const messenger = recorder();
    const { tick } = projector(messenger);
    messenger.failNext("post", new ChatError("unavailable", "cut"), true);
    await tick();
    await moveClock(database, 1100);
    await tick();
    await enter(id, "succeeded");
    await tick();
    expect(titles(messenger.sent)).toEqual([
      "post: queued",
      "post: queued",
      "edit: succeeded",
      "lines: succeeded @",
    ]);
    expect(messenger.sent[2]?.handle).toBe("m2");
  });

  it("records a refusal, tells staff once, and catches up when it is repaired", async () => {
    const { id, card } = await operation();
    const refusals: unknown[] = [];
    const messenger = recorder();
    const { tick } = projector(messenger, { onRefused: (refusal) => refusals.push(refusal) });
    for (let n = 0; n < 2; n += 1)
      messenger.failNext("post", new ChatError("refused", "Slack refused the message (is_archived)."));
    await tick();
    await moveClock(database, 16 * 60_000);
    await tick();
    expect(refusals).toEqual([
      {
        operationId: id,
        platform: "slack",
        channel: "C1",
        problem: "Slack refused the message (is_archived).",
      },
    ]);
    expect(await cardRow(card)).toMatchObject({ problem: "Slack refused the message (is_archived)." });
    await enter(id, "succeeded");
    await moveClock(database, 32 * 60_000);
    await tick();
    expect(titles(messenger.sent)).toEqual(["post: succeeded", "lines: succeeded @"]);
  });

  it("survives a card that cannot be rendered, and shows the others", async () => {
    const broken = await operation();
    await operation({ channel: "C2" });
    const messenger = recorder();
    const renderCard: CardSource["renderCard"] = (queryable, id, audience) =>
      id === broken.id ? Promise.reject(new Error("a bug")) : source.renderCard(queryable, id, audience);
    await projector(messenger, { source: { ...source, renderCard } }).tick();
    expect(titles(messenger.sent)).toEqual(["post: queued"]);
    expect(await cardRow(broken.card)).toMatchObject({
      failures: 1,
      problem: expect.stringContaining("the log has the details"),
    });
  });
});

describe("budgets", () => {
  /** A clock for the buckets; the database's own is moved apart. */
  function watch() {
    let ms = 1_000_000;
    return { now: () => ms, pass: (by: number) => void (ms += by) };
  }

  it("never edits more than the workspace may in a minute, and ends come before progress", async () => {
    const budget: Budget = { editsPerMinute: 12, postsPerMinute: 6000, channelPostGapMs: 0 };
    const messenger = recorder(budget);
    const clock = watch();
    const { tick } = projector(messenger, { now: clock.now });
    const operations: Operation[] = [];
    for (let n = 0; n < 8; n += 1) operations.push(await operation({ channel: `C${n}` }));
    await tick();
    expect(messenger.sent.filter(({ kind }) => kind === "post")).toHaveLength(8);

    let shift = 0;
    let shownAt = Number.POSITIVE_INFINITY;
    const last = operations.at(-1);
    for (let second = 0; second < 60; second += 1) {
      for (const { id } of operations.slice(0, -1)) await enter(id, "running");
      // Appears when progress has already taken what it may.
      if (second === 1 && last !== undefined) await enter(last.id, "succeeded");
      await moveClock(database, (shift += 1000));
      await tick();
      if (titles(messenger.sent).includes("edit: succeeded")) shownAt = Math.min(shownAt, second);
      clock.pass(1000);
    }
    expect(shownAt).toBe(1);
    const edits = messenger.sent.filter(({ kind }) => kind === "edit");
    expect(edits.length).toBeLessThanOrEqual(12);
    expect(edits.length).toBeGreaterThanOrEqual(8);
    // Fairly: each of the running ones had its turn.
    expect(new Set(edits.map(({ handle }) => handle)).size).toBe(8);
  }, 60_000);

  it("keeps the gap between posts into one channel, and lets other channels go on", async () => {
    const messenger = recorder({ editsPerMinute: 6000, postsPerMinute: 6000, channelPostGapMs: 1000 });
    const clock = watch();
    const { tick } = projector(messenger, { now: clock.now });
    await operation();
    await operation();
    await operation({ channel: "C2" });
    await tick();
    expect(messenger.sent).toHaveLength(2);
    await tick();
    expect(messenger.sent).toHaveLength(2);
    clock.pass(1000);
    await tick();
    expect(messenger.sent).toHaveLength(3);
  });

  it("pauses only the workspace and method that the platform names", async () => {
    const messenger = recorder();
    const clock = watch();
    const { tick } = projector(messenger, { now: clock.now });
    const first = await operation();
    await tick();
    const other = await operation({ workspace: "T2", channel: "C9" });
    await tick();
    await enter(first.id, "running");
    messenger.failNext("edit", new ChatError("rate_limited", "slow down", { retryAfterMs: 3000 }));
    await moveClock(database, 1000);
    await tick();
    expect(await cardRow(first.card)).toMatchObject({ failures: 0, problem: null, lease_by: null });

    await enter(first.id, "succeeded");
    await enter(other.id, "running");
    await operation({ channel: "C3" });
    await moveClock(database, 2000);
    await tick();
    expect(titles(messenger.sent).slice(2).toSorted()).toEqual(["edit: running", "post: queued"]);
    clock.pass(3000);
    await tick();
    expect(titles(messenger.sent).slice(4)).toEqual(["edit: succeeded", "lines: succeeded @"]);
  });

  it("is not held up by another platform that hangs", async () => {
    for (let n = 0; n < 12; n += 1) await operation({ channel: `C${n}` });
    await operation({ platform: "discord", workspace: "G1", channel: "1" });
    const [slack, discord] = [recorder(), recorder(ample, "discord")];
    const releases: (() => void)[] = [];
    slack.during = () => new Promise((resolve) => releases.push(resolve));
    const running = projector([slack, discord]);
    const tick = running.tick();
    await expect.poll(() => releases.length).toBe(8);
    await expect.poll(() => discord.sent.length).toBe(1);
    for (const release of releases) release();
    await tick;
  });
});
