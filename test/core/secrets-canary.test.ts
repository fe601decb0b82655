/**
 * A secret is never in a message, a log, a queue, a webhook or an error. Everything that can go wrong with a
 * password on its way is made to go wrong, and then everything that was written anywhere is searched.
 */
import { once } from "node:events";
import { createServer, type Server } from "node:http";
import { setTimeout as delay } from "node:timers/promises";
import { pino } from "pino";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { userDataOf } from "../../src/clouds/openstack/user-data.ts";
import type { Principal } from "../../src/core/access.ts";
import { ServiceError } from "../../src/core/errors.ts";
import { readLines, renderCard } from "../../src/core/operations/card.ts";
import { createSecretBox, type SecretBox } from "../../src/core/secrets/box.ts";
import { loadMasterKey } from "../../src/core/secrets/master-key.ts";
import type { Database } from "../../src/database/client.ts";
import { createConnector } from "../../src/net/connector.ts";
import { createDispatcher } from "../../src/webhooks/dispatcher.ts";
import { syncEndpoints } from "../../src/webhooks/endpoints.ts";
import { generateSecret } from "../../src/webhooks/signature.ts";
import { moveClock, testDatabase } from "../support/database.ts";
import { createWorld, type World } from "../support/world.ts";

const masterKey = Buffer.alloc(32, 9).toString("base64");
const webhookSecret = generateSecret();

/** The text itself, or what it becomes in JSON, an address, hex, or base64 at any offset. */
function holds(text: string, secret: string): boolean {
  const plain = [secret, encodeURIComponent(secret), Buffer.from(secret).toString("hex")];
  if (plain.some((form) => text.includes(form))) return true;
  const runs = text.match(/[\w+/-]{16,}={0,2}/g) ?? [];
  return runs.some((run) => Buffer.from(run, "base64").includes(secret));
}

