import { z } from "zod";
import { ownOperations, type Principal, tenantOf } from "../access.ts";
import { defineRead } from "../action.ts";
import { serverStates } from "../cloud.ts";
import { findCustomer } from "../people/find.ts";
import { findServer, listServers, type ServerRow } from "../servers/find.ts";
import { bannersFor, viewerOf } from "../servers/maintenance.ts";
import { describeMemory } from "../servers/size.ts";
import { minuteOf } from "../time.ts";
import { customerOption, serverOption } from "./options.ts";

const ListInput = z.object({
  query: z.string().optional(),
  state: z.enum(serverStates).optional(),
  customer: z.string().optional(),
});
type ListInput = z.infer<typeof ListInput>;

const pageSize = 25;

export const serverList = defineRead<ListInput>({
  name: "server.list",
  summary: "List servers",
  audience: ["staff", "customer"],
  permission: "server.read",
  input: ListInput,
  options: [
    {
      name: "query",
      field: "query",
      label: "Search",
      help: "Part of a name, a public id or an address",
      type: "text",
      subject: true,
    },
    {
      name: "state",
      field: "state",
      label: "State",
      help: "Only servers in this state",
      type: "text",
      choices: serverStates.map((value) => ({ value, label: value.replaceAll("_", " ") })),
    },
    customerOption,
  ],
  async run({ database, principal }, input) {
    const staff = principal.kind !== "customer";
    // A mistyped one has no servers either, and that would be a false answer.
    const customer =
      staff && input.customer !== undefined
        ? (await findCustomer(database, principal, input.customer)).ref
        : input.customer;
    const { rows, total } = await listServers(database, principal, { ...input, customer }, pageSize);
    const filtered = [input.query, input.state, input.customer].some((value) => value !== undefined);
    const columns = ["Server", "Id", "State", "Plan", "Addresses", ...(staff ? ["Customer", "Cloud"] : [])];
    return {
      title: total === 1 ? "1 server" : `${total} servers`,
      tone: "neutral",
      ...(await bannersFor(database, viewerOf(principal), { serverIds: rows.map(({ id }) => id) })),
      table: {
        columns,
        rows: rows.map((server) => [
          server.name,
          server.publicId,
          stateOf(server),
          server.planCode ?? "-",
          server.addresses.join(" ") || "-",
          ...(staff ? [server.customerName ?? "-", server.cloudName] : []),
        ]),
        empty: filtered ? "No server matches." : "There are no servers yet. /server provision makes one.",
      },
      ...(total > rows.length
        ? { footer: `The first ${rows.length} of ${total}; narrow it with query: or state:.` }
        : {}),
    };
  },
});

function stateOf(server: Pick<ServerRow, "state" | "suspendedAt" | "deleteAt" | "isDue">): string {
  const state = server.state.replaceAll("_", " ");
  const suspended = server.suspendedAt === null ? "" : " (suspended by billing)";
  const when = server.isDue ? "due for deletion since" : "deleting at";
  const leaving = server.deleteAt === null ? "" : `, ${when} ${minuteOf(server.deleteAt)}`;
  return `${state}${suspended}${leaving}`;
}

const ShowInput = z.object({ server: z.string() });
type ShowInput = z.infer<typeof ShowInput>;

export const serverShow = defineRead<ShowInput>({
  name: "server.show",
  summary: "Show one server",
  audience: ["staff", "customer"],
  permission: "server.read",
  input: ShowInput,
  options: [serverOption],
  async run({ database, principal }, input) {
    const server = await findServer(database, principal, input.server);
    const asked = await database.sql<{ publicId: string; action: string; state: string }>(
      `SELECT public_id AS "publicId", action, state FROM operations o
       WHERE server_id = $1 AND ${ownOperations(2)} ORDER BY created_at DESC LIMIT 3`,
      [server.id, tenantOf(principal)],
    );
    return {
      title: server.name,
      tone: server.state === "error" || server.state === "missing" ? "error" : "neutral",
      fields: fieldsOf(server, principal),
      ...(await bannersFor(database, viewerOf(principal), { serverIds: [server.id] })),
      ...(asked.length > 0
        ? {
            footer: `Latest: ${asked.map((one) => `${one.publicId} ${one.action} ${one.state.replaceAll("_", " ")}`).join(" · ")}`,
          }
        : {}),
    };
  },
});

function fieldsOf(server: ServerRow, principal: Principal) {
  const fields = [
    { label: "Id", value: server.publicId },
    { label: "State", value: stateOf(server) },
    { label: "Plan", value: server.planCode ?? "-" },
    {
      label: "Size",
      value: `${server.vcpus} vCPU, ${describeMemory(server.memoryMib)}, ${server.diskGib} GiB disk`,
    },
    { label: "Image", value: server.imageName ?? "-" },
    { label: "Addresses", value: server.addresses.join(", ") || "-" },
    { label: "Since", value: minuteOf(server.createdAt) },
  ];
  if (server.nextAddresses.length > 0)
    fields.push({ label: "From its next boot on", value: server.nextAddresses.join(", ") });
  if (server.iso !== null) fields.push({ label: "ISO in its drive", value: server.iso });
  if (server.deleteProtected) fields.push({ label: "Protected", value: "against deletion" });
  if (server.deleteAt !== null) {
    const way =
      principal.kind === "customer" ? "our team can bring it back" : "/server undelete brings it back";
    const when = `${server.isDue ? "due since" : "at"} ${minuteOf(server.deleteAt)}`;
    const tried = server.isDue ? "; tried every day until it is gone" : "";
    fields.push({ label: "Deletion", value: `${when}${tried}; ${way}` });
  }
  if (principal.kind === "customer") return fields;
  fields.push(
    {
      label: "Customer",
      value: server.customerName === null ? "-" : `${server.customerName} (${server.customerRef ?? "-"})`,
    },
    { label: "Cloud", value: server.cloudName },
    { label: "Id in the cloud", value: server.externalId ?? "-" },
    { label: "Cloud says", value: server.providerStatus ?? "-" },
  );
  const metadata = Object.entries(server.metadata);
  if (metadata.length > 0) {
    fields.push({ label: "Metadata", value: metadata.map(([key, value]) => `${key}=${value}`).join(", ") });
  }
  return fields;
}
