// "Nothing was done, it is tried again" is true only while nothing was: once a call of a step's `issue` has changed
// something, a later call that fails leaves the step in doubt, and the engine looks instead of letting a cancel end it.
import { AsyncLocalStorage } from "node:async_hooks";
import { reworded, ServiceError } from "../../core/errors.ts";
import type { StepDefinition } from "../../core/operations/step.ts";

const writes = new AsyncLocalStorage<{ done: number }>();

/** PVE has answered a changing call with success. */
export function noteWrite(): void {
  const counted = writes.getStore();
  if (counted !== undefined) counted.done += 1;
}

export function inDoubtAfterWrites(step: StepDefinition): StepDefinition {
  return {
    ...step,
    issue(context) {
      const counted = { done: 0 };
      return writes.run(counted, async () => {
        try {
          return await step.issue(context);
        } catch (error) {
          if (counted.done === 0 || !saysNotNow(error)) throw error;
          throw reworded(error, "A part of it was done, and then the cloud could not be asked any more.", {
            code: "unknown_outcome",
          });
        }
      });
    },
  };
}

/** What the engine takes for "nothing was done, and it may work later". */
function saysNotNow(error: unknown): error is ServiceError {
  return (
    error instanceof ServiceError &&
    (error.retryable || ["unreachable", "timeout", "unauthorized"].includes(error.code))
  );
}
