/**
 * `npm run demo`: the main job from end to end, with everything real but the cloud: embedded database, the OpenStack
 * client over HTTP, the console, signed webhooks. A second act kills the program in the middle of an order.
 */
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { z } from "zod";
import type { Delivery, Receiver } from "../sandbox/receiver.ts";
import { type Child, startChild } from "./child.ts";
import { type SampleWorld, startSampleWorld } from "./sample-world.ts";
import { createStage, type Stage } from "./stage.ts";

const stepWithinMs = 60_000;

interface Play extends Pick<SampleWorld, "openstack" | "pve" | "receiver"> {
  stage: Stage;
  launch(): Promise<Child>;
}

async function main(): Promise<number> {
  const stage = createStage(process.stdout);
  const world = await startSampleWorld({ speed: 0.5, onDelivery: (delivery) => stage.webhook(delivery) });
  const { openstack, pve, receiver, configPath } = world;
  const children: Child[] = [];
  const launch = async () => {
    const child = await startChild({ stage, configPath, dataDir: join(world.folder, "data") });
    children.push(child);
    return child;
  };
  try {
    stage.title("Ratatosk: chat → cloud → billing, in one terminal");
    stage.say(`Simulated OpenStack at ${openstack.authUrl}, Proxmox VE at ${pve.url}, both over HTTP.`);
    return await play({ stage, openstack, pve, receiver, launch });
  } finally {
    for (const child of children) child.kill();
    await world.close();
  }
}

async function play(scene: Play): Promise<number> {
  const { stage, receiver } = scene;
  stage.title("1. One command, one server, on each cloud");
  const first = await scene.launch();
  stage.say(`The program runs as process ${first.pid}; Rita of the team types into its console.`);
  await first.type("/server provision web-1 customer:ada plan:small image:debian-12");
  await until(() => has(receiver, "server.provision.succeeded", "web-1"), "web-1 is not built");
  await first.type("/server provision db-1 customer:ada plan:small image:debian-12 cloud:sim-pve");
  await until(() => has(receiver, "server.provision.succeeded", "db-1"), "db-1 is not built");
  stage.title("2. Grow it, confirmed by the cloud");
  await first.type("/server resize web-1 plan:medium");
  await until(() => has(receiver, "server.resize.succeeded", "web-1"), "web-1 is not resized");

  stage.title("3. Kill it in the middle of an order");
  const killed = await killInTheMiddle(scene, first);
  const second = await scene.launch();
  stage.say(`Process ${second.pid} starts on the same data. It asks the cloud before it asks for anything.`);
  await until(() => has(receiver, "server.provision.succeeded", "web-2"), "web-2 is not built");
  const adopted = serverOf(receiver, "web-2");
  stage.say(
    `Process ${second.pid} adopted ${adopted}: the very server that process ${first.pid} had asked for.`,
  );

  stage.title("4. The same order again, then clean up");
  await second.type("/server provision web-2 customer:ada plan:small image:debian-12");
  await second.type("/server list");
  for (const name of ["web-1", "web-2", "db-1"]) {
    await second.type(`/server delete ${name}`);
    await second.type("!confirm yes");
    await until(() => has(receiver, "server.deleted", name), `${name} is not deleted`);
  }
  await second.type("exit");
  const code = await second.ended;
  return prove(scene, { killed, adopted, pids: [first.pid, second.pid], code });
}

/** The server exists in the cloud, its id has not reached us: the answer trickles when the process dies. */
async function killInTheMiddle({ stage, openstack }: Play, child: Child): Promise<string> {
  openstack.addFault({ method: "POST", path: "/servers$", kind: "trickle", delayMs: 200 });
  await child.type("/server provision web-2 customer:ada plan:small image:debian-12");
  const find = () => openstack.state.servers.find((server) => server.name === "web-2");
  await until(() => find() !== undefined, "web-2 was not asked for");
  const id = find()?.id ?? "?";
  child.kill();
  await child.ended;
  stage.say(`kill -9 ${child.pid}: the cloud has begun ${id}, and nobody here has read its answer.`);
  return id;
}

interface Findings {
  killed: string;
  adopted: string;
  pids: (number | undefined)[];
  code: number | null;
}

function prove({ stage, openstack, pve, receiver }: Play, findings: Findings): number {
  const servers = openstack.state.servers;
  const vms = pve.state.vms.filter((vm) => vm.vmid >= 5000 && vm.vmid <= 5999);
  const cloned = pve.state.tasks.filter((task) => task.type === "qmclone");
  const left = servers.filter((server) => server.status !== "DELETED").length + vms.length;
  const verified = receiver.deliveries.filter((delivery) => delivery.verified).length;
  const proofs: [boolean, string][] = [
    [
      servers.length === 2 && cloned.length === 1,
      `3 orders: ${servers.length} servers made on OpenStack, ${cloned.length} on Proxmox VE, although a process died in between`,
    ],
    [
      findings.killed === findings.adopted,
      `process ${findings.pids[1]} adopted ${findings.adopted}, asked for by ${findings.pids[0]}`,
    ],
    [left === 0, `${left} servers left in the clouds after the deletes`],
    [
      verified === receiver.deliveries.length && verified > 0,
      `${verified} of ${receiver.deliveries.length} webhooks verified by the npm package standardwebhooks`,
    ],
    [isGapless(receiver.deliveries), "each server's events are numbered without a gap"],
    [findings.code === 0, "every command ended as its card said"],
  ];
  stage.title("What this run proved");
  for (const [holds, text] of proofs) stage.proof(holds, text);
  return proofs.every(([holds]) => holds) ? 0 : 1;
}

function isGapless(deliveries: readonly Delivery[]): boolean {
  const bySubject = new Map<string, Set<number>>();
  for (const { body } of deliveries) {
    const { server, sequence } = factsOf(body);
    if (server === undefined || sequence === undefined) continue;
    bySubject.set(server, (bySubject.get(server) ?? new Set()).add(sequence));
  }
  return bySubject.size > 0 && [...bySubject.values()].every((seen) => Math.max(...seen) === seen.size);
}

const Envelope = z.object({
  sequence: z.number().optional(),
  data: z.object({
    server: z.object({ id: z.string(), name: z.string() }).optional(),
    internal: z.object({ externalId: z.string().nullish() }).optional(),
  }),
});

function factsOf(body: unknown) {
  const { sequence, data } = Envelope.parse(body);
  return {
    sequence,
    server: data.server?.id,
    name: data.server?.name,
    externalId: data.internal?.externalId,
  };
}

function has(receiver: Receiver, type: string, name: string): boolean {
  return receiver.deliveries.some(
    (delivery) => delivery.type === type && factsOf(delivery.body).name === name,
  );
}

function serverOf(receiver: Receiver, name: string): string {
  const told = receiver.deliveries.findLast(
    (delivery) => delivery.type === "server.provision.succeeded" && factsOf(delivery.body).name === name,
  );
  return (told === undefined ? undefined : factsOf(told.body).externalId) ?? "?";
}

async function until(holds: () => boolean, otherwise: string): Promise<void> {
  const end = Date.now() + stepWithinMs;
  while (!holds()) {
    if (Date.now() > end) throw new Error(`The demo stopped: ${otherwise} within ${stepWithinMs / 1000} s.`);
    await delay(20);
  }
}

try {
  process.exit(await main());
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exit(1);
}
