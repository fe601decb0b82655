/** ratatosk.yaml's sections: each read on its own and then checked against the others, so that all problems are told at once. */
import type { z } from "zod";
import type { Document } from "./document.ts";
import type { EnvironmentReader } from "./environment.ts";
import { parsePart, type Reading } from "./issues.ts";
import { type OpenStackSettings, readOpenStackEntry, readOpenStackEnvironment } from "./openstack.ts";
import { adviceFor, type Problems } from "./problems.ts";
import { type PveSettings, readPveEntry } from "./pve.ts";
import {
  Channels,
  CloudName,
  CustomerEntry,
  PlanEntry,
  Policies,
  StaffMember,
  WebhookEntry,
} from "./schema.ts";

export type CloudSettings = OpenStackSettings | PveSettings;
export type CustomerSettings = z.output<typeof CustomerEntry>;
export type WebhookSettings = z.output<typeof WebhookEntry>;
export type PolicySettings = z.output<typeof Policies>;
export type ChannelSettings = z.output<typeof Channels>;
export type StaffSettings = z.output<typeof StaffMember> & { id: string };
export interface PlanSettings {
  code: string;
  name: string;
  vcpus: number;
  memoryMib: number;
  diskGib: number;
  /** Traffic that a month includes; unlimited when absent. */
  bandwidthGib?: number;
  /** Cloud name → what to use there. Without a flavor: the one whose sizes are exactly the plan's. */
  targets: Record<string, { flavor?: string | undefined; network?: string | undefined }>;
}

const SECTIONS = ["clouds", "staff", "customers", "plans", "webhooks", "channels", "policies"];

export function readSections(reading: Reading, environment: EnvironmentReader, cwd: string) {
  const { document, problems } = reading;
  for (const section of Object.keys(document.data)) {
    if (!SECTIONS.includes(section)) {
      const advice = adviceFor(section, SECTIONS, `remove it; there are ${SECTIONS.join(", ")}`);
      problems.add(`${document.where([section])}: there is no section "${section}"`, advice);
    }
  }
  const clouds = readClouds(reading, environment, cwd);
  const cloudNames = [...new Set([...namesOf(document), ...clouds.map((cloud) => cloud.name)])];
  const staff = readStaff(reading);
  const customers = readList(CustomerEntry, "customers", reading);
  reportSamePeople(staff, customers, problems);
  reportTwice(
    "customers",
    customers.map((customer) => customer.ref),
    "ref",
    problems,
  );
  const webhooks = readList(WebhookEntry, "webhooks", reading);
  reportTwice(
    "webhooks",
    webhooks.map((webhook) => webhook.name),
    "name",
    problems,
  );
  for (const { name, customer } of webhooks) {
    if (customer !== undefined && !customers.some(({ ref }) => ref === customer)) {
      const advice = adviceFor(
        customer,
        customers.map(({ ref }) => ref),
        "add the customer or remove the setting",
      );
      problems.add(`The webhook "${name}" is for the customer "${customer}", who is not listed`, advice);
    }
  }
  return {
    clouds,
    staff,
    customers,
    plans: readPlans(reading, cloudNames, clouds),
    webhooks,
    channels: parsePart(Channels.prefault({}), ["channels"], reading) ?? { operations: [], alerts: [] },
    policies: parsePart(Policies.prefault({}), ["policies"], reading) ?? Policies.parse({}),
  };
}

function readClouds(reading: Reading, environment: EnvironmentReader, cwd: string): CloudSettings[] {
  const { document, problems } = reading;
  const clouds: CloudSettings[] = [];
  const section = document.data["clouds"];
  if (section !== undefined && section !== null && !isGroup(section)) {
    problems.add(
      `${document.where(["clouds"])}: clouds is not a group`,
      'write "name:" and below it "type: openstack" …',
    );
  }
  for (const name of namesOf(document)) {
    const where = `${document.where(["clouds", name])}: clouds.${name}`;
    if (!CloudName.safeParse(name).success) {
      problems.add(`${where} is no name for a cloud`, "use letters, digits, - and _, at most 32");
    }
    const entry = isGroup(section) ? section[name] : undefined;
    const type = isGroup(entry) ? entry["type"] : undefined;
    if (type === "openstack") {
      const cloud = readOpenStackEntry(name, { ...reading, environment, cwd });
      if (cloud) clouds.push(cloud);
    } else if (type === "pve") {
      const cloud = readPveEntry(name, { ...reading, environment });
      if (cloud) clouds.push(cloud);
    } else {
      const advice = adviceFor(
        typeof type === "string" ? type : "",
        ["openstack", "pve"],
        'write "type: openstack"',
      );
      problems.add(`${where}.type is ${type === undefined ? "missing" : "not known"}`, advice);
    }
  }
  const plain = readOpenStackEnvironment(environment, problems);
  if (plain && namesOf(document).includes(plain.name)) {
    problems.add(
      'The cloud "openstack" is configured twice, in ratatosk.yaml and by the OPENSTACK_ variables',
      "unset the variables or give the entry another name",
    );
  } else if (plain) {
    clouds.push(plain);
  }
  return clouds;
}

