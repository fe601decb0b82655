/** The shapes of ratatosk.yaml's sections. Messages of our own are "what — how to fix it"; issues.ts words the others. */
import { isIP } from "node:net";
import { z } from "zod";
import { camelCase } from "./document.ts";
import { isUrl } from "./environment.ts";
import { parseGib, parseMib } from "./units.ts";

export const staffRoles = ["viewer", "support", "operator", "admin", "owner"] as const;

/** Standard Webhooks: 24 to 64 random bytes in base64 after this prefix. */
const WEBHOOK_SECRET_PREFIX = "whsec_";
const WEBHOOK_SECRET_ADVICE = `write "${WEBHOOK_SECRET_PREFIX}" and the output of: openssl rand -base64 32`;
const MAX_MIB = 64 * 1024 * 1024;
const MAX_GIB = 1024 * 1024;

const line = z.string().trim().min(1).max(200);
const cloudName = z
  .string()
  .regex(/^[a-z0-9][a-z0-9_-]{0,31}$/i, "is no name for a cloud — use letters, digits, - and _, at most 32");
/** What people type in a command, so one word. */
const WORD = /^[a-z0-9][a-z0-9._-]{0,63}$/i;
const NO_WORD = "is not one word — use letters, digits, dot, - and _, at most 64";
const word = z.string().regex(WORD, NO_WORD);

function whole(min: number, max: number) {
  // From ${VAR} a number comes as text.
  return z.preprocess(
    (value) => (typeof value === "string" && /^\d+$/.test(value.trim()) ? Number(value) : value),
    z.int().min(min).max(max),
  );
}

const yes = z.preprocess(
  (value) =>
    typeof value === "string" ? ({ true: true, false: false }[value.trim().toLowerCase()] ?? value) : value,
  z.boolean(),
);

function ids(pattern: RegExp, advice: string) {
  const id = z.preprocess(
    (value) => (typeof value === "number" ? String(value) : value),
    z.string().regex(pattern, advice),
  );
  return z.preprocess(
    (value) => (value === undefined || Array.isArray(value) ? value : [value]),
    z.array(id).default([]),
  );
}
const slackIds = ids(
  /^[UW][A-Z0-9]{2,}$/,
  'is no Slack member id — copy it from the profile\'s menu ("Copy member ID", U…)',
);
const discordIds = ids(
  /^\d{15,21}$/,
  "is no Discord user id — switch on developer mode and copy it from the user's menu",
);

export const StaffMember = z.strictObject({
  id: word.optional(),
  name: line,
  role: z.preprocess(
    (value) => (typeof value === "string" ? value.toLowerCase() : value),
    z.enum(staffRoles),
  ),
  slack: slackIds,
  discord: discordIds,
});

export const CustomerEntry = z.strictObject({
  ref: z.preprocess((value) => (typeof value === "number" ? String(value) : value), word),
  name: line,
  email: z.email("is no e-mail address — write it as name@example.com").optional(),
  maxServers: whole(0, 1_000_000).optional(),
  slack: slackIds,
  discord: discordIds,
});

const Target = z.strictObject({ flavor: line.optional(), network: line.optional() });

/** Judged by itself, so that it is told together with what else is wrong with the plan. */
function sizeText(withoutUnit: string, example: string, parse: (text: string) => number | undefined) {
  return z
    .string(withoutUnit)
    .refine((text) => parse(text) !== undefined, `is no size — write it as ${example}`)
    .optional();
}

export const PlanEntry = z
  .strictObject({
    code: word,
    name: line.optional(),
    vcpus: whole(1, 1024),
    memoryMib: whole(1, MAX_MIB).optional(),
    memory: sizeText('has no unit — write it as 8G or 512M, or use "memoryMib"', "8G", parseMib),
    diskGib: whole(0, MAX_GIB).optional(),
    disk: sizeText('has no unit — write it as 80G, or use "diskGib"', "80G", parseGib),
    /** Traffic that a month includes, in and out together; unlimited when absent. */
    bandwidthGib: whole(1, 2_000_000_000).optional(),
    bandwidth: sizeText('has no unit — write it as 2T, or use "bandwidthGib"', "2T", parseGib),
    targets: z
      .record(
        z.string(),
        z.preprocess((value) => value ?? {}, Target),
      )
      .optional(),
  })
  .transform((plan, context) => {
    const memoryMib = oneSize(
      plan.memoryMib,
      plan.memory,
      { long: "memoryMib", short: "memory", example: "8G", parse: parseMib },
      context,
    );
    const diskGib = oneSize(
      plan.diskGib,
      plan.disk,
      { long: "diskGib", short: "disk", example: "80G", parse: parseGib },
      context,
    );
    const allowance =
      plan.bandwidthGib === undefined && plan.bandwidth === undefined
        ? {}
        : {
            bandwidthGib: oneSize(
              plan.bandwidthGib,
              plan.bandwidth,
              { long: "bandwidthGib", short: "bandwidth", example: "2T", parse: parseGib },
              context,
            ),
          };
    return {
      code: plan.code,
      name: plan.name ?? plan.code,
      vcpus: plan.vcpus,
      memoryMib,
      diskGib,
      ...allowance,
      targets: plan.targets,
    };
  });

