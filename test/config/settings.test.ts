import { cpSync, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseEnv } from "node:util";
import { describe, expect, test } from "vitest";
import { type Env, environmentNames } from "../../src/config/environment.ts";
import { ConfigurationError } from "../../src/config/problems.ts";
import { readSettings, type Settings } from "../../src/config/settings.ts";

const WHSEC = `whsec_${Buffer.alloc(32, 7).toString("base64")}`;
const CLOUD = `
clouds:
  main: { type: openstack, auth: { auth_url: "https://c/v3", username: u, password: canary-pw, project_name: p } }
`;

function directory(files: Record<string, string> = {}): string {
  const dir = mkdtempSync(join(tmpdir(), "ratatosk-config-"));
  for (const [name, text] of Object.entries(files)) writeFileSync(join(dir, name), text);
  return dir;
}

function read(yaml: string, env: Env = {}): Settings {
  return readSettings({ env, cwd: directory({ "ratatosk.yaml": yaml }) });
}

function problemsOf(work: () => unknown): readonly string[] {
  try {
    work();
  } catch (error) {
    if (error instanceof ConfigurationError) return error.problems;
    throw error;
  }
  throw new Error("the settings were accepted");
}

describe("nothing configured", () => {
  test("runs embedded, in the sandbox, with all roles", () => {
    const cwd = directory();

    const settings = readSettings({ env: {}, cwd });

    expect(settings).toMatchObject({
      mode: "embedded",
      sandbox: true,
      host: "127.0.0.1",
      port: 3000,
      logLevel: "info",
      roles: ["bots", "worker", "dispatcher", "api"],
      dataDir: join(cwd, ".data"),
      clouds: [],
      staff: [],
      channels: { operations: [], alerts: [] },
      policies: {
        confirm: { destructive: true, withinMinutes: 30 },
        secretHours: 24,
        deleteGraceHours: 0,
        allowPrivateWebhooks: [],
      },
      sync: { enabled: true, intervalMs: 300_000 },
    });
    expect(settings.slack).toBeUndefined();
    expect(settings.discord).toBeUndefined();
  });

  test("an empty file and empty variables are nothing configured, too", () => {
    const settings = read("# nothing\n", { DATABASE_URL: "", PORT: " ", SLACK_BOT_TOKEN: "" });

    expect(settings).toMatchObject({ mode: "embedded", sandbox: true, port: 3000 });
  });
});

describe("the examples", () => {
  test("ratatosk.example.yaml is accepted as it is, with its variables set", () => {
    const yaml = readFileSync("ratatosk.example.yaml", "utf8");

    const settings = read(yaml, {
      MAIN_CLOUD_SECRET: "s",
      PVE_TOKEN_SECRET: "t",
      BILLING_WEBHOOK_SECRET: WHSEC,
    });

    expect(settings.sandbox).toBe(false);
    expect(settings.clouds).toEqual([
      {
        type: "openstack",
        name: "main",
        auth: {
          authUrl: "https://cloud.example.com:5000/v3",
          applicationCredentialId: "6f0e4b3e3bd44cf1b7b4a6ac4c2b0d2e",
          applicationCredentialSecret: "s",
        },
        region: "RegionOne",
        interface: "public",
        network: "private",
        maxConcurrent: 10,
        timeoutMs: 30_000,
        connectTimeoutMs: 5_000,
        verifyTls: true,
      },
      {
        type: "pve",
        name: "pve-1",
        url: "https://pve1.example.com:8006",
        credential: { kind: "token", tokenId: "ratatosk@pve!bot", tokenSecret: "t" },
        fingerprint: expect.stringMatching(/^9F:86:/),
        vmidRange: [100_000, 199_999],
        network: "vmbr0",
        clone: "full",
        maxConcurrent: 10,
        timeoutMs: 30_000,
        connectTimeoutMs: 5_000,
        verifyTls: true,
      },
    ]);
    expect(settings.staff[0]).toEqual({
      id: "sam",
      name: "Sam",
      role: "operator",
      slack: ["U024BE7LH"],
      discord: ["123456789012345678"],
    });
    expect(settings.plans).toEqual([
      {
        code: "small",
        name: "Small",
        vcpus: 1,
        memoryMib: 2048,
        diskGib: 10,
        bandwidthGib: 2048,
        targets: { main: { flavor: "m1.small", network: "private" } },
      },
      {
        code: "medium",
        name: "Medium",
        vcpus: 2,
        memoryMib: 4096,
        diskGib: 20,
        targets: { main: { network: "private" }, "pve-1": { network: "vmbr0" } },
      },
    ]);
    expect(settings.webhooks[0]).toMatchObject({ name: "billing", secret: WHSEC, format: "standard" });
    expect(settings.channels).toEqual({
      operations: [{ platform: "slack", workspace: null, channel: "C0123456789" }],
      alerts: [
        { platform: "slack", workspace: null, channel: "C0987654321" },
        { platform: "discord", workspace: null, channel: "987654321098765432" },
      ],
    });
  });

  test(".env.example names every variable, is accepted as it is, and docs/configuration.md explains each", () => {
    const text = readFileSync(".env.example", "utf8");
    const docs = readFileSync("docs/configuration.md", "utf8");
    const cwd = directory({ ".env": text });

    expect(Object.keys(parseEnv(text)).toSorted()).toEqual([...environmentNames].toSorted());
    expect(readSettings({ env: {}, cwd }).sandbox).toBe(true);
    for (const name of environmentNames) expect(docs).toContain(`\`${name}\``);
  });
});