function readStaff(reading: Reading): StaffSettings[] {
  const staff = readList(StaffMember, "staff", reading).map((member) =>
    Object.assign(member, { id: member.id ?? idOf(member.name) }),
  );
  const ids = staff.map((member) => member.id);
  reportTwice("staff", ids, "id (or name)", reading.problems);
  return staff;
}

function readPlans(
  reading: Reading,
  cloudNames: readonly string[],
  clouds: readonly CloudSettings[],
): PlanSettings[] {
  const plans = readList(PlanEntry, "plans", reading);
  reportTwice(
    "plans",
    plans.map((plan) => plan.code.toLowerCase()),
    "code",
    reading.problems,
  );
  return plans.map((plan) => {
    const targets: PlanSettings["targets"] = {};
    for (const [name, target] of Object.entries(
      plan.targets ?? Object.fromEntries(cloudNames.map((everywhere) => [everywhere, {}])),
    )) {
      const cloud = clouds.find((candidate) => candidate.name === name);
      if (!cloudNames.includes(name)) reportUnknownCloud(plan.code, name, cloudNames, reading.problems);
      targets[name] = { ...(cloud?.network !== undefined && { network: cloud.network }), ...target };
    }
    return Object.assign(plan, { targets });
  });
}

function reportUnknownCloud(
  plan: string,
  name: string,
  cloudNames: readonly string[],
  problems: Problems,
): void {
  const advice =
    cloudNames.length === 0
      ? "no cloud is configured; add it under clouds"
      : adviceFor(name, cloudNames, `there are ${cloudNames.join(", ")}`);
  problems.add(`The plan "${plan}" has a target for the cloud "${name}", which is not configured`, advice);
}

function readList<Schema extends z.ZodType>(
  schema: Schema,
  section: string,
  reading: Reading,
): z.output<Schema>[] {
  const { document, problems } = reading;
  const list = document.data[section] ?? [];
  if (!Array.isArray(list)) {
    problems.add(`${document.where([section])}: ${section} is not a list`, 'begin each entry with "- "');
    return [];
  }
  return list.flatMap((_entry, index) => {
    const parsed = parsePart(schema, [section, index], reading);
    return parsed === undefined ? [] : [parsed];
  });
}

type Person = { slack: string[]; discord: string[]; name: string };

/** An id that two people share would make one of them act as the other. */
function reportSamePeople(staff: readonly Person[], customers: readonly Person[], problems: Problems): void {
  const owners = new Map<string, string>();
  for (const person of [...staff, ...customers]) {
    for (const [platform, ids] of [
      ["Slack", person.slack],
      ["Discord", person.discord],
    ] as const) {
      for (const id of new Set(ids)) {
        const owner = owners.get(`${platform} ${id}`);
        if (owner !== undefined) {
          problems.add(
            `The ${platform} id ${id} belongs to both ${owner} and ${person.name}`,
            "give it to one of them",
          );
        }
        owners.set(`${platform} ${id}`, person.name);
      }
    }
  }
}

function reportTwice(section: string, keys: readonly string[], key: string, problems: Problems): void {
  for (const value of new Set(keys.filter((candidate, index) => keys.indexOf(candidate) !== index))) {
    problems.add(`${section} has two entries with the ${key} "${value}"`, "remove or rename one");
  }
}

function namesOf(document: Document): string[] {
  const section = document.data["clouds"];
  return isGroup(section) ? Object.keys(section) : [];
}

function isGroup(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** "Sam Hill" → "sam-hill" */
function idOf(name: string): string {
  return name
    .toLowerCase()
    .trim()
    .replaceAll(/[^\p{L}\p{N}]+/gu, "-")
    .replaceAll(/^-|-$/g, "");
}
