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
  return inDoubtWhen(step, ({ hasWritten, error }) => hasWritten && saysNotNow(error));
}

/** A refusal, too: it is found out again by the next try, and what was done before it can then be undone. */
export function inDoubtAfterEachWrite(step: StepDefinition): StepDefinition {
  return inDoubtWhen(step, ({ hasWritten }) => hasWritten);
}

/**
 * For what no later refusal takes back and a customer would be locked out by: it may be there from the first call on whose
 * answer was lost. What was read back is known.
 */
export function inDoubtForGood(step: StepDefinition): StepDefinition {
  return inDoubtWhen(step, ({ error, hasWritten, wasInDoubt }) => {
    return (hasWritten || wasInDoubt) && error.facts["shownOtherwise"] !== true;
  });
}

/** As the one above, also what an earlier call may have done. */
export function inDoubtAfterAnyWrite(step: StepDefinition): StepDefinition {
  return inDoubtWhen(step, ({ hasWritten, wasInDoubt }) => hasWritten || wasInDoubt);
}

/** What must still be done: past a point of no return, whatever stands in its way is for a person. */
export function neverGivenUp(step: StepDefinition): StepDefinition {
  return inDoubtWhen(step, () => true);
}

interface Failure {
  error: ServiceError;
  hasWritten: boolean;
  /** Of an earlier call. */
  wasInDoubt: boolean;
}

function inDoubtWhen(step: StepDefinition, isInDoubt: (failure: Failure) => boolean): StepDefinition {
  return {
    ...step,
    issue(context) {
      const counted = { done: 0 };
      return writes.run(counted, async () => {
        try {
          return await step.issue(context);
        } catch (error) {
          if (!(error instanceof ServiceError)) throw error;
          const failure = { error, hasWritten: counted.done > 0, wasInDoubt: context.inDoubt };
          if (!isInDoubt(failure)) throw error;
          throw reworded(error, "A part of it may be done, and the cloud did not take the rest.", {
            code: "unknown_outcome",
          });
        }
      });
    },
  };
}

/** What the engine takes for "nothing was done, and it may work later". */
function saysNotNow(error: ServiceError): boolean {
  return error.retryable || ["unreachable", "timeout", "unauthorized"].includes(error.code);
}

/** PVE has said no, and will say so when it is asked again. */
export function isRefusal(error: unknown): error is ServiceError {
  return error instanceof ServiceError && !saysNotNow(error) && error.code !== "unknown_outcome";
}
