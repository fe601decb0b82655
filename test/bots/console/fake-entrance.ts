/** An entrance that records what the console asks of it, and whose operations the test moves by hand. */
import type { Principal } from "../../../src/core/access.ts";
import type { CardTarget, Messenger } from "../../../src/core/bot.ts";
import { ServiceError } from "../../../src/core/errors.ts";
import { formOf } from "../../../src/core/form-of.ts";
import type { OperationState } from "../../../src/core/operations/state.ts";
import { missingOptions, parseOptions } from "../../../src/core/options.ts";
import type { Answer, Entrance, Request } from "../../../src/core/request.ts";
import type { View, ViewButton } from "../../../src/core/view.ts";
import { sampleRegistry } from "../../support/sample-actions.ts";

export const sam: Principal = { kind: "staff", id: "sam", name: "sam", role: "admin" };
export const ada: Principal = { kind: "customer", id: "ada", name: "Ada", customerId: "ada" };

export interface FakeEntrance {
  entrance: Entrance;
  requests: Request[];
  pressed: string[];
  burnt: string[];
  released: string[];
  stateOf(operationId: string): Promise<OperationState | null>;
  /** Moves the newest operation and its card, as engine and projector would. */
  move(state: OperationState, card: Partial<View>): Promise<void>;
  newest(): FakeOperation;
  /** Called when an operation was entered; by default its card is posted. */
  onEntered: (operation: FakeOperation) => void | Promise<void>;
  messenger: Messenger | null;
}

export interface FakeOperation {
  id: string;
  target: CardTarget;
  state: OperationState;
  handle: string | null;
  view: View;
}

export const cancelButton: ViewButton = {
  token: "secret-token-cancel",
  label: "Cancel",
  style: "default",
  purpose: "act",
};

export function createFakeEntrance(): FakeEntrance {
  const operations: FakeOperation[] = [];
  const newest = (): FakeOperation => {
    const operation = operations.at(-1);
    if (operation === undefined) throw new Error("no operation was entered");
    return operation;
  };
  const fake: FakeEntrance = {
    requests: [],
    pressed: [],
    burnt: [],
    released: [],
    messenger: null,
    newest,
    async onEntered(operation) {
      operation.handle =
        (await fake.messenger?.postCard(operation.target, operation.view, operation.id)) ?? null;
    },
    async stateOf(operationId) {
      return operations.find(({ id }) => id === operationId)?.state ?? null;
    },
    async move(state, card) {
      const operation = newest();
      operation.state = state;
      operation.view = { ...operation.view, ...card };
      if (operation.handle === null) throw new Error("the card was not posted");
      await fake.messenger?.editCard(operation.target, operation.handle, operation.view);
    },
    entrance: {
      async dispatch(request): Promise<Answer> {
        fake.requests.push(request);
        const action = sampleRegistry.get(request.action);
        if (missingOptions(action, request.options, request.principal).length > 0) {
          return { kind: "form", form: formOf(action, request.options, request.principal) };
        }
        parseOptions(action, request.options, request.principal);
        if (action.kind !== "operation") {
          return { kind: "view", view: { title: "Servers", tone: "neutral", text: "web-1 is here." } };
        }
        if (request.options["server"] === "foreign") {
          throw new ServiceError("not_found", 'No server "foreign".', { staffDetail: "request id req-1" });
        }
        const id = `op-${operations.length + 1}`;
        const operation: FakeOperation = {
          id,
          target: {
            workspace: "local",
            channel: request.origin?.channel ?? "",
            userId: request.principal.id,
          },
          state: "running",
          handle: null,
          view: {
            title: `Resize web-1`,
            tone: "progress",
            text: "Running.",
            steps: [
              { label: "Check", state: "planned" },
              { label: "Resize", state: "planned" },
            ],
            buttons: [cancelButton],
            footer: id,
          },
        };
        operations.push(operation);
        await fake.onEntered(operation);
        return {
          kind: "operation",
          operationId: id,
          publicId: id,
          existing: false,
          view: { title: "Resize", tone: "progress", text: `${id} is on its way.` },
        };
      },
      async press(token) {
        fake.pressed.push(token);
        return { kind: "view", view: { title: "Pressed", tone: "success" } };
      },
      async reveal(token) {
        return {
          label: "Password of web-1",
          text: "correct-horse",
          burn: async () => void fake.burnt.push(token),
          release: async () => void fake.released.push(token),
        };
      },
      async lookup({ kind, text }) {
        // As the real one: a server's value is its public id, whatever of it was typed.
        if (kind === "server") {
          return ["web-1", "web-2", "db-1"]
            .map((name) => ({ value: `srv-of-${name}`, label: `${name} (srv-of-${name}), active` }))
            .filter(({ label }) => label.includes(text));
        }
        return ["small", "medium"]
          .filter((value) => value.includes(text))
          .map((value) => ({ value, label: `${value} (label)` }));
      },
      async form(name, given, principal) {
        return formOf(sampleRegistry.get(name), given, principal);
      },
      async identify() {
        return null;
      },
      link: () => Promise.reject(new Error("a console knows no strangers")),
    },
  };
  return fake;
}
