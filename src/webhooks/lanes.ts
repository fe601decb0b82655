/** One lane an endpoint: a few calls at a time, so that a slow receiver only keeps its own deliveries waiting. */
import type { AttemptRecord } from "./attempt.ts";
import type { Claimed } from "./claim.ts";

export interface LanesOptions {
  /** Calls at a time in one lane. */
  readonly width: number;
  /** Whether enough of the lease is left for one more attempt. */
  readonly mayStillSend: (claimed: Claimed) => boolean;
  /** Must not throw; nor must the next two. */
  readonly send: (claimed: Claimed) => Promise<AttemptRecord>;
  readonly record: (record: AttemptRecord) => Promise<void>;
  readonly release: (claimed: Claimed) => Promise<void>;
  /** A lane for which more may be waiting has room again. */
  readonly onRoom: () => void;
}

export interface Lanes {
  /** What each endpoint's lane holds, sent or not. */
  loads(): ReadonlyMap<string, number>;
  /** Takes deliveries over and begins to send. */
  admit(claimed: readonly Claimed[]): void;
  /** More may be waiting for this lane than it could take: `onRoom` is called when it can. */
  expectMore(endpointId: string): void;
  /** Gives back everything that is not under way. */
  releaseQueued(): void;
  /** When nothing is queued, under way or unrecorded. */
  idle(): Promise<void>;
}

interface Lane {
  queue: Claimed[];
  sending: number;
  more: boolean;
  /** Answers that ask for a pause or an end and are not recorded yet: until then nothing more is taken for this lane. */
  closing: number;
}

export function createLanes(options: LanesOptions): Lanes {
  const lanes = new Map<string, Lane>();
  const unfinished = new Set<Promise<void>>();

  function track(work: Promise<void>): void {
    unfinished.add(work);
    void work.finally(() => unfinished.delete(work));
  }

  function pump(endpointId: string, lane: Lane): void {
    while (lane.sending < options.width) {
      const next = lane.queue.shift();
      if (next === undefined) break;
      if (options.mayStillSend(next)) track(run(endpointId, lane, next));
      else track(options.release(next));
    }
    if (lane.sending + lane.queue.length + lane.closing === 0) lanes.delete(endpointId);
  }

  async function run(endpointId: string, lane: Lane, claimed: Claimed): Promise<void> {
    lane.sending += 1;
    const record = await options.send(claimed);
    lane.sending -= 1;
    if (record.outcome === "throttled" || record.outcome === "gone") {
      // First the pause or the end, then what it holds back: the other way round it would be claimed again at once.
      const held = lane.queue.splice(0);
      lane.more = false;
      lane.closing += 1;
      await options.record(record);
      await Promise.all(held.map((each) => options.release(each)));
      lane.closing -= 1;
      pump(endpointId, lane);
      return;
    }
    pump(endpointId, lane);
    if (lane.more && lane.queue.length <= options.width) {
      lane.more = false;
      options.onRoom();
    }
    await options.record(record);
  }

  return {
    loads: () =>
      new Map(
        [...lanes].map(([endpointId, lane]) => [
          endpointId,
          lane.closing > 0 ? Number.POSITIVE_INFINITY : lane.sending + lane.queue.length,
        ]),
      ),
    admit(claimed) {
      for (const each of claimed) {
        const lane = lanes.get(each.endpoint.id) ?? { queue: [], sending: 0, more: false, closing: 0 };
        lanes.set(each.endpoint.id, lane);
        lane.queue.push(each);
      }
      for (const endpointId of new Set(claimed.map(({ endpoint }) => endpoint.id))) {
        const lane = lanes.get(endpointId);
        if (lane !== undefined) pump(endpointId, lane);
      }
    },
    expectMore(endpointId) {
      const lane = lanes.get(endpointId);
      if (lane !== undefined) lane.more = true;
    },
    releaseQueued() {
      for (const [endpointId, lane] of lanes) {
        for (const each of lane.queue.splice(0)) track(options.release(each));
        pump(endpointId, lane);
      }
    },
    async idle() {
      while (unfinished.size > 0) await Promise.all(unfinished);
    },
  };
}
