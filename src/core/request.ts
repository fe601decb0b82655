/** The one entrance's contract: what a bot, the console or the API hands in and gets back. */
import type { Principal, Stranger } from "./access.ts";
import type { LookupKind, Source } from "./action.ts";
import type { Origin } from "./bot.ts";
import type { Form } from "./form.ts";
import type { View } from "./view.ts";

export interface Request {
  /** The action's name: `server.resize`. */
  action: string;
  /** Option name → text as typed or chosen. Unknown names are refused with the nearest one. */
  options: Record<string, string>;
  principal: Principal;
  source: Source;
  /** `slack:<team>:<trigger_id>`, `slack:<team>:<view.id>`, `discord:<interaction.id>`, `console:<uuid>`. */
  idempotencyKey: string;
  /** Where the card goes; null when nobody watches (the API's card goes to channels.operations). */
  origin: Origin | null;
  /** Show the plan, do nothing. */
  dryRun?: boolean;
}

export type Answer =
  /** For the asker alone (ephemeral where the platform has that). */
  | { kind: "view"; view: View }
  /**
   * An operation exists now, and so does its card, which the projector posts and edits. `view` is the short
   * acknowledgement for the asker; `existing` when the same order was there already.
   */
  | { kind: "operation"; operationId: string; publicId: string; existing: boolean; view: View }
  /** Something is missing or wrong, and a form can ask for it. */
  | { kind: "form"; form: Form };

/** A secret that was claimed for showing. Call `burn` once it is on the person's screen, `release` if that failed. */
export interface Reveal {
  label: string;
  text: string;
  burn(): Promise<void>;
  release(): Promise<void>;
}

/** What bots get from app.ts. Every method throws ServiceError for what a person did, anything else for a fault. */
export interface Entrance {
  dispatch(request: Request): Promise<Answer>;
  /** A button of purpose `act`. The presser is authorised now; a second press is answered with who was first. */
  press(token: string, principal: Principal, source: Source): Promise<Answer>;
  /** A button of purpose `reveal`. */
  reveal(token: string, principal: Principal, source: Source): Promise<Reveal>;
  /** Choices for autocomplete and external selects: at most `limit`, from the database only, the principal's own. */
  lookup(
    query: {
      kind: LookupKind;
      text: string;
      limit: number;
      options?: Record<string, string>;
    },
    principal: Principal,
  ): Promise<{ value: string; label: string }[]>;
  /** The form of an action with these values filled in, for `/server resize` with arguments missing. */
  form(action: string, given: Record<string, string>, principal: Principal): Promise<Form>;
  /** Who this is on a platform, or null for a stranger. */
  identify(platform: "slack" | "discord", userId: string): Promise<Principal | null>;
  /**
   * The one thing that a stranger may ask for: to be linked to the customer that a code was made for. Whatever is wrong
   * with the code, the error reads the same.
   */
  link(stranger: Stranger, code: string): Promise<View>;
}