export const WebhookEntry = z.strictObject({
  name: word,
  url: z.string().refine((text) => isUrl(text, ["https:", "http:"]), "is no address — write it as https://…"),
  secret: z
    .string()
    .refine(isWebhookSecret, `is no signing secret of 24 to 64 bytes — ${WEBHOOK_SECRET_ADVICE}`),
  events: z
    .array(
      z
        .string()
        .regex(
          /^(\*|[a-z_]+(\.[a-z_]+)*(\.\*)?)$/,
          'is no event type — write "*", "server.*" or a whole name',
        ),
    )
    .min(1)
    .default(["*"]),
  format: word.default("standard"),
  customer: z.preprocess((value) => (typeof value === "number" ? String(value) : value), word).optional(),
});

const CHANNEL =
  /^(?:(?:slack:)?(?:([TE][A-Z0-9]{2,})\/)?([CGD][A-Z0-9]{2,})|(?:discord:)?(?:(\d{15,21})\/)?(\d{15,21})|console:([\w-]+))$/;
const Channel = z.preprocess(
  (value) => (typeof value === "number" ? String(value) : value),
  z.string().transform((text, context) => {
    const match = CHANNEL.exec(text.trim());
    if (match === null) {
      context.addIssue(
        "is no channel — write its id, for example C0123456789 (Slack), 1234567890123456789 (Discord)",
      );
      return z.NEVER;
    }
    const [, team, slack, guild, discord, local] = match;
    if (slack !== undefined) return { platform: "slack" as const, workspace: team ?? null, channel: slack };
    if (discord !== undefined)
      return { platform: "discord" as const, workspace: guild ?? null, channel: discord };
    return { platform: "console" as const, workspace: "local", channel: local ?? "" };
  }),
);
const channelList = z.preprocess(
  (value) => (value === undefined || Array.isArray(value) ? value : [value]),
  z.array(Channel).default([]),
);
export const Channels = z.strictObject({ operations: channelList, alerts: channelList });

export const Policies = z.strictObject({
  confirm: z
    .strictObject({ destructive: yes.default(true), withinMinutes: whole(1, 10_080).default(30) })
    .prefault({}),
  /** When customers confirm with their authenticator app before what hurts. */
  stepUp: z.enum(["off", "enrolled", "always"]).default("enrolled"),
  /** How long a new password may be fetched. */
  secretHours: whole(1, 720).default(24),
  /** How long a deleted server is kept, switched off, and can be brought back; 0: it is gone at once. */
  deleteGraceHours: whole(0, 720).default(0),
  /** How often servers' traffic is counted; what a server sends after the last count before it is switched off is lost. */
  trafficSeconds: whole(10, 120).default(60),
  allowPrivateWebhooks: z
    .array(z.string().refine(isCidr, "is no network — write it as 10.0.0.0/8 or fd00::/8"))
    .default([]),
  retention: z
    .strictObject({ syncRunsDays: whole(1, 3650).default(30), deliveriesDays: whole(1, 3650).default(90) })
    .prefault({}),
});

const authText = z.preprocess(
  (value) => (typeof value === "number" ? String(value) : value),
  z.string().trim().min(1),
);
/** The keys of `auth` in clouds.yaml, also as written there: auth_url. */
export const OpenStackAuth = z.preprocess(
  camelCaseKeys,
  z.strictObject({
    authUrl: z
      .string()
      .refine((text) => isUrl(text, ["https:", "http:"]), "is no address — write it as https://…/v3"),
    username: authText.optional(),
    userId: authText.optional(),
    userDomainName: authText.optional(),
    userDomainId: authText.optional(),
    password: authText.optional(),
    projectName: authText.optional(),
    projectId: authText.optional(),
    projectDomainName: authText.optional(),
    projectDomainId: authText.optional(),
    domainName: authText.optional(),
    domainId: authText.optional(),
    applicationCredentialId: authText.optional(),
    applicationCredentialName: authText.optional(),
    applicationCredentialSecret: authText.optional(),
  }),
);

const maxConcurrent = whole(1, 1000).default(10);
const endpoint = z
  .string()
  .refine((text) => isUrl(text, ["https:", "http:"]), "is no address — write it as https://…");
export const OpenStackEntry = z.strictObject({
  type: z.literal("openstack"),
  cloud: line.optional(),
  auth: OpenStackAuth.optional(),
  region: line.optional(),
  interface: z.enum(["public", "internal", "admin"]).optional(),
  network: line.optional(),
  maxConcurrent,
  timeoutMs: whole(1_000, 600_000).optional(),
  connectTimeoutMs: whole(100, 600_000).optional(),
  verifyTls: yes.optional(),
  ca: line.optional(),
  endpoints: z
    .strictObject({ compute: endpoint.optional(), image: endpoint.optional(), network: endpoint.optional() })
    .optional(),
});

