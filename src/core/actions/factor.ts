/** The authenticator app that a customer confirms dangerous requests with. */
import { z } from "zod";
import type { Principal } from "../access.ts";
import { defineImmediate, type ImmediateResult, type Option } from "../action.ts";
import { ServiceError } from "../errors.ts";
import { findCustomer } from "../people/find.ts";
import { beginFactor, dropFactor, findFactor, STEP_UP_MINUTES, takeCode } from "../people/step-up.ts";
import { totpUri } from "../people/totp.ts";
import { customerOption } from "./options.ts";

const codeOption = {
  name: "code",
  field: "code",
  label: "Code",
  help: "The six digits that your authenticator app shows",
  type: "text",
} as const satisfies Option;

const notValid: ImmediateResult = {
  denied: "code_not_valid",
  // Not thrown: the wrong try must stay counted.
  view: {
    title: "Code is not valid.",
    tone: "warning",
    text: "Each code counts once, for about a minute. After five wrong ones wait ten minutes, after twenty a day; our team can take the app out before that.",
  },
};

const NoInput = z.object({});
type NoInput = z.infer<typeof NoInput>;

export const accountSecure = defineImmediate<NoInput>({
  name: "account.secure",
  summary: "Set up an authenticator app, which is asked before what hurts",
  audience: ["customer"],
  permission: "customer.read",
  risk: "change",
  input: NoInput,
  options: [],
  async run({ database, principal, engine }) {
    const customer = await findCustomer(database, principal, undefined);
    const secret = await beginFactor(database, engine, customer);
    return {
      subject: customer.ref,
      view: {
        title: "Set up an authenticator app",
        tone: "progress",
        text: `Type the key into your app, then send the code that it shows: /account verify code:… From then on a new password, a rebuild and going back to a snapshot need such a code of the last ${STEP_UP_MINUTES} minutes.`,
        fields: [
          { label: "Key", value: secret },
          { label: "As a link", value: totpUri(secret, customer.ref) },
        ],
        footer: "It is not shown again. Whoever has it can make the codes.",
      },
    };
  },
});

const VerifyInput = z.object({ code: z.string() });
type VerifyInput = z.infer<typeof VerifyInput>;

export const accountVerify = defineImmediate<VerifyInput>({
  name: "account.verify",
  summary: "Show that it is you, with a code of your authenticator app",
  audience: ["customer"],
  permission: "customer.read",
  risk: "change",
  input: VerifyInput,
  options: [{ ...codeOption, required: true, subject: true }],
  async run({ database, principal, engine }, { code }) {
    const customer = await findCustomer(database, principal, undefined);
    if (!(await takeCode(database, engine, { customer, code, via: viaOf(principal) }))) return notValid;
    return {
      subject: customer.ref,
      view: {
        title: "It is you.",
        tone: "success",
        text: `For ${STEP_UP_MINUTES} minutes nothing more is asked for on this chat account.`,
      },
    };
  },
});

const UnsecureInput = z.object({ customer: z.string().optional(), code: z.string().optional() });
type UnsecureInput = z.infer<typeof UnsecureInput>;

export const accountUnsecure = defineImmediate<UnsecureInput>({
  name: "account.unsecure",
  summary: "Take a customer's authenticator app out of use",
  audience: ["staff", "customer"],
  permission: "customer.link",
  risk: "change",
  input: UnsecureInput,
  options: [
    { ...customerOption, required: true, subject: true },
    { ...codeOption, required: true, audience: ["customer"] },
  ],
  async run({ database, principal, engine }, input) {
    const customer = await findCustomer(database, principal, input.customer);
    const factor = await findFactor(database, customer);
    if (factor === null) {
      throw new ServiceError("nothing_to_change", `No authenticator app is set up for ${customer.name}.`);
    }
    // Whoever has only the chat account must not get rid of it. Our team may, for somebody who lost theirs.
    if (principal.kind === "customer" && factor.confirmed) {
      const given = { customer, code: input.code ?? "", via: viaOf(principal) };
      if (!(await takeCode(database, engine, given))) return notValid;
    }
    await dropFactor(database, engine, customer);
    return {
      subject: customer.ref,
      view: {
        title: `The authenticator app of ${customer.name} is out of use.`,
        tone: "success",
        text: "/account secure sets up another one.",
      },
    };
  },
});

function viaOf(principal: Principal): string | undefined {
  return principal.kind === "customer" ? principal.via : undefined;
}
