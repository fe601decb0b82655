import { expect, it } from "vitest";
import type { Principal } from "../../../src/core/access.ts";
import { publicKeysOf } from "../../../src/core/servers/keys.ts";
import { requireSnapshotRoom } from "../../../src/core/servers/limits.ts";
import { ed25519Key } from "../../support/ssh-key.ts";

it("a key's comment that YAML would read as more than that is made plain, and any other is kept", () => {
  const kept = ed25519Key("ada+laptop 100% of 'it' & more=1 (work) a:b");
  expect(publicKeysOf(kept)).toEqual([kept]);
  const bare = ed25519Key("x").slice(0, -2);
  expect(publicKeysOf(`${bare} note: laptop`)).toEqual([`${bare} note- laptop`]);
  expect(publicKeysOf(`${bare} laptop #2`)).toEqual([`${bare} laptop -2`]);
  expect(publicKeysOf(`${bare} x\u2028runcmd:\u2028  - touch /pwned`)).toEqual([
    `${bare} x runcmd-   - touch /pwned`,
  ]);
});

it("a customer's server has five snapshots at most, and the team's orders are not counted", () => {
  const ada: Principal = { kind: "customer", id: "ada", name: "Ada", customerId: "1" };
  const sam: Principal = { kind: "staff", id: "sam", name: "Sam", role: "operator" };
  expect(() => requireSnapshotRoom(ada, 4)).not.toThrow();
  expect(() => requireSnapshotRoom(ada, 5)).toThrow(/at most|may have 5/u);
  expect(() => requireSnapshotRoom(sam, 50)).not.toThrow();
});
