import type { Cluster } from "./cluster.ts";
import { splitList } from "./wire.ts";

/**
 * Words with which a person can play a failure by hand: as a VM's name or as one of its tags. A name counts when
 * it is the word or goes on with a dash: `sim-fail-start`, `sim-fail-start-2`.
 */
export const sentinelNames: Readonly<Record<string, string>> = {
  "sim-fail-clone": "its clone fails in the task, which removes what it made",
  "sim-kill-clone": "the clone's worker is killed: the VM stays behind with lock: clone",
  "sim-slow-clone": "its clone takes 30 s whatever the speed",
  "sim-full": "its clone finds the storage full",
  "sim-fail-config": "POST config fails in the task, PUT config is 500",
  "sim-fail-resize": "a disk resize fails in the task",
  "sim-fail-start": "a start fails in the task: QEMU exited with code 1",
  "sim-warn-start": "a start ends with WARNINGS: 1, and the VM runs",
  "sim-fail-stop": "a stop fails in the task",
  "sim-deaf": "the guest ignores shutdown requests: shutdown and reboot time out",
  "sim-no-agent": "the guest agent never answers",
  "sim-late-agent": "the guest agent answers 20 s after a start, whatever the speed",
  "sim-fail-password": "the guest agent cannot set a password",
  "sim-fail-snapshot": "a snapshot dies and leaves lock: snapshot",
  "sim-fail-rollback": "a rollback fails and leaves lock: rollback",
  "sim-fail-delete": "a destroy fails in the task",
  "sim-ha": "it is managed by HA: a destroy without purge is refused",
  "sim-slow": "every task of it takes 10 s more, whatever the speed",
};

/** The words that hold for a VM with this name and these tags. */
export function sentinelsOf(config: ReadonlyMap<string, string>): ReadonlySet<string> {
  const given = [config.get("name") ?? "", ...splitList(config.get("tags"))];
  const words = Object.keys(sentinelNames).filter((word) =>
    given.some((text) => text === word || (text.startsWith(`${word}-`) && !longerWord(text, word))),
  );
  return new Set(words);
}

function longerWord(text: string, word: string): boolean {
  return Object.keys(sentinelNames).some(
    (other) => other.length > word.length && (text === other || text.startsWith(`${other}-`)),
  );
}

export function has(vm: { config: ReadonlyMap<string, string> }, word: string): boolean {
  return sentinelsOf(vm.config).has(word);
}

/** When the agent of a VM that starts now will answer, in epoch milliseconds. */
export function agentAnswersAt(cluster: Cluster, vm: { config: ReadonlyMap<string, string> }): number {
  if (has(vm, "sim-no-agent")) return Infinity;
  if (has(vm, "sim-late-agent")) return Date.now() + 20_000;
  return Date.now() + (cluster.traps.agentAfterMs ?? 3000) * cluster.options.speed;
}
