/** The simulated OpenStack of the bench `waits`, with servers under construction. Started by waits.ts. */
import { z } from "zod";
import { startOpenStackSimulator } from "../src/sandbox/openstack/index.ts";
import { startedWith, tell } from "./child.ts";

/** `count` servers whose builds end `inSeconds` from now. */
export interface Batch {
  count: number;
  inSeconds: number;
}
export interface Build {
  serverId: string;
  /** By the clock of this machine. */
  endsAtMs: number;
}
export type Question = { kind: "build"; batches: Batch[] } | { kind: "requests" };

const largestBatch = 1_000;
const Created = z.object({ server: z.object({ id: z.string() }) });
const Page = z.object({ servers: z.array(z.object({ id: z.string(), name: z.string() })) });

const { room } = startedWith() as { room: number };
// Speed 0: what remains of a build is what its metadata asks for.
const simulator = await startOpenStackSimulator({
  speed: 0,
  quota: { instances: room, cores: room * 2, ramMib: room * 4096 },
});
const token = await tokenOf();
let batches = 0;

process.on("message", (question: Question) => void answer(question));
tell({ url: simulator.url, authUrl: simulator.authUrl, ...simulator.credentials });

async function answer(question: Question): Promise<void> {
  if (question.kind === "build") {
    const builds: Build[] = [];
    for (const batch of question.batches) builds.push(...(await build(batch)));
    tell(builds);
    return;
  }
  const requests = Object.values(simulator.state.counts).reduce((sum, count) => sum + count, 0);
  tell({ requests });
}

async function build({ count, inSeconds }: Batch): Promise<Build[]> {
  const builds: Build[] = [];
  for (let left = count; left > 0; left -= largestBatch) {
    const name = `bench-${(batches += 1)}`;
    const endsAtMs = Date.now() + inSeconds * 1000;
    const many = Math.min(left, largestBatch);
    const created = await compute("POST", "/servers", {
      server: {
        name,
        flavorRef: "2",
        imageRef: await imageId(),
        networks: "none",
        metadata: { osr_delay: String(inSeconds) },
        min_count: many,
        max_count: many,
      },
    });
    const [first] = [Created.parse(created).server];
    const { servers } = Page.parse(await compute("GET", `/servers?name=^${name}(-|$)&limit=${largestBatch}`));
    if (servers.length !== many || !servers.some(({ id }) => id === first.id))
      throw new Error(`the simulator made ${servers.length} of ${many} servers`);
    builds.push(...servers.map(({ id }) => ({ serverId: id, endsAtMs })));
  }
  return builds;
}

async function tokenOf(): Promise<string> {
  const { applicationCredentialId: id, applicationCredentialSecret: secret } = simulator.credentials;
  const response = await fetch(`${simulator.authUrl}/auth/tokens`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({
      auth: { identity: { methods: ["application_credential"], application_credential: { id, secret } } },
    }),
  });
  const given = response.headers.get("x-subject-token");
  if (given === null) throw new Error(`the simulator gave no token: ${await response.text()}`);
  return given;
}

async function imageId(): Promise<string> {
  const response = await fetch(`${simulator.url}/image/v2/images?name=debian-12`, {
    headers: { "x-auth-token": token },
  });
  const { images } = z.object({ images: z.array(z.object({ id: z.string() })) }).parse(await response.json());
  return images[0]?.id ?? "";
}

async function compute(method: string, path: string, body?: object): Promise<unknown> {
  const response = await fetch(`${simulator.url}/compute/v2.1${path}`, {
    method,
    headers: {
      "x-auth-token": token,
      "content-type": "application/json",
      "openstack-api-version": "compute 2.60",
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  const answered: unknown = await response.json();
  if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${JSON.stringify(answered)}`);
  return answered;
}