describe("a Proxmox VE cloud", () => {
  const entry = (more: string) => `clouds: { p: { type: pve, url: "https://pve:8006/", ${more} } }`;
  const TOKEN = 'tokenId: "a@pve!b", tokenSecret: canary-token';

  test("takes from the PROXMOX_ variables what it does not say itself", () => {
    const env = { PROXMOX_API_TIMEOUT: "20", PROXMOX_CONNECT_TIMEOUT: "2", PROXMOX_VERIFY_SSL: "false" };
    expect(read(entry(TOKEN), env).clouds[0]).toMatchObject({
      url: "https://pve:8006",
      timeoutMs: 20_000,
      connectTimeoutMs: 2_000,
      verifyTls: false,
      vmidRange: [100_000, 199_999],
    });
    const own = `${TOKEN}, apiTimeoutMs: 7000, verifyTls: true, vmidRange: "500-599", rescueIso: "nfs:iso/r.iso", isos: { 13: "nfs:iso/13.iso" }`;
    expect(read(entry(own), env).clouds[0]).toMatchObject({
      timeoutMs: 7_000,
      verifyTls: true,
      vmidRange: [500, 599],
      rescueIso: "nfs:iso/r.iso",
      isos: { 13: "nfs:iso/13.iso" },
    });
    expect(read(entry('username: "root@pam", password: canary-pw'), {}).clouds[0]).toMatchObject({
      credential: { kind: "password", username: "root@pam" },
    });
  });

  test.each([
    ['vmidRange: "599-500"', /clouds\.p\.vmidRange ends before it begins — write it as "100000-199999"/],
    ['vmidRange: "50-80"', /clouds\.p\.vmidRange/],
    ["vmidRange: many", /clouds\.p\.vmidRange is no range of VMIDs/],
    ["fingerprint: abc", /clouds\.p\.fingerprint is no SHA-256 fingerprint/],
    ["rescueIso: rescue.iso", /clouds\.p\.rescueIso is no ISO image — write it as PVE does/],
    ['rescueIso: "local:iso/x.iso,size=1"', /clouds\.p\.rescueIso is no ISO image/],
    ["isos: [x]", /clouds\.p\.isos must be a group of settings/],
    ["isos: { debian: debian.iso }", /clouds\.p\.isos\.debian is no ISO image — write it as PVE does/],
    ['isos: { "a b": "local:iso/x.iso" }', /clouds\.p\.isos\.a b is not one word/],
    ['isos: { a: "local:iso/x.iso", A: "local:iso/y.iso" }', /isos\.A has the name of another one/],
    ["clone: half", /clouds\.p\.clone must be one of/],
    ['username: "root@pam"', /clouds\.p needs either tokenId and tokenSecret, or username and password/],
  ])("with %s is refused with what to write", (more, message) => {
    const problems = problemsOf(() => read(entry(`${TOKEN}, ${more}`), {}));
    expect(problems.join("\n")).toMatch(message);
    expect(problems.join("\n")).not.toContain("canary");
  });
});

