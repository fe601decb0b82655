/** `--as staff:sam`, `--as customer:ada`: whose hands the console is in. Who that is, the configuration says. */
import { ServiceError } from "../../core/errors.ts";

export interface PrincipalFlag {
  kind: "staff" | "customer";
  /** The staff member's name, the customer's reference. */
  name: string;
}

/** Throws ServiceError `invalid_input`. */
export function parsePrincipalFlag(text: string): PrincipalFlag {
  const match = /^\s*(staff|customer)\s*:\s*(\S(?:.*\S)?)\s*$/i.exec(text);
  const [, kind, name] = match ?? [];
  if (kind === undefined || name === undefined) {
    throw new ServiceError(
      "invalid_input",
      `"${text.slice(0, 40)}" names nobody; write staff:NAME or customer:REFERENCE, for example staff:sam.`,
    );
  }
  return { kind: kind.toLowerCase() === "staff" ? "staff" : "customer", name };
}
