/** An entrance that a test scripts: what each method answers, and what it was asked. */
import type { Principal } from "../../src/core/access.ts";
import { ServiceError } from "../../src/core/errors.ts";
import type { Entrance, Request } from "../../src/core/request.ts";

export const alice: Principal = { kind: "staff", id: "staff:alice", name: "Alice", role: "admin" };
export const carol: Principal = { kind: "customer", id: "customer:carol", name: "Carol", customerId: "c-1" };

export interface FakeEntrance extends Entrance {
  requests: Request[];
  presses: { token: string; principal: Principal }[];
  script: Partial<Entrance>;
}

/** `people`: platform id → principal. */
export function fakeEntrance(people: Record<string, Principal>): FakeEntrance {
  const requests: Request[] = [];
  const presses: FakeEntrance["presses"] = [];
  const script: Partial<Entrance> = {};
  const unscripted = (): never => {
    throw new ServiceError("not_found", "There is nothing of that name.");
  };
  return {
    requests,
    presses,
    script,
    async dispatch(request) {
      requests.push(request);
      return script.dispatch === undefined ? unscripted() : await script.dispatch(request);
    },
    async press(token, principal, source) {
      presses.push({ token, principal });
      return script.press === undefined ? unscripted() : await script.press(token, principal, source);
    },
    async reveal(token, principal, source) {
      return script.reveal === undefined ? unscripted() : await script.reveal(token, principal, source);
    },
    async lookup(query, principal) {
      return script.lookup === undefined ? [] : await script.lookup(query, principal);
    },
    async form(action, given, principal) {
      return script.form === undefined ? unscripted() : await script.form(action, given, principal);
    },
    async link(stranger, code) {
      return script.link === undefined ? unscripted() : await script.link(stranger, code);
    },
    identify: (_platform, userId) => Promise.resolve(people[userId] ?? null),
  };
}
