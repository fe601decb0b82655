/** A customer's account as they see it, and the chat identities that stand for it. */
import { z } from "zod";
import type { Principal } from "../access.ts";
import { defineImmediate, defineRead } from "../action.ts";
import { ServiceError } from "../errors.ts";
import { shortened } from "../option-values.ts";
import { type Customer, findCustomer } from "../people/find.ts";
import { identityOf } from "../people/identify.ts";
import {
  alreadyKnown,
  type Identity,
  LINK,
  LINK_CODE_MINUTES,
  listIdentities,
  makeLinkCode,
  unlink,
} from "../people/link.ts";
import { findFactor, requireStepUp } from "../people/step-up.ts";
import { customerOption } from "./options.ts";

const whose = { ...customerOption, required: true, subject: true } as const;

const LinkInput = z.object({ code: z.string() });
type LinkInput = z.infer<typeof LinkInput>;

/** A stranger's way is Entrance.link: whoever gets here is known, and so has nothing to link. */
export const link = defineImmediate<LinkInput>({
  name: LINK,
  summary: "Link your chat account to your customer account",
  audience: ["staff", "customer"],
  permission: "server.read",
  risk: "change",
  input: LinkInput,
  options: [
    {
      name: "code",
      field: "code",
      label: "Code",
      help: "The code that you were given",
      type: "text",
      required: true,
      subject: true,
    },
  ],
  run: ({ principal }) => Promise.reject(alreadyKnown(principal)),
});

const ShowInput = z.object({ customer: z.string().optional() });
type ShowInput = z.infer<typeof ShowInput>;

export const accountShow = defineRead<ShowInput>({
  name: "account.show",
  summary: "Show an account: linked chat accounts, servers, limits",
  audience: ["staff", "customer"],
  permission: "customer.read",
  input: ShowInput,
  options: [whose],
  async run({ database, principal }, input) {
    const customer = await findCustomer(database, principal, input.customer);
    const [account] = await database.sql<{
      email: string | null;
      maxServers: number | null;
      servers: number;
    }>(
      `SELECT c.email, c.max_servers AS "maxServers",
         (SELECT count(*)::int FROM servers s WHERE s.customer_id = c.id AND s.deleted_at IS NULL) AS servers
       FROM customers c WHERE c.id = $1`,
      [customer.id],
    );
    if (account === undefined) throw new Error(`customer ${customer.id} vanished`);
    const { email, maxServers, servers } = account;
    const factor = await findFactor(database, customer);
    const identities = await listIdentities(database, customer);
    return {
      title: customer.name,
      tone: "neutral",
      fields: [
        { label: "Reference", value: customer.ref },
        { label: "E-mail", value: email ?? "-" },
        {
          label: "Servers",
          value: maxServers === null ? `${servers}` : `${servers} of at most ${maxServers}`,
        },
        { label: "Authenticator app", value: factor?.confirmed === true ? "in use" : "not set up" },
      ],
      table: {
        columns: ["Linked chat account", "Since", "By"],
        rows: identities.map((identity) => [
          `${identityOf(identity)}${isVia(principal, identity) ? " (this one)" : ""}`,
          identity.linkedAt.toISOString().slice(0, 10),
          identity.source === "code" ? "a code" : "our team",
        ]),
        empty: "No chat account is linked.",
      },
    };
  },
});

function isVia(principal: Principal, identity: Identity): boolean {
  return principal.kind === "customer" && principal.via === identityOf(identity);
}

const CodeInput = z.object({ customer: z.string() });
type CodeInput = z.infer<typeof CodeInput>;

export const accountCode = defineImmediate<CodeInput>({
  name: "account.code",
  summary: "Make a code with which a customer links a chat account",
  audience: ["staff"],
  permission: "customer.link",
  risk: "change",
  input: CodeInput,
  options: [whose],
  async run({ database, principal }, input) {
    const customer = await findCustomer(database, principal, input.customer);
    const code = await makeLinkCode(database, customer, principal);
    return {
      subject: customer.ref,
      view: {
        title: `Code for ${customer.name}`,
        tone: "success",
        fields: [{ label: "Code", value: code }],
        text: `Give it to ${customer.name} alone: whoever sends it first acts as this customer. They write /${LINK} code:${code} in Slack or Discord.`,
        footer: `Good once, for ${LINK_CODE_MINUTES} minutes. It is not shown again.`,
      },
    };
  },
});

const UnlinkInput = z.object({ customer: z.string().optional(), identity: z.string().optional() });
type UnlinkInput = z.infer<typeof UnlinkInput>;

export const accountUnlink = defineImmediate<UnlinkInput>({
  name: "account.unlink",
  summary: "Unlink a chat account, which is a stranger's from then on",
  audience: ["staff", "customer"],
  permission: "customer.link",
  risk: "change",
  input: UnlinkInput,
  options: [
    whose,
    {
      name: "identity",
      field: "identity",
      label: "Chat account",
      help: "As /account show lists it (slack:U…); yours, or the only one, when left out",
      type: "text",
    },
  ],
  async run({ database, principal, source, engine }, input) {
    const customer = await findCustomer(database, principal, input.customer);
    const identity = chosen(customer, principal, {
      typed: input.identity,
      identities: await listIdentities(database, customer),
    });
    if (identity.source === "configuration") throw configured(principal, identity);
    // Whoever sits at one chat account does not throw out the others by it.
    if (!isVia(principal, identity)) await requireStepUp({ database, principal, source, engine });
    await unlink(database, customer, identity);
    database.afterCommit(() => engine.wake.nudge("events"));
    return {
      subject: identityOf(identity),
      view: {
        title: `Unlinked from ${customer.name}.`,
        tone: "success",
        text: `${identityOf(identity)} can no longer see or do anything of ${customer.name}'s here. A new code links it again.`,
      },
    };
  },
});

function chosen(
  { name }: Customer,
  principal: Principal,
  { typed, identities }: { typed: string | undefined; identities: readonly Identity[] },
): Identity {
  const list = identities.map(identityOf).join(", ");
  if (typed !== undefined) {
    const wanted = typed.toLowerCase();
    const found = identities.find((identity) =>
      [identityOf(identity), identity.userId].some((text) => text.toLowerCase() === wanted),
    );
    if (found !== undefined) return found;
    const advice = list === "" ? "None is linked." : `Linked are ${list}.`;
    throw new ServiceError(
      "not_found",
      `No chat account "${shortened(typed)}" is linked to ${name}. ${advice}`,
      {
        facts: { option: "identity" },
      },
    );
  }
  const own = identities.find((identity) => isVia(principal, identity));
  const [first, ...more] = identities;
  if (first === undefined)
    throw new ServiceError("nothing_to_change", `No chat account is linked to ${name}.`);
  if (own === undefined && more.length > 0) {
    throw new ServiceError(
      "invalid_input",
      `Say which one: identity:${identityOf(first)} (linked are ${list}).`,
      {
        facts: { option: "identity" },
      },
    );
  }
  return own ?? first;
}

function configured(principal: Principal, identity: Identity): ServiceError {
  const advice =
    principal.kind === "customer"
      ? "Ask our team to take it out."
      : "Take it out there, under customers in ratatosk.yaml, and start again.";
  return new ServiceError(
    "wrong_state",
    `${identityOf(identity)} was linked by the configuration, so it cannot be unlinked here. ${advice}`,
  );
}
