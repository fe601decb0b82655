/** What only some clouds can do. */
import type { Cloud } from "../cloud.ts";
import { ServiceError } from "../errors.ts";

type Procedure = "rebuild" | "snapshots" | "rescue" | "keys" | "restart" | "console" | "isos" | "addresses";

/** Throws `unsupported` with `advice`, a sentence for whoever asked, where the cloud has no such thing. */
export function requireProcedure<Key extends Procedure>(
  cloud: Pick<Cloud, Key>,
  key: Key,
  advice: string,
): NonNullable<Cloud[Key]> {
  const procedure = cloud[key];
  if (procedure === undefined) throw new ServiceError("unsupported", advice);
  return procedure;
}
