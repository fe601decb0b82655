/** Makes this process's clock wrong by so much. Timers go on as they are, as they do on a machine whose clock is wrong. */
export function shiftClock(ms: number): void {
  const RealDate = Date;
  globalThis.Date = new Proxy(RealDate, {
    construct(target, args: unknown[], newTarget) {
      return Reflect.construct(target, args.length === 0 ? [RealDate.now() + ms] : args, newTarget) as Date;
    },
    get(target, key, receiver) {
      return key === "now" ? () => RealDate.now() + ms : (Reflect.get(target, key, receiver) as unknown);
    },
  });
}
