/** A small registry with every kind of option, for tests of the grammar, forms, help, the console and command sets. */
import { z } from "zod";
import {
  type Action,
  type ActionRegistry,
  defineImmediate,
  defineOperation,
  defineRead,
} from "../../src/core/action.ts";
import { ServiceError } from "../../src/core/errors.ts";

const server = {
  name: "server",
  field: "server",
  label: "Server",
  help: "Name or public id of the server",
  type: "text",
  required: true,
  subject: true,
  lookup: "server",
} as const;

const list = defineRead<{ state?: string | undefined }>({
  name: "server.list",
  summary: "List servers",
  audience: ["staff", "customer"],
  permission: "server.read",
  input: z.object({ state: z.string().optional() }),
  options: [
    {
      name: "state",
      field: "state",
      label: "State",
      help: "Only servers in this state",
      type: "text",
      choices: [
        { value: "active", label: "Running" },
        { value: "stopped", label: "Stopped" },
      ],
    },
  ],
  run: async () => ({ title: "Servers", tone: "neutral" }),
});

const provisionInput = z.object({
  customer: z.string().optional(),
  name: z
    .string()
    .regex(
      /^[a-z][a-z0-9-]*$/,
      "must start with a letter and have only lower-case letters, digits and hyphens",
    )
    .max(63),
  plan: z.string(),
  image: z.string(),
  labels: z.record(z.string(), z.string()).optional(),
  count: z.int().min(1).max(5).optional(),
  start: z.boolean().default(true),
});

const provision = defineOperation<z.infer<typeof provisionInput>>({
  name: "server.provision",
  summary: "Build a server from a plan",
  audience: ["staff", "customer"],
  permission: "server.change",
  risk: "change",
  specVersion: 1,
  input: provisionInput,
  options: [
    {
      name: "customer",
      field: "customer",
      label: "Customer",
      help: "Whose server it will be",
      type: "text",
      required: true,
      subject: true,
      lookup: "customer",
      audience: ["staff"],
    },
    { name: "name", field: "name", label: "Name", help: "Name of the server", type: "text", required: true },
    {
      name: "plan",
      field: "plan",
      label: "Plan",
      help: "What to build",
      type: "text",
      required: true,
      lookup: "plan",
    },
    {
      name: "image",
      field: "image",
      label: "Image",
      help: "What to boot",
      type: "text",
      required: true,
      lookup: "image",
    },
    {
      name: "labels",
      field: "labels",
      label: "Labels",
      help: "Labels to put on it",
      type: "pairs",
      advanced: true,
    },
    { name: "count", field: "count", label: "Count", help: "How many", type: "number", advanced: true },
    { name: "start", field: "start", label: "Start", help: "Start it when it is built", type: "flag" },
  ],
  plan: notPlanned,
  steps: () => [],
});

const resizeInput = z
  .object({
    server: z.string(),
    plan: z.string().optional(),
    memoryMib: z.int().min(512).max(262_144).optional(),
    cpus: z.int().min(1).max(64).optional(),
    diskGib: z.int().min(10).optional(),
  })
  .refine(
    (input) => [input.plan, input.memoryMib, input.cpus, input.diskGib].some((value) => value !== undefined),
    {
      message: "Say what to change: plan, memory, cpu or disk.",
    },
  );

const resize = defineOperation<z.infer<typeof resizeInput>>({
  name: "server.resize",
  summary: "Change a server's size",
  audience: ["staff", "customer"],
  permission: "server.change",
  risk: "change",
  specVersion: 1,
  input: resizeInput,
  options: [
    server,
    { name: "plan", field: "plan", label: "Plan", help: "Another plan", type: "text", lookup: "plan" },
    {
      name: "memory",
      field: "memoryMib",
      label: "Memory",
      help: "Memory with a unit, like 8G",
      type: "memory",
    },
    { name: "cpu", field: "cpus", label: "CPUs", help: "Number of virtual CPUs", type: "number" },
    { name: "disk", field: "diskGib", label: "Disk", help: "Disk with a unit, like 80G", type: "disk" },
  ],
  plan: notPlanned,
  steps: () => [],
});

