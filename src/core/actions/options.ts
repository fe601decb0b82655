/** Options that several actions share. */
import type { Option } from "../action.ts";

export const serverOption = {
  name: "server",
  field: "server",
  label: "Server",
  help: "Name or public id (srv-…)",
  type: "text",
  required: true,
  subject: true,
  lookup: "server",
} as const satisfies Option;

export const snapshotOption = {
  name: "snapshot",
  field: "snapshot",
  label: "Snapshot",
  help: "Its name (/snapshot list)",
  type: "text",
  required: true,
  lookup: "snapshot",
} as const satisfies Option;

export const operationOption = {
  name: "operation",
  field: "operation",
  label: "Operation",
  help: "The operation's id (op-…)",
  type: "text",
  required: true,
  subject: true,
  lookup: "operation",
} as const satisfies Option;

export const planOption = {
  name: "plan",
  field: "plan",
  label: "Plan",
  help: "What is sold: sizes and price",
  type: "text",
  lookup: "plan",
} as const satisfies Option;

export const imageOption = {
  name: "image",
  field: "image",
  label: "Image",
  help: "The operating system",
  type: "text",
  lookup: "image",
} as const satisfies Option;

export const customerOption = {
  name: "customer",
  field: "customer",
  label: "Customer",
  help: "Reference or name of the customer",
  type: "text",
  lookup: "customer",
  audience: ["staff"],
} as const satisfies Option;

export const cloudOption = {
  name: "cloud",
  field: "cloud",
  label: "Cloud",
  help: "Name of the cloud",
  type: "text",
  lookup: "cloud",
  audience: ["staff"],
  advanced: true,
} as const satisfies Option;

/** Of a server that does not exist yet. */
export const nameOption = {
  name: "name",
  field: "name",
  label: "Name",
  help: "Letters, digits and hyphens: web-1",
  type: "text",
  required: true,
  subject: true,
} as const satisfies Option;
