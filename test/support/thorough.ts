/**
 * Campaigns (a death at each moment, a fault at each write) meet every case in the run with servers, and where TEST_THOROUGH
 * is set. `npm test` alone has three minutes: it takes some of them, and which ones does not change from run to run.
 */
export const isThorough =
  process.env["TEST_DATABASE_URL"] !== undefined || process.env["TEST_THOROUGH"] !== undefined;

/** How far to the next case: each one, or every `some`th. */
export function stride(some: number): number {
  return isThorough ? 1 : some;
}
