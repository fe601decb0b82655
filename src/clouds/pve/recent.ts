// What PVE has answered a moment ago, for whoever is content with it: a step that acts on a VM need not ask again what the step
// before it has just been told. An answer is handed on only as long as we have written nothing to that VM since it was asked for.

/** Nobody is content with older ones. Milliseconds. */
const LONGEST_MS = 10_000;
/** How long the end of a task is kept: it is asked for when the operation that waited for it comes to be run. */
const END_KEPT_MS = 10 * 60_000;

export interface Recent {
  /** By a clock that cannot jump; milliseconds. */
  now(): number;
  /** The answer to this question, when it was asked at `since` or later. */
  find(question: string, since: number): { answer: unknown } | undefined;
  /** Asks, and keeps the answer unless we write to the VM meanwhile. */
  keep<T>(question: string, path: string, ask: () => Promise<T>): Promise<T>;
  /** To be called before the first byte of a write is sent, and again when it has ended, however it has. */
  wrote(path: string): void;
  /** The node on which a VM was seen last: where to look first. */
  nodeOf(vmid: number): string | undefined;
  saw(vm: { node: string; vmid: number }): void;
  forget(vmid: number): void;
  /** An operation has looked at its VM; `lookOf`: since when what was read then is good enough for its next step. */
  looked(operationId: string, since: number): void;
  lookOf(operationId: string): number | undefined;
  /** A task that has ended stays so. */
  ended(upid: string, exitStatus: string): void;
  endOf(upid: string): string | undefined;
}

interface Kept {
  answer: unknown;
  askedAt: number;
  vmid: string | undefined;
}

export function createRecent(now: () => number = () => performance.now()): Recent {
  // In the order in which they came, so that the old ones are the first.
  const answers = new Map<string, Kept>();
  const ends = new Map<string, { exitStatus: string; at: number }>();
  const nodes = new Map<number, string>();
  const looks = new Map<string, number>();
  /** How many writes began or ended, by VM. */
  const writes = new Map<string, number>();

  return {
    now,
    find(question, since) {
      const kept = answers.get(question);
      return kept !== undefined && kept.askedAt >= since ? { answer: kept.answer } : undefined;
    },
    async keep(question, path, ask) {
      const vmid = vmidIn(path);
      const [askedAt, before] = [now(), writes.get(vmid ?? "")];
      const answer = await ask();
      for (const [old, { askedAt: at }] of answers) {
        if (at > askedAt - LONGEST_MS) break;
        answers.delete(old);
      }
      answers.delete(question);
      if (writes.get(vmid ?? "") === before) answers.set(question, { answer, askedAt, vmid });
      return answer;
    },
    wrote(path) {
      const vmid = vmidIn(path);
      if (vmid === undefined) return;
      writes.set(vmid, (writes.get(vmid) ?? 0) + 1);
      for (const [question, kept] of answers) if (kept.vmid === vmid) answers.delete(question);
    },
    nodeOf: (vmid) => nodes.get(vmid),
    saw: ({ node, vmid }) => void nodes.set(vmid, node),
    forget: (vmid) => void nodes.delete(vmid),
    looked(operationId, since) {
      for (const [old, at] of looks) {
        if (at > since - LONGEST_MS) break;
        looks.delete(old);
      }
      looks.delete(operationId);
      looks.set(operationId, since);
    },
    lookOf: (operationId) => looks.get(operationId),
    ended(upid, exitStatus) {
      for (const [old, { at }] of ends) {
        if (at > now() - END_KEPT_MS) break;
        ends.delete(old);
      }
      if (!ends.has(upid)) ends.set(upid, { exitStatus, at: now() });
    },
    endOf: (upid) => ends.get(upid)?.exitStatus,
  };
}

/** A clone is written to under its source, which it leaves as it was: nothing is forgotten for it. */
function vmidIn(path: string): string | undefined {
  if (path.endsWith("/clone")) return undefined;
  return /^\/nodes\/[^/]+\/qemu\/(\d+)(?:\/|$)/u.exec(path)?.[1];
}
