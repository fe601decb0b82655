/** The checklist before a start. What is wrong is named with what to do about it, and the exit code says so. */
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeEach, expect, it } from "vitest";
import { stringify } from "yaml";
import { startSandbox } from "../../src/demo/sandbox.ts";
import { type PveSimulator, startPveSimulator } from "../../src/sandbox/pve/index.ts";
import { fakeDiscord } from "../support/discord-api.ts";
import { fakeSlack } from "../support/slack-api.ts";
import { type Ran, runIn } from "./run-in.ts";

const folders: string[] = [];
let folder = "";
let simulator: PveSimulator | undefined;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ratatosk-doctor-"));
  folders.push(folder);
});
afterEach(async () => {
  await simulator?.close();
  simulator = undefined;
});
afterAll(() => {
  for (const path of folders) rmSync(path, { recursive: true, force: true });
});

/** Runs the doctor on this ratatosk.yaml. */
function doctor(document: object, env: Record<string, string> = {}): Promise<Ran> {
  const path = join(folder, "ratatosk.yaml");
  writeFileSync(path, stringify(document));
  return runIn(folder, ["doctor"], { env: { RATATOSK_CONFIG: path, ...env } });
}

async function cluster(settings: Record<string, unknown> = {}) {
  simulator = await startPveSimulator({ speed: 0 });
  const pve = {
    type: "pve",
    url: simulator.url,
    tokenId: simulator.tokenId,
    tokenSecret: simulator.tokenSecret,
    fingerprint: simulator.fingerprint,
    vmidRange: "5000-5999",
    network: "vmbr0",
    ...settings,
  };
  return { simulator, document: { clouds: { pve1: pve } } };
}

it("a smoke run on the sandbox finds everything in order", async () => {
  const sandbox = await startSandbox(() => undefined);
  try {
    const { code, out, err } = await runIn(folder, ["doctor"], {
      env: { RATATOSK_CONFIG: sandbox.configPath },
    });
    expect({ code, err }).toEqual({ code: 0, err: "" });
    for (const line of [
      /✓ node/,
      /✓ configuration +clouds 2, staff 2, customers 2/,
      /✓ webhook billing +127\.0\.0\.1:\d+ at 127\.0\.0\.1/,
      /✓ identity/,
      /✓ api +PVE 9/,
      /✓ privileges/,
      /✓ vmidRange +5000-5999: 0 guests, all ours/,
      /✓ templates +\d, all with a cloud-init drive and the guest agent/,
      /✓ storage/,
      /✓ commands/,
    ]) {
      expect(out).toMatch(line);
    }
    expect(out).not.toContain("✗");
  } finally {
    await sandbox.close();
  }
}, 30_000);

it("names what a cluster lacks, each with what to do", async () => {
  const { simulator: pve, document } = await cluster({
    network: "vmbr7",
    storage: "nowhere",
    rescueIso: "local:iso/other.iso",
    isos: { "debian-13": "local:iso/debian-13.iso", old: "local:iso/old.iso", odd: "nowhere:iso/odd.iso" },
  });
  pve.addStranger({ vmid: 5003, name: "intruder" });
  pve.changeVm(9001, { config: { ide2: null } });
  pve.changeVm(9002, { config: { agent: null } });

  const { code, out } = await doctor(document);

  expect(code).toBe(1);
  expect(out).toMatch(/✗ network +there is no "vmbr7"; there are vmbr0/);
  expect(out).toMatch(
    /✗ vmidRange +5000-5999 has guests that are not ours: 5003 intruder on n1\n +Move them/,
  );
  expect(out).toMatch(
    /✗ templates +without a cloud-init drive.*ubuntu-24\.04 \(9001 on n1\)\n +Add one: qm set/,
  );
  expect(out).toMatch(/without the guest agent.*windows-2025 \(9002 on n1\)\n +Install qemu-guest-agent/);
  expect(out).toMatch(/✗ storage +n1, n2: no nowhere for disks\n +Allow it/);
  expect(out).toMatch(/✗ rescueIso +n1, n2: no local:iso\/other\.iso\n +Upload it there/);
  expect(out).toMatch(
    /✗ isos +n1, n2: no local:iso\/old\.iso \(old\)\n +n1, n2: no nowhere:iso\/odd\.iso \(odd\)\n +Upload them/,
  );
  expect(out).not.toContain("debian-13.iso");
});

it("says which privileges a token lacks, and looks no further", async () => {
  const { simulator: pve, document } = await cluster();
  const { id: tokenId, secret: tokenSecret } = pve.tokens.readonly;
  const { code, out } = await doctor({ clouds: { pve1: { ...document.clouds.pve1, tokenId, tokenSecret } } });
  expect(code).toBe(1);
  expect(out).toMatch(/✗ privileges +lacks .*VM\.Allocate/);
  expect(out).toContain("Look at clouds.pve1 in ratatosk.yaml");
  expect(out).not.toContain("vmidRange");
  expect(out).not.toContain(tokenSecret);
});

