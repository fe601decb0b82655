/** A local Discord for tests that need no harness: records the REST calls of the bot and hands it interactions. */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { Client } from "discord.js";
import { close, listen } from "./slack-api.ts";

export interface DiscordCall {
  /** "POST /channels/1/messages", without version and query. */
  route: string;
  body: Record<string, unknown>;
}

export interface DiscordReply {
  status?: number;
  headers?: Record<string, string>;
  body?: unknown;
  /** Cut the connection: before the call counts, or after it (the answer is lost). */
  cut?: "before" | "after";
}

export interface FakeDiscord {
  /** To be given as `apiUrl`. */
  url: string;
  calls: DiscordCall[];
  /** Bodies of the calls whose route matches. */
  of(route: RegExp): Record<string, unknown>[];
  /** The answer to the next call that matches; later ones are answered normally again. */
  next(route: RegExp, reply: DiscordReply): void;
  /** The first answer to an interaction: `{type, data}`. */
  first(interaction: string): Record<string, unknown> | undefined;
  /** What the answer shows now: the last edit, or the first answer's data. */
  shown(interaction: string): Record<string, unknown> | undefined;
  close(): Promise<void>;
}

/** An answer of Discord that says no. */
export function refusal(code: number, status = 400): DiscordReply {
  return { status, body: { message: "refused", code } };
}

/** `now`: what time the ids of new messages hold. */
export async function fakeDiscord(now: () => number = Date.now): Promise<FakeDiscord> {
  const calls: DiscordCall[] = [];
  const planned: { route: RegExp; reply: DiscordReply }[] = [];
  const acknowledged = new Set<string>();
  const nonces = new Map<string, string>();
  let made = 0n;
  const newId = () => String((BigInt(now() - 1_420_070_400_000) << 22n) + (made += 1n));

  function normal(route: string, body: Record<string, unknown>): DiscordReply {
    const interaction = /^POST \/interactions\/(\d+)\//.exec(route)?.[1];
    if (interaction !== undefined) {
      if (acknowledged.has(interaction)) return refusal(40_060);
      acknowledged.add(interaction);
      return { status: 204 };
    }
    const nonce =
      typeof body["nonce"] === "string" && body["enforce_nonce"] === true ? body["nonce"] : undefined;
    const id = (nonce === undefined ? undefined : nonces.get(nonce)) ?? newId();
    if (nonce !== undefined) nonces.set(nonce, id);
    return { body: route.endsWith("/commands") ? [] : { id } };
  }

  async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const text = await textOf(request);
    const path = (request.url ?? "").replace(/^\/api\/v10/, "").replace(/\?.*$/, "");
    const route = `${request.method ?? ""} ${path}`;
    const body: unknown = text === "" ? {} : JSON.parse(text);
    const at = planned.findIndex((each) => each.route.test(route));
    const plan = at === -1 ? undefined : planned.splice(at, 1)[0]?.reply;
    if (plan?.cut !== "before") calls.push({ route, body: body as Record<string, unknown> });
    const isDone = plan === undefined || plan.cut === "after";
    const reply = isDone ? normal(route, body as Record<string, unknown>) : plan;
    if (plan?.cut !== undefined) {
      request.socket.destroy();
      return;
    }
    const json = reply.body === undefined ? undefined : JSON.stringify(reply.body);
    response.writeHead(reply.status ?? 200, {
      ...(json === undefined ? {} : { "content-type": "application/json" }),
      ...reply.headers,
    });
    response.end(json);
  }

  const server = createServer((request, response) => void handle(request, response));
  const url = `${await listen(server)}/api`;

  const fake: FakeDiscord = {
    url,
    calls,
    of: (route) => calls.filter((call) => route.test(call.route)).map(({ body }) => body),
    next: (route, reply) => void planned.push({ route, reply }),
    first: (interaction) => fake.of(new RegExp(`^POST /interactions/${interaction}/`))[0],
    shown(interaction) {
      const edit = fake.of(new RegExp(`^PATCH /webhooks/\\d+/token-${interaction}/`)).at(-1);
      return edit ?? (fake.first(interaction)?.["data"] as Record<string, unknown> | undefined);
    },
    close: () => close(server),
  };
  return fake;
}

async function textOf(request: IncomingMessage): Promise<string> {
  let text = "";
  for await (const chunk of request) text += String(chunk);
  return text;
}

let interactions = 0;
interface Actions {
  InteractionCreate: { handle(raw: unknown): void };
}

/** As the gateway would: discord.js makes its interaction of it and emits that. The id is the answer's key. */
export function deliver(client: Client, user: string, over: Record<string, unknown>): string {
  const id =
    typeof over["id"] === "string"
      ? over["id"]
      : String(1_600_000_000_000_000_000n + BigInt((interactions += 1)));
  // discord.js has no public way in for an interaction that comes from elsewhere; this one is pinned by these tests.
  const { actions } = client as unknown as { actions: Actions };
  actions.InteractionCreate.handle({
    id,
    application_id: "1",
    token: `token-${id}`,
    version: 1,
    channel_id: "20",
    channel: { id: "20", type: 0, name: "ops", permissions: "0" },
    guild_id: "10",
    guild: { id: "10", locale: "en-US", features: [] },
    member: {
      user: { id: user, username: user, discriminator: "0", avatar: null },
      roles: [],
      permissions: "0",
    },
    locale: "en-US",
    guild_locale: "en-US",
    app_permissions: "0",
    entitlements: [],
    authorizing_integration_owners: {},
    context: 0,
    ...over,
  });
  return id;
}

type Raw = Record<string, unknown>;

/** `server resize` with options; booleans and numbers as Discord sends them. */
export function commandData(
  words: string,
  options: Record<string, string | number | boolean> = {},
  focused?: string,
): Raw {
  const [name = "", ...path] = words.split(" ");
  const types = { string: 3, number: 4, boolean: 5 } as const;
  let inner: Raw[] = Object.entries(options).map(([key, value]) => {
    const type = types[typeof value as keyof typeof types];
    return key === focused ? { name: key, value, type, focused: true } : { name: key, value, type };
  });
  for (const [depth, verb] of [...path.entries()].toReversed()) {
    inner = [{ name: verb, type: depth === path.length - 1 ? 1 : 2, options: inner }];
  }
  return { type: focused === undefined ? 2 : 4, data: { id: "9", name, type: 1, options: inner } };
}

export function buttonData(customId: string, message: Raw = {}): Raw {
  return {
    type: 3,
    data: { custom_id: customId, component_type: 2 },
    message: {
      id: "30",
      channel_id: "20",
      author: { id: "1", username: "ratatosk", discriminator: "0", avatar: null },
      content: "",
      embeds: [],
      components: [],
      attachments: [],
      mentions: [],
      mention_roles: [],
      timestamp: "2026-11-21T12:00:00.000Z",
      flags: 0,
      type: 0,
      ...message,
    },
  };
}

/** `text`: text inputs; `chosen`: selects. */
export function modalData(
  customId: string,
  text: Record<string, string>,
  chosen: Record<string, string> = {},
): Raw {
  const labels = [
    ...Object.entries(text).map(([name, value]) => ({ type: 4, custom_id: name, value })),
    ...Object.entries(chosen).map(([name, value]) => ({ type: 3, custom_id: name, values: [value] })),
  ];
  return {
    type: 5,
    data: { custom_id: customId, components: labels.map((component, id) => ({ type: 18, id, component })) },
  };
}
