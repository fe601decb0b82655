// What the configuration promises and the cluster does not keep: for the doctor, before a customer finds out.
import { z } from "zod";
import type { Finding } from "../../core/cloud.ts";
import { problemOf } from "../../core/errors.ts";
import { inBatches } from "./batches.ts";
import type { PveClient } from "./client.ts";
import { findVm, listResources, type Resources } from "./cluster.ts";
import { hasAgent, hasCloudInit } from "./config.ts";
import { markersIn } from "./marker.ts";
import { isOnNode } from "./media.ts";

const AT_ONCE = 8;
const MOST_NAMES = 5;

const Storages = z.array(z.looseObject({ storage: z.string() }));

/** Never throws: what cannot be looked at is a finding of its own. */
export async function examine(client: PveClient): Promise<Finding[]> {
  const looks: readonly (readonly [string, (resources: Resources) => Promise<Omit<Finding, "service">>])[] = [
    ["vmidRange", (resources) => examineRange(client, resources)],
    ["templates", (resources) => examineTemplates(client, resources)],
    ["storage", (resources) => examineStorage(client, resources)],
    ["rescueIso", (resources) => examineRescueIso(client, resources)],
    ["isos", (resources) => examineIsos(client, resources)],
  ];
  const findings: Finding[] = [];
  for (const [service, look] of looks) {
    try {
      // oxlint-disable-next-line no-await-in-loop -- one after the other, to be read from the top
      findings.push({ service, ...(await look(await listResources(client))) });
    } catch (error) {
      const { message, staffDetail } = problemOf(error);
      findings.push({ service, ok: false, detail: `not looked at: ${staffDetail ?? message}` });
    }
  }
  return findings;
}

/** Somebody else's guest there takes a number that may be given to a server at any moment. */
async function examineRange(
  client: PveClient,
  { guests, nodes }: Resources,
): Promise<Omit<Finding, "service">> {
  const [from, to] = client.options.vmidRange;
  const inside = guests.filter(({ vmid }) => vmid >= from && vmid <= to);
  const strangers = await inBatches(inside, AT_ONCE, async (row) => {
    if (row.type !== "qemu") return [row];
    if (nodes.some(({ node, online }) => node === row.node && !online)) return [];
    const vm = await findVm(client, row.vmid, { hint: row.node });
    return vm === null || markersIn(vm.config["description"]).length > 0 ? [] : [row];
  });
  const names = strangers.flat().map(({ vmid, name, node }) => `${vmid} ${name ?? ""} on ${node}`);
  if (names.length === 0) return { ok: true, detail: `${from}-${to}: ${inside.length} guests, all ours` };
  return {
    ok: false,
    detail: `${from}-${to} has guests that are not ours: ${shown(names)}\nMove them to other numbers, or choose a range that nobody uses.`,
  };
}

async function examineTemplates(
  client: PveClient,
  { guests, nodes }: Resources,
): Promise<Omit<Finding, "service">> {
  const rows = guests.filter(
    ({ type, template, node }) =>
      type === "qemu" && template === true && nodes.some((one) => one.node === node && one.online),
  );
  if (rows.length === 0) {
    return {
      ok: false,
      detail:
        "none is visible, so nothing can be built\nMake a VM with a cloud image, a cloud-init drive and agent: 1 and turn it into a template.",
    };
  }
  const looked = await inBatches(rows, AT_ONCE, async ({ vmid, node, name }) => {
    const config = (await findVm(client, vmid, { hint: node }))?.config ?? {};
    return {
      is: `${name ?? ""} (${vmid} on ${node})`,
      cloudInit: hasCloudInit(config),
      agent: hasAgent(config),
    };
  });
  const bare = looked.filter(({ cloudInit }) => !cloudInit).map(({ is }) => is);
  const mute = looked.filter(({ agent }) => !agent).map(({ is }) => is);
  const advice = [
    bare.length === 0
      ? ""
      : `without a cloud-init drive, so servers of them have no password, name or address: ${shown(bare)}\nAdd one: qm set <vmid> --ide2 <storage>:cloudinit`,
    mute.length === 0
      ? ""
      : `without the guest agent, so passwords wait for a restart and DHCP addresses stay unknown: ${shown(mute)}\nInstall qemu-guest-agent in them and: qm set <vmid> --agent 1`,
  ].filter(Boolean);
  if (advice.length === 0)
    return { ok: true, detail: `${rows.length}, all with a cloud-init drive and the guest agent` };
  return { ok: bare.length === 0 ? null : false, detail: advice.join("\n") };
}

async function examineStorage(client: PveClient, { nodes }: Resources): Promise<Omit<Finding, "service">> {
  const { storage } = client.options;
  const without = await nodesWithout(nodes, async (node) => {
    const rows = await client.read(
      {
        path: `/nodes/${encodeURIComponent(node)}/storage`,
        parameters: { content: "images", enabled: true },
      },
      Storages,
    );
    return storage === undefined ? rows.length > 0 : rows.some((row) => row.storage === storage);
  });
  if (without.length === 0) return { ok: true, detail: storage ?? "each node has one for disks" };
  const missing = storage === undefined ? "no storage for disks that we may use" : `no ${storage} for disks`;
  return {
    ok: false,
    detail: `${without.join(", ")}: ${missing}\nAllow it "Disk image" content, give our credential Datastore.AllocateSpace on it, or correct the setting storage.`,
  };
}

async function examineRescueIso(client: PveClient, { nodes }: Resources): Promise<Omit<Finding, "service">> {
  const { rescueIso } = client.options;
  if (rescueIso === undefined) {
    return {
      ok: null,
      detail: "not set, so only staff can start a rescue, with iso:; name an ISO image that every node has",
    };
  }
  const without = await nodesWithout(nodes, (node) => isOnNode(client, { node, media: rescueIso }));
  if (without.length === 0) return { ok: true, detail: `${rescueIso} on every node` };
  return {
    ok: false,
    detail: `${without.join(", ")}: no ${rescueIso}\nUpload it there, or correct the setting rescueIso.`,
  };
}

/** One that a node lacks can be put into no drive of its servers. */
async function examineIsos(client: PveClient, { nodes }: Resources): Promise<Omit<Finding, "service">> {
  const isos = Object.entries(client.options.isos ?? {});
  if (isos.length === 0) {
    return { ok: null, detail: "none, so /iso has nothing to offer; name ISO images that every node has" };
  }
  const looked = await inBatches(isos, 1, async ([name, volid]) => {
    const without = await nodesWithout(nodes, (node) => isOnNode(client, { node, media: volid }));
    return without.length === 0 ? [] : [`${without.join(", ")}: no ${volid} (${name})`];
  });
  const lacks = looked.flat();
  if (lacks.length === 0) return { ok: true, detail: `${isos.length}, each on every node` };
  return {
    ok: false,
    detail: `${lacks.slice(0, MOST_NAMES).join("\n")}${lacks.length > MOST_NAMES ? `\nand ${lacks.length - MOST_NAMES} more` : ""}\nUpload them there, or correct the setting isos.`,
  };
}

async function nodesWithout(
  nodes: Resources["nodes"],
  has: (node: string) => Promise<boolean>,
): Promise<string[]> {
  const online = nodes.filter(({ online: isOnline }) => isOnline).map(({ node }) => node);
  const looked = await inBatches(online, AT_ONCE, async (node) => ((await has(node)) ? [] : [node]));
  return looked.flat();
}

function shown(names: readonly string[]): string {
  const more = names.length - MOST_NAMES;
  return [...names.slice(0, MOST_NAMES), ...(more > 0 ? [`and ${more} more`] : [])].join(", ");
}