it("a VM of ours in the range is no stranger, and an unset rescue image only advice", async () => {
  const { simulator: pve, document } = await cluster();
  pve.addStranger({ vmid: 5000, description: "op:01234567-89ab-7def-8123-456789abcdef.1\nMade by Ratatosk" });
  pve.addFault({ path: "/qemu/9001/config", kind: "status", status: 595, times: 0 });
  const { code, out } = await doctor(document);
  expect(out).toMatch(/✓ vmidRange +5000-5999: 1 guests, all ours/);
  expect(out).toMatch(/– rescueIso +not set/);
  expect(out).toMatch(/– isos +none/);
  // What cannot be looked at is not called good.
  expect(out).toMatch(/✗ templates +not looked at/);
  expect(code).toBe(1);
});

it("webhooks to places that are not called are told before the first event", async () => {
  const webhook = (name: string, url: string) => ({
    name,
    url,
    secret: `whsec_${Buffer.alloc(32, 1).toString("base64")}`,
  });
  const { code, out } = await doctor({
    webhooks: [
      webhook("inside", "https://127.0.0.1:9/hook"),
      webhook("plain", "http://192.0.2.1/hook"),
      webhook("lost", "https://no-such-name.invalid/hook"),
    ],
  });
  expect(code).toBe(1);
  expect(out).toMatch(/✗ webhook inside +127\.0\.0\.1 is at 127\.0\.0\.1, which is not a public address/);
  expect(out).toContain("policies.allowPrivateWebhooks");
  expect(out).toMatch(/✗ webhook plain/);
  expect(out).toMatch(/✗ webhook lost +no-such-name\.invalid does not resolve.*\n +Correct the url/);
  const allowed = await doctor({
    webhooks: [webhook("inside", "http://127.0.0.1:9/hook")],
    policies: { allowPrivateWebhooks: ["127.0.0.0/8"] },
  });
  expect(allowed.code).toBe(0);
});

it("a key file that others may read is a problem, also before the database is there", async () => {
  mkdirSync(join(folder, "data"));
  const path = join(folder, "data", "secret.key");
  writeFileSync(path, Buffer.alloc(32, 3).toString("base64"));
  chmodSync(path, 0o640);
  const open = await doctor({});
  expect(open.code).toBe(1);
  expect(open.out).toMatch(/✗ secret key +other users.*mode 640\)\n +Take that away: chmod 600/);
  chmodSync(path, 0o600);
  const closed = await doctor({});
  expect(closed).toMatchObject({ code: 0, out: expect.stringMatching(/✓ secret key/) });
});

it("tries the chat tokens, and says which one is refused", async () => {
  const slack = await fakeSlack();
  const discord = await fakeDiscord();
  const id = "100000000000000009";
  const env = {
    SLACK_BOT_TOKEN: "xoxb-canary",
    SLACK_APP_TOKEN: "xapp-canary",
    SLACK_API_URL: slack.url,
    DISCORD_TOKEN: "discord-canary",
    DISCORD_APPLICATION_ID: id,
    DISCORD_GUILD_ID: "100000000000000010",
    DISCORD_API_URL: discord.url,
  };
  const me = { status: 200, body: { id: "1", username: "rata" } };
  try {
    discord.next(/^GET \/users\/%40me$/, me);
    discord.next(/^GET \/applications\/@me$/, { status: 200, body: { id, name: "Ratatosk" } });
    const good = await doctor({}, env);
    expect(good).toMatchObject({ code: 0, err: "" });
    expect(good.out).toMatch(/✓ slack +ratatosk in Acme\n✓ slack socket/);
    expect(good.out).toMatch(/✓ discord +rata of Ratatosk\n✓ discord server/);

    slack.next("auth.test", { body: { ok: false, error: "invalid_auth" } });
    discord.next(/^GET \/users\/%40me$/, me);
    discord.next(/^GET \/applications\/@me$/, { status: 200, body: { id: "7" } });
    const wrong = await doctor({}, env);
    expect(wrong.code).toBe(1);
    expect(wrong.out).toMatch(/✗ slack +Slack refuses SLACK_BOT_TOKEN \(invalid_auth\)/);
    expect(wrong.out).toMatch(/✗ discord +the token is rata's, of the application 7/);

    slack.next("apps.connections.open", { body: { ok: false, error: "not_allowed_token_type" } });
    discord.next(/^GET \/users\/%40me$/, { status: 401, body: { message: "401: Unauthorized", code: 0 } });
    const other = await doctor({}, env);
    expect(other.code).toBe(1);
    expect(other.out).toMatch(/✗ slack socket +Slack refuses SLACK_APP_TOKEN \(not_allowed_token_type\)/);
    expect(other.out).toMatch(/✗ discord +Discord refuses DISCORD_TOKEN/);
    expect(`${good.out}${wrong.out}${other.out}`).not.toContain("canary");
  } finally {
    await slack.close();
    await discord.close();
  }
});
