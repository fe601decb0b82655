export interface TurnQueue {
  /** Answers the function that ends the turn; rejects after the timeout. First come, first served. */
  wait(): Promise<() => void>;
  refuseAll(error: Error): void;
}

interface Waiter {
  start(): void;
  refuse(error: Error): void;
}

export function createTurnQueue(timeoutMs: number): TurnQueue {
  const waiters = new Set<Waiter>();
  let busy = false;

  function grant(): () => void {
    let ended = false;
    return () => {
      if (ended) {
        return;
      }
      ended = true;
      const [next] = waiters;
      if (next) {
        next.start();
      } else {
        busy = false;
      }
    };
  }

  return {
    wait() {
      if (!busy) {
        busy = true;
        return Promise.resolve(grant());
      }
      return new Promise((resolve, reject) => {
        const leave = (): void => {
          clearTimeout(timer);
          waiters.delete(waiter);
        };
        const waiter: Waiter = {
          start() {
            leave();
            resolve(grant());
          },
          refuse(error) {
            leave();
            reject(error);
          },
        };
        const timer = setTimeout(() => {
          waiter.refuse(
            new Error(`The embedded database was busy for ${timeoutMs} ms: the statement was not run.`),
          );
        }, timeoutMs);
        waiters.add(waiter);
      });
    },
    refuseAll(error) {
      for (const waiter of waiters) {
        waiter.refuse(error);
      }
    },
  };
}
