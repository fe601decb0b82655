import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Sandbox, startSandbox } from "../../src/demo/sandbox.ts";
import { generateSecret, parseSecrets, signatureHeaders } from "../../src/webhooks/signature.ts";
import { type Given, runIn } from "./run-in.ts";

const folder = mkdtempSync(join(tmpdir(), "ratatosk-cli-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const run = (args: string[], given: Given = {}) => runIn(folder, args, given);

describe("manifest", () => {
  it("prints Discord's commands as JSON", async () => {
    const { code, out, err } = await run(["manifest", "discord"]);
    expect({ code, err }).toEqual({ code: 0, err: "" });
    expect(JSON.parse(out)).toContainEqual(expect.objectContaining({ name: "server", type: 1 }));
  });

  it("prints Slack's manifest once it knows the address, with the prefix", async () => {
    const env = { RATATOSK_PUBLIC_URL: "https://bot.example", SLACK_COMMAND_PREFIX: "rt-" };
    const { code, out } = await run(["manifest", "slack"], { env });
    expect(code).toBe(0);
    expect(JSON.parse(out).features.slash_commands).toContainEqual(
      expect.objectContaining({ command: "/rt-server", url: "https://bot.example/slack/events" }),
    );
    const without = await run(["manifest", "slack"]);
    expect(without.code).toBe(78);
    expect(without.err).toContain("set RATATOSK_PUBLIC_URL, or give --url");
    const socket = await run(["manifest", "slack", "--socket"]);
    expect(JSON.parse(socket.out).settings).toMatchObject({
      socket_mode_enabled: true,
      interactivity: { is_enabled: true },
    });
    expect(socket.out).not.toContain("http");
  });
});

describe("webhook", () => {
  const body = Buffer.from('{"type":"server.created","amount":10.50}');
  const signed = (secret: string, more: { id?: string; at?: number } = {}) => {
    const timestampSeconds = more.at ?? Math.floor(Date.now() / 1000);
    const headers = signatureHeaders(parseSecrets(secret), {
      id: more.id ?? "evt_1",
      timestampSeconds,
      body,
    });
    return Object.entries(headers).flatMap(([name, value]) => ["-H", `${name}: ${value}`]);
  };

  it("verifies what was signed, and nothing else", async () => {
    const secret = (await run(["webhook", "secret"])).out.trim();
    const env = { WEBHOOK_SECRET: secret };
    const good = await run(["webhook", "verify", ...signed(secret)], { env, stdin: body });
    expect(good).toMatchObject({ code: 0, err: "" });
    expect(good.out).toContain("evt_1 is genuine");

    const changed = await run(["webhook", "verify", ...signed(secret)], {
      env,
      stdin: Buffer.from(`${body.toString()} `),
    });
    expect(changed.code).toBe(1);
    const other = await run(["webhook", "verify", ...signed(generateSecret())], { env, stdin: body });
    expect(other).toMatchObject({ code: 1, out: "" });
    expect(other.err).not.toContain(secret);
  });

  it("takes the secret from a file, and the age that it is told", async () => {
    const secret = generateSecret();
    writeFileSync(join(folder, "secret"), `${secret}\n`);
    const args = ["webhook", "verify", "--secret-file", "secret", ...signed(secret, { at: 1_700_000_000 })];
    const old = await run(args, { stdin: body });
    expect(old.code).toBe(1);
    expect(old.err).toMatch(/timestamp/);
    const allowed = await run([...args, "--tolerance", "9999999999"], { stdin: body });
    expect(allowed.code).toBe(0);
  });

  it("says where the secret may come from", async () => {
    const { code, err } = await run(["webhook", "verify", ...signed(generateSecret())], { stdin: body });
    expect(code).toBe(1);
    expect(err).toContain("WEBHOOK_SECRET");
  });
});

describe("usage", () => {
  it.each([
    [["sync", "rnu"]],
    [["manifest", "irc"]],
    [["sync", "run", "--type", "planets"]],
    [["console"]],
    [["--nonsense"]],
  ])("%j is 2", async (args) => {
    const { code, out, err } = await run(args);
    expect(code).toBe(2);
    expect(out).toBe("");
    expect(err).toContain("error:");
  });

  it("help is 0", async () => {
    expect(await run(["--help"])).toMatchObject({ code: 0, err: "" });
  });

  it("needs a cloud for what asks one", async () => {
    for (const args of [
      ["connection", "test"],
      ["sync", "run"],
      ["console", "--as", "staff:sam"],
    ]) {
      const { code, err } = await run(args);
      expect({ code, err }).toEqual({ code: 78, err: expect.stringMatching(/^No cloud is configured\./) });
    }
  });
});

describe("doctor", () => {
  it("is content with nothing configured, and makes nothing", async () => {
    const { code, out } = await run(["doctor"]);
    expect(code).toBe(0);
    expect(out).toContain("– database         embedded, made in");
    expect(out).toContain("✓ commands");
    expect(out).not.toContain("\u001b");
  });

  it("tells every problem of the configuration at once", async () => {
    const path = join(folder, "wrong.yaml");
    writeFileSync(path, "clowds: {}\nstaff: [{name: sam, role: king}]\n");
    const { code, out } = await run(["doctor"], { env: { RATATOSK_CONFIG: path } });
    expect(code).toBe(1);
    expect(out).toContain('did you mean "clouds"?');
    expect(out).toContain("staff");
  });

  it("says that Redis or PostgreSQL do not answer", async () => {
    const port = await unusedPort();
    const env = {
      REDIS_URL: `redis://:hunter2@127.0.0.1:${port}`,
      DATABASE_URL: `postgresql://u:hunter2@127.0.0.1:${port}/x`,
    };
    const { code, out } = await run(["doctor"], { env });
    expect(code).toBe(1);
    expect(out).toMatch(/✗ redis +.*ECONNREFUSED/);
    expect(out).toMatch(/✗ database +.*ECONNREFUSED/);
    expect(out).not.toContain("hunter2");
  });
});

describe("with a cloud", () => {
  let sandbox: Sandbox;
  let env: Record<string, string>;
  beforeAll(async () => {
    sandbox = await startSandbox(() => undefined);
    env = { RATATOSK_CONFIG: sandbox.configPath };
  });
  afterAll(() => sandbox.close());

  it("tests the connection, masks secrets and counts", async () => {
    const { code, out } = await run(["connection", "test", "--verbose"], { env });
    expect(code).toBe(0);
    const [, secret = ""] =
      /application_credential_secret: (\S+)/.exec(readFileSync(sandbox.configPath, "utf8")) ?? [];
    expect(secret).not.toBe("");
    expect(out).not.toContain(secret);
    expect(out).toMatch(/auth\.applicationCredentialSecret +••••••••\n/);
    expect(out).toMatch(/✓ flavors +[1-9]/);
    expect(out).toMatch(/✓ images +[1-9]/);
  });

  it("names the nearest cloud for one that is not there", async () => {
    const { code, err } = await run(["connection", "test", "nowhere"], { env });
    expect(code).toBe(78);
    expect(err).toContain('There is no cloud "nowhere"');
  });

  it("synchronises into a new database, which the doctor then finds in order", async () => {
    const all = await run(["sync", "run"], { env });
    expect(all).toMatchObject({ code: 0, err: "" });
    for (const resource of ["flavors", "images", "networks", "servers"]) {
      expect(all.out).toMatch(new RegExp(`✓ ${resource} +completed:`));
    }
    const one = await run(["sync", "run", "--type", "images", "flavors"], { env });
    expect(one.out).toMatch(/flavors +completed: [1-9]\d* seen, 0 new/);
    expect(one.out).not.toContain("networks");

    const { code, out } = await run(["doctor"], { env });
    expect(code).toBe(0);
    expect(out).toMatch(/✓ database +embedded, PostgreSQL \S+, up to date/);
    expect(out).toMatch(/– secret key +made at the first start/);
  }, 60_000);
});

async function unusedPort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === "string") throw new Error("no port");
  return address.port;
}