const isoImage = z
  .string()
  .regex(
    /^[A-Za-z][\w.-]*:iso\/[^\s,;/]+$/,
    "is no ISO image — write it as PVE does, with its storage: local:iso/rescue.iso",
  );
/** By the names that people choose them by, whatever the case. */
const isoImages = z.record(z.string(), isoImage).superRefine((isos, context) => {
  const taken = new Set<string>();
  for (const name of Object.keys(isos)) {
    const lower = name.toLowerCase();
    if (!WORD.test(name)) context.addIssue({ code: "custom", path: [name], message: NO_WORD });
    else if (taken.has(lower)) {
      const message = "has the name of another one — choose another name";
      context.addIssue({ code: "custom", path: [name], message });
    }
    taken.add(lower);
  }
});
const vmid = whole(100, 999_999_999);
const vmidRange = z.preprocess(
  // "100000-199999"
  (value) => (typeof value === "string" && /^\s*\d+\s*-\s*\d+\s*$/.test(value) ? value.split("-") : value),
  z
    .tuple([vmid, vmid], 'is no range of VMIDs — write it as "100000-199999"')
    .refine(([from, to]) => from <= to, 'ends before it begins — write it as "100000-199999"'),
);
export const PveEntry = z.strictObject({
  type: z.literal("pve"),
  url: z
    .string()
    .refine((text) => isUrl(text, ["https:", "http:"]), "is no address — write it as https://host:8006"),
  tokenId: z
    .string()
    .regex(/^[^\s@!]+@[^\s@!]+![^\s@!]+$/, "is no token id — write it as user@realm!name")
    .optional(),
  tokenSecret: line.optional(),
  username: z
    .string()
    .regex(/^[^\s@!]+@[^\s@!]+$/, "is no user — write it as user@realm")
    .optional(),
  password: line.optional(),
  verifyTls: yes.optional(),
  ca: line.optional(),
  fingerprint: z
    .string()
    .regex(
      /^[0-9a-f]{2}(:?[0-9a-f]{2}){31}$/i,
      "is no SHA-256 fingerprint — copy it from the node's Certificates page (32 bytes in hex)",
    )
    .optional(),
  vmidRange: vmidRange.default([100_000, 199_999]),
  apiTimeoutMs: whole(1_000, 600_000).optional(),
  connectTimeoutMs: whole(100, 600_000).optional(),
  network: line.optional(),
  storage: line.optional(),
  clone: z.enum(["full", "linked"]).default("full"),
  nameservers: z.array(line).min(1).optional(),
  searchDomain: line.optional(),
  rescueIso: isoImage.optional(),
  isos: isoImages.optional(),
  maxConcurrent,
});

export const CloudName = cloudName;

interface SizeRule {
  long: string;
  short: string;
  example: string;
  parse: (text: string) => number | undefined;
}

function oneSize(
  exact: number | undefined,
  text: string | undefined,
  rule: SizeRule,
  context: z.RefinementCtx,
): number {
  const { long, short, example } = rule;
  if (exact !== undefined && text !== undefined) {
    context.addIssue({
      code: "custom",
      path: [short],
      message: `is given twice, as ${short} and ${long} — keep one of them`,
    });
  } else if (exact === undefined && text === undefined) {
    context.addIssue({
      code: "custom",
      path: [long],
      message: `is missing — add it, or write "${short}: ${example}"`,
    });
  }
  if (exact !== undefined || text === undefined) return exact ?? 0;
  return rule.parse(text) ?? 0;
}

/** Several with spaces between them while a secret is being changed: all of them sign. */
function isWebhookSecret(text: string): boolean {
  return text
    .trim()
    .split(/\s+/)
    .every((secret) => {
      if (!secret.startsWith(WEBHOOK_SECRET_PREFIX)) return false;
      const encoded = secret.slice(WEBHOOK_SECRET_PREFIX.length).replace(/={1,2}$/, "");
      const bytes = Buffer.from(encoded, "base64");
      // Buffer drops what it cannot read: a mistyped secret would be another, shorter key.
      return (
        bytes.toString("base64").replaceAll("=", "") === encoded && bytes.length >= 24 && bytes.length <= 64
      );
    });
}

function isCidr(text: string): boolean {
  const [address = "", bits, ...rest] = text.split("/");
  const version = isIP(address);
  if (version === 0 || rest.length > 0) return false;
  return bits === undefined || (/^\d{1,3}$/.test(bits) && Number(bits) <= (version === 4 ? 32 : 128));
}

function camelCaseKeys(value: unknown): unknown {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, item]: [string, unknown]) => [camelCase(key), item]),
  );
}