const power = defineOperation<{ server: string; verb: string }>({
  name: "server.power",
  summary: "Start, stop or restart a server",
  audience: ["staff", "customer"],
  permission: "server.change",
  risk: "change",
  specVersion: 1,
  input: z.object({ server: z.string(), verb: z.enum(["start", "stop", "shutdown", "reboot"]) }),
  options: [
    server,
    {
      name: "verb",
      field: "verb",
      label: "What to do",
      help: "What to do with its power",
      type: "text",
      required: true,
      choices: ["start", "stop", "shutdown", "reboot"].map((value) => ({ value, label: capital(value) })),
    },
  ],
  plan: notPlanned,
  steps: () => [],
});

const remove = defineOperation<{ server: string; force?: boolean | undefined }>({
  name: "server.delete",
  summary: "Delete a server and its disks",
  audience: ["staff"],
  permission: "server.delete",
  risk: "destructive",
  specVersion: 1,
  input: z.object({ server: z.string(), force: z.boolean().optional() }),
  options: [
    server,
    {
      name: "force",
      field: "force",
      label: "Force",
      help: "Also when it is locked",
      type: "flag",
      advanced: true,
    },
  ],
  plan: notPlanned,
  steps: () => [],
});

const volumeAttach = defineOperation<{ server: string; diskGib: number }>({
  name: "server.volume.attach",
  summary: "Attach a new volume to a server",
  audience: ["staff", "customer"],
  permission: "server.change",
  risk: "change",
  specVersion: 1,
  input: z.object({ server: z.string(), diskGib: z.int().min(1) }),
  options: [
    server,
    { name: "size", field: "diskGib", label: "Size", help: "Size with a unit", type: "disk", required: true },
  ],
  plan: notPlanned,
  steps: () => [],
});

const cancel = defineImmediate<{ operation: string }>({
  name: "ops.cancel",
  summary: "Cancel an operation",
  audience: ["staff", "customer"],
  permission: "operation.change",
  risk: "change",
  input: z.object({ operation: z.string() }),
  options: [
    {
      name: "operation",
      field: "operation",
      label: "Operation",
      help: "Public id of the operation",
      type: "text",
      required: true,
      subject: true,
      lookup: "operation",
    },
  ],
  run: async () => ({ view: { title: "Cancelled", tone: "success" } }),
});

const link = defineImmediate<{ code: string }>({
  name: "link",
  summary: "Link your chat account",
  audience: ["staff", "customer"],
  permission: "server.read",
  risk: "change",
  input: z.object({ code: z.string() }),
  options: [
    {
      name: "code",
      field: "code",
      label: "Code",
      help: "The code from billing",
      type: "text",
      required: true,
      subject: true,
    },
  ],
  run: async () => ({ view: { title: "Linked", tone: "success" } }),
});

export const sampleActions: readonly Action[] = [
  list,
  provision,
  resize,
  power,
  remove,
  volumeAttach,
  cancel,
  link,
];

export function registryOf(actions: readonly Action[]): ActionRegistry {
  return {
    get(name) {
      const action = actions.find((candidate) => candidate.name === name);
      if (action === undefined) throw new ServiceError("unknown_command", `There is no ${name}.`);
      return action;
    },
    find: (name) => actions.find((candidate) => candidate.name === name),
    list: () => actions,
  };
}

export const sampleRegistry: ActionRegistry = registryOf(sampleActions);

export function sampleAction(name: string): Action {
  return sampleRegistry.get(name);
}

function capital(word: string): string {
  return word.charAt(0).toUpperCase() + word.slice(1);
}

function notPlanned(): never {
  throw new Error("the sample actions are never planned");
}