describe("all problems at once", () => {
  const PROBLEMS = `
clouds:
  main: { type: openstack, auth: { auth_url: "https://c/v3", username: u, project_name: p } }
  old: { type: pve, url: "https://pve:8006", tokenId: "a@pve!b", password: canary-token }
  odd: { type: openstak }
staff:
  - { name: Sam, role: operater, slack: [U111111] }
  - { name: Rita, role: admin, slack: [C222] }
  - { name: rita, role: owner }
customers:
  - { ref: ada, name: Ada, e-mail: a@b.c }
plans:
  - { code: m, name: M, vcpus: 2, memory: 4 Gigs, diskGib: 20, targets: { mian: {} } }
  - { code: l, name: L, vcpus: 0, memry: 8G, disk: 80G }
webhooks:
  - { name: billing, url: "ftp://x", secret: canary-webhook, format: standard }
chanels: { operations: C1 }
policies: { allowPrivateWebhooks: [10.0.0.0/33] }
`;
  const ENV: Env = {
    PORT: "80a",
    LOG_LEVEL: "inf",
    DATABASE_URL: "mysql://canary@x/y",
    RATATOSK_SECRET: "canary-key",
    RATATOSK_SECRET_KEY: "canary-short",
    SLACK_SIGNING_SECRETS: "canary-sign",
    SLACK_APP_TOKEN: "xoxb-canary",
    DISCORD_TOKEN: "canary-discord",
    OPENSTACK_TIMEOUT: "30s",
    OPENSTACK_SYNC_ENABLED: "maybe",
  };
  const problems = problemsOf(() => read(PROBLEMS, ENV));

  test.each([
    [
      "unknown variable with the nearest name",
      /RATATOSK_SECRET is not known — did you mean "RATATOSK_SECRET_KEY"/,
    ],
    ["key", /^RATATOSK_SECRET_KEY is not a key of 32 bytes/],
    [
      "mistyped variable of a platform",
      /SLACK_SIGNING_SECRETS is not known — did you mean "SLACK_SIGNING_SECRET"/,
    ],
    ["number", /^PORT is not a whole number from 0 to 65535 — .*PORT=3000/],
    ["choice", /^LOG_LEVEL is not one of .* — did you mean "info"/],
    ["address", /^DATABASE_URL is not an address that begins with postgresql:\/\//],
    ["seconds", /^OPENSTACK_TIMEOUT is not a whole number of seconds/],
    ["flag", /^OPENSTACK_SYNC_ENABLED is neither true nor false/],
    ["half a platform", /^SLACK_BOT_TOKEN is missing/],
    ["wrong kind of token", /^SLACK_APP_TOKEN is no app token — .*xapp-/],
    ["missing id", /^DISCORD_APPLICATION_ID is missing/],
    ["incomplete credential", /ratatosk\.yaml line 3: clouds\.main\.auth lacks a password/],
    ["Proxmox VE", /line 4: clouds\.old needs either tokenId and tokenSecret, or username and password/],
    ["type", /line 5: clouds\.odd\.type is not known — did you mean "openstack"/],
    ["role", /line 7: staff\[0\]\.role must be one of .* — did you mean "operator"/],
    ["Slack id", /line 8: staff\[1\]\.slack\[0\] is no Slack member id/],
    ["unknown key", /customers\[0\] has no setting "e-mail" — did you mean "email"/],
    ["unit", /plans\[0\]\.memory is no size — write it as 8G/],
    ["unknown key of a plan", /plans\[1\] has no setting "memry" — did you mean "memory"/],
    ["range", /plans\[1\]\.vcpus must be at least 1/],
    ["webhook address", /webhooks\[0\]\.url is no address/],
    ["webhook secret", /webhooks\[0\]\.secret is no signing secret .* — write "whsec_"/],
    ["section", /there is no section "chanels" — did you mean "channels"/],
    ["network", /allowPrivateWebhooks\[0\] is no network/],
  ])("%s", (_what, expected) => {
    expect(problems.filter((problem) => expected.test(problem))).toHaveLength(1);
  });

  test("each says what to do, none repeats a value", () => {
    for (const problem of problems) {
      expect(problem).toMatch(/ — ./);
      expect(problem).not.toMatch(/canary/);
    }
    expect(new ConfigurationError(problems).message).not.toMatch(/canary/);
  });
});

describe("references between sections", () => {
  test("a plan's unknown cloud, doubled entries, a shared person, a stranger's webhook", () => {
    const problems = problemsOf(() =>
      read(`${CLOUD}
staff:
  - { name: Sam, role: admin, slack: U111 }
  - { id: sam, name: Other, role: viewer }
customers:
  - { ref: ada, name: Ada, slack: U111 }
  - { ref: ada, name: Ada again }
plans:
  - { code: s, vcpus: 1, memoryMib: 1024, diskGib: 10, targets: { mian: { flavor: m1 } } }
  - { code: S, vcpus: 1, memoryMib: 1024, diskGib: 10 }
webhooks:
  - { name: a, url: "https://x", secret: ${WHSEC}, customer: adda }
`),
    );

    expect(problems).toEqual([
      'staff has two entries with the id (or name) "sam" — remove or rename one',
      "The Slack id U111 belongs to both Sam and Ada — give it to one of them",
      'customers has two entries with the ref "ada" — remove or rename one',
      'The webhook "a" is for the customer "adda", who is not listed — did you mean "ada"?',
      'plans has two entries with the code "s" — remove or rename one',
      'The plan "s" has a target for the cloud "mian", which is not configured — did you mean "main"?',
    ]);
  });

  test("a plan's target may be the cloud of the OPENSTACK_ variables", () => {
    const settings = read("plans: [{ code: s, vcpus: 1, memory: 512M, disk: 1G, targets: { openstack: } }]", {
      OPENSTACK_AUTH_URL: "http://127.0.0.1:5000/v3/",
      OPENSTACK_USERNAME: "bot",
      OPENSTACK_PASSWORD: "pw",
      OPENSTACK_PROJECT_NAME: "hostops",
      OPENSTACK_DOMAIN_ID: "default",
      OPENSTACK_REGION: "RegionOne",
      OPENSTACK_TIMEOUT: "10",
    });

    expect(settings.plans[0]).toMatchObject({
      name: "s",
      memoryMib: 512,
      diskGib: 1,
      targets: { openstack: {} },
    });
    expect(settings.clouds[0]).toMatchObject({
      name: "openstack",
      region: "RegionOne",
      timeoutMs: 10_000,
      auth: {
        authUrl: "http://127.0.0.1:5000/v3",
        username: "bot",
        password: "pw",
        projectName: "hostops",
        userDomainId: "default",
        projectDomainId: "default",
      },
    });
  });

  test("half of the OPENSTACK_ variables is a problem, and so is the same name twice", () => {
    expect(problemsOf(() => read("", { OPENSTACK_PASSWORD: "canary" }))).toEqual([
      expect.stringContaining("OPENSTACK_AUTH_URL is missing"),
      expect.stringContaining("lack a user name or user id, a project id or project name"),
    ]);
    const complete = {
      OPENSTACK_AUTH_URL: "https://c/v3",
      OPENSTACK_USER_ID: "u",
      OPENSTACK_PASSWORD: "p",
      OPENSTACK_PROJECT_ID: "p",
    };
    expect(problemsOf(() => read(CLOUD.replace("main", "openstack"), complete))).toEqual([
      expect.stringContaining('The cloud "openstack" is configured twice'),
    ]);
  });
});

describe("the file", () => {
  test("${VAR} is filled in, $${ is not, and a missing one is told once with its line", () => {
    const settings = read(
      CLOUD.replace("canary-pw", () => "'pre-${PW}-$${PW}'"),
      { PW: "a b: #c" },
    );
    expect(settings.clouds[0]).toMatchObject({ auth: { password: "pre-a b: #c-${PW}" } });

    expect(
      problemsOf(() => read(CLOUD.replace("canary-pw", "'${OS_PASSWORT}'"), { OS_PASSWORD: "x" })),
    ).toEqual([
      'ratatosk.yaml line 3: clouds.main.auth.password uses ${OS_PASSWORT}, which is not set — did you mean "OS_PASSWORD"?',
    ]);
  });

  test("ids of Discord keep all their digits without quotes", () => {
    const settings = read("staff: [{ name: A, role: viewer, discord: 1234567890123456789 }]");

    expect(settings.staff[0]?.discord).toEqual(["1234567890123456789"]);
  });

  test("broken YAML is told by line without quoting it", () => {
    const problems = problemsOf(() => read("staff:\n  - name: A\n password: {canary"));

    expect(problems.length).toBeGreaterThan(0);
    expect(problems[0]).toMatch(/ratatosk\.yaml line 3, column \d+: not valid YAML/);
    expect(problems.join()).not.toContain("canary");
  });

  test.each(["- a\n- b", "just text"])("%j holds no settings", (yaml) => {
    expect(problemsOf(() => read(yaml))).toEqual([expect.stringContaining("holds no settings")]);
  });

  test("RATATOSK_CONFIG must exist; it may stand in .env", () => {
    expect(
      problemsOf(() => readSettings({ env: { RATATOSK_CONFIG: "nope.yaml" }, cwd: directory() })),
    ).toEqual([expect.stringMatching(/nope\.yaml cannot be read \(ENOENT\) — correct RATATOSK_CONFIG/)]);
    const cwd = directory({
      ".env": "RATATOSK_CONFIG=x.yaml\nPORT=1\n",
      "x.yaml": "staff: [{ name: A, role: owner }]",
    });
    expect(readSettings({ env: { PORT: "2" }, cwd })).toMatchObject({ port: 2, staff: [{ id: "a" }] });
  });
});

describe("clouds.yaml", () => {
  const CLOUDS_YAML = `
clouds:
  lab:
    auth_type: v3applicationcredential
    auth: { auth_url: "http://127.0.0.1:5000/v3", application_credential_id: id }
    region_name: RegionOne
    interface: internalURL
    verify: false
    compute_endpoint_override: http://127.0.0.1:9/v2.1
  kerberos: { auth_type: v3kerberos, auth: { auth_url: "http://k" } }
`;
  const SECURE = "clouds: { lab: { auth: { application_credential_secret: canary-secret } } }";
  const ENTRY = "clouds: { main: { type: openstack, cloud: lab, network: private } }";

  test("an entry is found beside us and merged with secure.yaml", () => {
    const cwd = directory({ "ratatosk.yaml": ENTRY, "clouds.yaml": CLOUDS_YAML, "secure.yaml": SECURE });

    expect(readSettings({ env: {}, cwd }).clouds[0]).toEqual({
      type: "openstack",
      name: "main",
      auth: {
        authUrl: "http://127.0.0.1:5000/v3",
        applicationCredentialId: "id",
        applicationCredentialSecret: "canary-secret",
      },
      region: "RegionOne",
      interface: "internal",
      network: "private",
      maxConcurrent: 10,
      timeoutMs: 30_000,
      connectTimeoutMs: 5_000,
      verifyTls: false,
      endpointOverrides: { compute: "http://127.0.0.1:9/v2.1" },
    });
  });

  test("OS_CLIENT_CONFIG_FILE says where it is; without the secret the entry is refused", () => {
    const cwd = directory({ "ratatosk.yaml": ENTRY });
    mkdirSync(join(cwd, "etc"));
    writeFileSync(join(cwd, "etc", "my.yaml"), CLOUDS_YAML);
    const env = { OS_CLIENT_CONFIG_FILE: join(cwd, "etc", "my.yaml") };

    expect(problemsOf(() => readSettings({ env, cwd }))).toEqual([
      expect.stringContaining("clouds.main (clouds.yaml) lacks the application credential's secret"),
    ]);
    writeFileSync(join(cwd, "etc", "secure.yaml"), SECURE);
    cpSync(join(cwd, "etc"), join(cwd, "etc2"), { recursive: true });
    expect(readSettings({ env, cwd }).clouds).toHaveLength(1);
  });

  test.each([
    ["lba", /names the entry "lba", which is not in .*clouds\.yaml — did you mean "lab"/],
    ["kerberos", /has an auth_type that is not supported/],
  ])("the entry %s is refused", (name, expected) => {
    const cwd = directory({ "ratatosk.yaml": ENTRY.replace("lab", name), "clouds.yaml": CLOUDS_YAML });

    expect(problemsOf(() => readSettings({ env: {}, cwd }))).toEqual([expect.stringMatching(expected)]);
  });

  test("naming one without a file, or naming nothing, is refused", () => {
    const env = { OS_CLIENT_CONFIG_FILE: "/nowhere/clouds.yaml" };

    expect(problemsOf(() => read(ENTRY, env))).toEqual([expect.stringContaining("/nowhere/clouds.yaml")]);
    expect(problemsOf(() => read("clouds: { main: { type: openstack } }"))).toEqual([
      expect.stringContaining('needs either "cloud" or "auth"'),
    ]);
  });
});

describe("processes", () => {
  test("roles are chosen by the command line or the environment, with DATABASE_URL", () => {
    const env = { DATABASE_URL: "postgres://u:p@h/d", REDIS_URL: "redis://h:6379/1", RATATOSK_ROLES: "api" };

    expect(readSettings({ env, cwd: directory() })).toMatchObject({ mode: "postgres", roles: ["api"] });
    expect(readSettings({ env, cwd: directory(), roles: "worker, Bots" }).roles).toEqual(["bots", "worker"]);
  });

  test("an unknown role and a split of the embedded database are refused", () => {
    expect(problemsOf(() => readSettings({ env: {}, cwd: directory(), roles: "bots,wroker" }))).toEqual([
      'There is no role "wroker" — did you mean "worker"?',
      expect.stringContaining("the embedded database serves this one process"),
    ]);
  });

  test("Slack needs one way in, and Discord its application", () => {
    expect(problemsOf(() => read("", { SLACK_BOT_TOKEN: "xoxb-x" }))).toEqual([
      expect.stringContaining("neither SLACK_APP_TOKEN nor SLACK_SIGNING_SECRET"),
    ]);
    const settings = read("", {
      SLACK_BOT_TOKEN: "xoxb-x",
      SLACK_SIGNING_SECRET: "s",
      SLACK_API_URL: "http://127.0.0.1:4601/api/",
      SLACK_COMMAND_PREFIX: "rt-",
      DISCORD_TOKEN: "t",
      DISCORD_APPLICATION_ID: "1100000000000000001",
    });
    expect(settings.slack).toEqual({
      botToken: "xoxb-x",
      appToken: undefined,
      signingSecret: "s",
      apiUrl: "http://127.0.0.1:4601/api",
      commandPrefix: "rt-",
    });
    expect(settings.discord).toMatchObject({ token: "t", applicationId: "1100000000000000001" });
  });
});

test("what follows from a variable that is not set is not told as well, however its key is spelt", () => {
  const auth =
    "auth_url: https://c/v3, application_credential_id: a, application_credential_secret: '${CLOUD_PW}'";

  expect(problemsOf(() => read(`clouds: { main: { type: openstack, auth: { ${auth} } } }`))).toEqual([
    expect.stringContaining("uses ${CLOUD_PW}, which is not set"),
  ]);
});

test("everything wrong with one plan is told at once", () => {
  const plan = "{ code: s, vcpus: 1.5, memory: 8X, disk: 0G }";

  expect(problemsOf(() => read(`plans: [${plan}]`))).toEqual([
    expect.stringContaining("plans[0].vcpus must be a whole number"),
    expect.stringContaining("plans[0].memory is no size"),
    expect.stringContaining("plans[0].disk is no size"),
  ]);
});

test("a plan's traffic is given in a size or in GiB, not in both, and is unlimited when left out", () => {
  const plan = (code: string, more: string) => `{ code: ${code}, vcpus: 1, memory: 1G, disk: 1G ${more} }`;
  const plans = [plan("a", ""), plan("b", ", bandwidth: 2T"), plan("c", ", bandwidthGib: 500")];

  expect(read(`plans: [${plans.join(", ")}]`).plans.map(({ bandwidthGib }) => bandwidthGib)).toEqual([
    undefined,
    2048,
    500,
  ]);
  expect(problemsOf(() => read(`plans: [${plan("a", ", bandwidth: 1T, bandwidthGib: 5")}]`))).toEqual([
    expect.stringContaining("plans[0].bandwidth is given twice, as bandwidth and bandwidthGib"),
  ]);
  expect(problemsOf(() => read(`plans: [${plan("a", ", bandwidth: 0")}]`))).toEqual([
    expect.stringContaining('plans[0].bandwidth has no unit — write it as 2T, or use "bandwidthGib"'),
  ]);
  expect(problemsOf(() => read(`plans: [${plan("a", ", bandwidthGib: 0")}]`))).toEqual([
    expect.stringContaining("plans[0].bandwidthGib must be at least 1"),
  ]);
});
