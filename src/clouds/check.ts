import type { ConnectionCheck } from "../core/cloud.ts";
import { problemOf } from "../core/errors.ts";

/** One look after the other, because without the first (who we are) none of the others can be asked. Never throws. */
export async function checkInTurn(
  checks: readonly (readonly [service: string, look: () => Promise<string>])[],
  notTried: string,
): Promise<ConnectionCheck[]> {
  const results: ConnectionCheck[] = [];
  for (const [service, look] of checks) {
    if (results[0]?.ok === false) {
      results.push({ service, ok: false, detail: notTried });
      continue;
    }
    try {
      results.push({ service, ok: true, detail: await look() });
    } catch (error) {
      const problem = problemOf(error);
      results.push({ service, ok: false, detail: problem.staffDetail ?? problem.message });
    }
  }
  return results;
}