describe("secrets", () => {
  let database: Database;
  let world: World;
  let receiver: Server;
  /** Every password that was ever made, by what it was made for. */
  const passwords: string[] = [];
  const log: string[] = [];
  const shown: string[] = [];
  const posted: string[] = [];
  let revealed = "";
  let movedMs = 0;

  beforeAll(async () => {
    database = await testDatabase();
    const secrets = spying(createSecretBox(loadMasterKey({ secretKey: masterKey, dataDir: "/nonexistent" })));
    const logger = pino({ level: "trace" }, { write: (line: string) => void log.push(line) });
    world = await createWorld({ database, log: logger, engine: { secrets }, client: { timeoutMs: 2_000 } });
    receiver = await startReceiver();
    await happen();
    await deliver(secrets, logger);
  }, 120_000);
  afterAll(async () => {
    receiver?.close();
    await world?.close();
    await database?.close();
  });

  function spying(box: SecretBox): SecretBox {
    return {
      ...box,
      store(tx, secret) {
        if (secret.kind === "root_password") passwords.push(secret.plaintext);
        return box.store(tx, secret);
      },
    };
  }

  async function startReceiver(): Promise<Server> {
    const server = createServer((request, response) => {
      let body = "";
      request.on("data", (chunk: Buffer) => (body += chunk.toString()));
      request.on("end", () => {
        posted.push(JSON.stringify([request.headers, body]));
        // What it got comes back, and is kept with the attempt.
        response.writeHead(posted.length % 3 === 0 ? 500 : 200).end(JSON.stringify([request.headers, body]));
      });
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    return server;
  }

  /** Asks; whatever the cloud is to do wrong with the password is armed before the first call. */
  async function play(
    principal: Principal,
    action: string,
    options: Record<string, string>,
    trouble?: (password: string) => void,
  ): Promise<string> {
    try {
      const answer = await world.ask(principal, action, options);
      shown.push(JSON.stringify(answer));
      if (answer.kind !== "operation") return "";
      trouble?.(passwords.at(-1) ?? "");
      const [end] = await Promise.all([world.settle(answer.operationId), passTime(answer.operationId)]);
      shown.push(JSON.stringify(end));
      world.simulator.clearFaults();
      return end.state;
    } catch (error) {
      if (!(error instanceof ServiceError)) throw error;
      const { code, message, facts, staffDetail, stack } = error;
      shown.push(JSON.stringify({ code, message, facts, staffDetail, stack }));
      return code;
    }
  }

  /** A lost request counts as lost when it can no longer be on its way; nobody waits for that here. */
  async function passTime(operationId: string): Promise<void> {
    const before = movedMs;
    for (;;) {
      const [row] = await database.sql<{ isInDoubt: boolean; isOver: boolean }>(
        `SELECT o.finished_at IS NOT NULL OR o.state = 'needs_attention' AS "isOver",
           EXISTS (SELECT FROM operation_steps s WHERE s.operation_id = o.id AND s.in_doubt AND s.state = 'intent') AS "isInDoubt"
         FROM operations o WHERE o.id = $1`,
        [operationId],
      );
      if (row === undefined || row.isOver) return;
      if (row.isInDoubt && movedMs === before) {
        movedMs += 80_000;
        await moveClock(database, movedMs);
      }
      await delay(20);
    }
  }

  /** Nova's 400 repeats the request; a 500 of a broken plug-in may say anything. */
  function quoting(status: number, path: string) {
    return (password: string) => {
      const userData = userDataOf({ user: "debian", password });
      // Only what that request has in it can be quoted.
      const request = path.includes("action")
        ? `{'changePassword': {'adminPass': '${password}'}}`
        : `{'server': {'name': 'x', 'adminPass': '${password}', 'user_data': '${userData}'}}`;
      const body = {
        400: {
          badRequest: {
            code: 400,
            message: `Invalid input for field/attribute server. Value: ${request}. ${request} is not valid`,
          },
        },
        409: {
          conflictingRequest: {
            code: 409,
            message: `Failed to set admin password ${password} on x because of ${request}`,
          },
        },
        500: { computeFault: { code: 500, message: `<class 'ValueError'> ${password}: ${request}` } },
      }[status];
      world.simulator.addFault({ method: "POST", path, kind: "status", status, body });
    };
  }

  async function happen(): Promise<void> {
    const { sam, rita, ada, simulator } = world;
    const order = (name: string) => ({ name, customer: "ada", plan: "s", image: "debian-12" });
    const create = "/servers$";
    const act = "/action$";
    const states = {
      provision: await play(sam, "server.provision", order("web-1")),
      password: await play(ada, "server.password", { server: "web-1" }),
      quoted: await play(sam, "server.provision", order("web-2"), quoting(400, create)),
      broken: await play(sam, "server.provision", order("web-3"), quoting(500, create)),
      lost: await play(sam, "server.provision", order("web-4"), () => {
        simulator.addFault({ method: "POST", path: create, kind: "drop_after" });
      }),
      never: await play(sam, "server.provision", order("web-5"), () => {
        simulator.addFault({ method: "POST", path: create, kind: "drop" });
      }),
      quotedChange: await play(ada, "server.password", { server: "web-1" }, quoting(400, act)),
      refusedChange: await play(ada, "server.password", { server: "web-1" }, quoting(409, act)),
      brokenChange: await play(ada, "server.password", { server: "web-1" }, quoting(500, act)),
      lostChange: await play(ada, "server.password", { server: "web-1" }, () => {
        simulator.addFault({ method: "POST", path: act, kind: "drop_after" });
      }),
      credential: await play(sam, "server.power", { server: "web-1", action: "stop" }, () => {
        simulator.revokeTokens();
        const message = `The application credential ${simulator.credentials.applicationCredentialSecret} is not valid.`;
        const body = { error: { code: 401, message, title: "Unauthorized" } };
        simulator.addFault({
          method: "POST",
          path: "/auth/tokens",
          kind: "status",
          status: 401,
          body,
          times: 0,
        });
      }),
    };
    expect(states).toMatchObject({
      provision: "succeeded",
      password: "succeeded",
      quoted: "failed",
      lost: "succeeded",
      quotedChange: "failed",
      refusedChange: "failed",
      lostChange: "succeeded",
      credential: "failed",
    });
    shown.push(JSON.stringify(await world.cloud.check()));
    await reveal(ada);
    await play(rita, "server.show", { server: "web-1" });
    await play(ada, "server.list", {});
  }

  /** The latest password of Ada's: seen by her once, and by nothing else. */
  async function reveal(ada: Principal): Promise<void> {
    const [button] = await database.sql<{ token: string }>(
      `SELECT c.token FROM capabilities c JOIN operations o ON o.id = c.operation_id
       WHERE c.action = 'secret.reveal' AND o.requester_id = $1 ORDER BY o.created_at DESC LIMIT 1`,
      [ada.id],
    );
    const secret = await world.entrance.reveal(button?.token ?? "", ada, "console");
    revealed = secret.text;
    await secret.burn();
    await play(ada, "ops.list", {});
    await expect(world.entrance.reveal(button?.token ?? "", ada, "console")).rejects.toThrow(
      /used this button already/,
    );
  }

  async function deliver(secrets: SecretBox, logger: typeof world.engine.log): Promise<void> {
    const address = receiver.address();
    const port = typeof address === "object" ? address?.port : 0;
    const hook = {
      url: `http://127.0.0.1:${port}/`,
      secret: webhookSecret,
      events: ["*"],
      format: "standard",
    };
    await syncEndpoints(database, secrets, [
      { ...hook, name: "billing" },
      { ...hook, name: "adas", customer: "ada" },
      // Nobody listens there.
      { ...hook, name: "dead", url: "http://127.0.0.1:9/" },
    ]);
    await database.sql(`UPDATE events SET position = NULL`);
    const connector = createConnector({ allow: ["127.0.0.0/8"] });
    const dispatcher = createDispatcher({
      database,
      secrets,
      connector,
      log: logger,
      onAlert: (text) => void shown.push(text),
    });
    for (let round = 0; round < 5; round += 1) await dispatcher.tick();
    await connector.close();
  }

  async function dump(): Promise<string> {
    const tables = await database.sql<{ name: string }>(
      `SELECT quote_ident(tablename) AS name FROM pg_tables WHERE schemaname = 'public'`,
    );
    const parts: string[] = [];
    for (const { name } of tables) {
      const rows = await database.sql<{ row: Record<string, unknown> }>(
        `SELECT to_jsonb(t) AS row FROM public.${name} t`,
      );
      for (const { row } of rows) {
        // The one place where they may be, encrypted.
        if (name === "secrets") delete row["ciphertext"];
        parts.push(`${name} ${JSON.stringify(row)}`);
      }
    }
    return parts.join("\n");
  }

  async function cardsAndThreads(): Promise<string> {
    const operations = await database.sql<{ id: string }>("SELECT id FROM operations");
    const parts: unknown[] = [];
    for (const { id } of operations) {
      for (const audience of ["staff", "customer"] as const) {
        parts.push(await renderCard(database, id, audience), await readLines(database, id, 0, audience));
      }
    }
    return JSON.stringify(parts);
  }

  it("are in nothing that was stored, logged, shown or sent", { timeout: 60_000 }, async () => {
    const places = {
      database: await dump(),
      log: log.join(""),
      answers: shown.join("\n"),
      cards: await cardsAndThreads(),
      webhooks: posted.join("\n"),
    };
    const secrets = {
      ...Object.fromEntries(passwords.map((password, index) => [`password ${index + 1}`, password])),
      "application credential": world.simulator.credentials.applicationCredentialSecret,
      "webhook secret": webhookSecret.replace("whsec_", ""),
      "webhook key": Buffer.from(webhookSecret.replace("whsec_", ""), "base64").toString("latin1"),
      "master key": masterKey,
    };
    const found = Object.entries(places).flatMap(([place, text]) =>
      Object.entries(secrets)
        .filter(([, secret]) => holds(text, secret))
        .map(([name]) => `${name} in ${place}`),
    );
    expect(found).toEqual([]);
    // Keystone's tokens are Fernet: https://docs.openstack.org/keystone/latest/admin/fernet-token-faq.html
    for (const [place, text] of Object.entries(places)) expect(text, place).not.toMatch(/gAAAAA[\w-]{20}/);
  });

  it("were looked for where there was something to find", async () => {
    expect(passwords).toHaveLength(10);
    expect(passwords).toContain(revealed);
    expect(new Set(passwords).size).toBe(passwords.length);
    expect(posted.length).toBeGreaterThan(20);
    const lines = JSON.stringify(await dump());
    // What the cloud said did arrive, without the secret in it.
    expect(lines).toContain("values removed");
    expect(lines).toContain("Failed to set admin password");
    // The unknown outcomes were logged, error and all.
    expect(
      log.filter((line) => line.includes('"err":') && line.includes("unknown_outcome")).length,
    ).toBeGreaterThan(2);
  });

  it("would be found", () => {
    const [password = ""] = passwords;
    const encoded = userDataOf({ user: "debian", password });
    for (const text of [
      `x${password}y`,
      `{"user_data":"${encoded}"}`,
      Buffer.from(password).toString("hex"),
    ]) {
      expect(holds(text, password)).toBe(true);
    }
    expect(holds("nothing", password)).toBe(false);
  });
});
