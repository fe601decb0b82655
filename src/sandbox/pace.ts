/** What a simulator must have so that its work takes time: its speed, and its timers to end with it. */
export interface Paced {
  options: { speed: number };
  timers: Set<NodeJS.Timeout>;
  closed: boolean;
}

/** Waits `ms` at speed 1. Never resolves once the simulator is closed. */
export function pause(simulator: Paced, ms: number): Promise<void> {
  return pauseExactly(simulator, ms * simulator.options.speed);
}

/** Waits regardless of the speed; at least one turn of the event loop, so that nothing is ever synchronous. */
export function pauseExactly(simulator: Paced, ms: number): Promise<void> {
  return new Promise((resolve) => {
    if (simulator.closed) return;
    const timer = setTimeout(
      () => {
        simulator.timers.delete(timer);
        resolve();
      },
      Math.max(1, ms),
    );
    simulator.timers.add(timer);
  });
}
