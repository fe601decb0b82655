// PGlite does not lock its directory: a second process opens it happily and the first one's acknowledged rows vanish.
// A lock file with our pid and the time the process started (pids are reused) keeps others out;
// one that a killed process left behind is taken over.
import { randomUUID } from "node:crypto";
import { linkSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSetupError } from "./errors.ts";

const TAKEOVER_STALE_MS = 10_000;

/** Throws a DatabaseSetupError that names the holder if another live process has the directory. Returns the release. */
export function lockDataDirectory(directory: string): () => void {
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const path = join(directory, "embedded.lock");
  const mine = `${process.pid} ${startTicks(process.pid) ?? "unknown"}\n`;
  if (!createExclusively(path, mine)) {
    takeOver(directory, path, mine);
  }
  return () => {
    if (read(path) === mine) {
      rmSync(path, { force: true });
    }
  };
}

// Only one process at a time may judge a lock stale and replace it, or two of them would each remove the other's.
function takeOver(directory: string, path: string, mine: string): void {
  const guard = `${path}.takeover`;
  const age = Date.now() - (statSync(guard, { throwIfNoEntry: false })?.mtimeMs ?? Date.now());
  if (age > TAKEOVER_STALE_MS) {
    rmSync(guard, { force: true });
  }
  if (!createExclusively(guard, mine)) {
    throw new DatabaseSetupError(
      `The data directory ${directory} is being opened by another process. Try again.`,
    );
  }
  try {
    const holder = read(path);
    if (holder !== undefined && isAlive(holder)) {
      throw new DatabaseSetupError(
        `The data directory ${directory} is in use by process ${holder.split(" ")[0]}. ` +
          "The embedded database serves one process only: stop that one, choose another RATATOSK_DATA_DIR, or set DATABASE_URL.",
      );
    }
    rmSync(path, { force: true });
    if (!createExclusively(path, mine)) {
      throw new DatabaseSetupError(`The data directory ${directory} was opened by another process just now.`);
    }
  } finally {
    rmSync(guard, { force: true });
  }
}

// A link appears together with its content; a file opened with "wx" would be readable while still empty.
function createExclusively(path: string, content: string): boolean {
  const draft = `${path}.${process.pid}.${randomUUID()}`;
  writeFileSync(draft, content, { mode: 0o600 });
  try {
    linkSync(draft, path);
    return true;
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "EEXIST") {
      return false;
    }
    throw error;
  } finally {
    rmSync(draft, { force: true });
  }
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}

function isAlive(holder: string): boolean {
  const [pid = "", ticks] = holder.trim().split(" ");
  const current = startTicks(Number(pid));
  if (current !== undefined) {
    return current === ticks;
  }
  return process.platform !== "linux" && signalReaches(Number(pid));
}

function signalReaches(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error instanceof Error && "code" in error && error.code === "EPERM";
  }
}

/** Field 22 of /proc/PID/stat, counted after the command name, which may itself contain spaces. */
function startTicks(pid: number): string | undefined {
  const stat = read(`/proc/${pid}/stat`);
  const fields = stat?.slice(stat.lastIndexOf(")") + 2).split(" ") ?? [];
  // A killed process stays listed until its parent asks for it, in a container perhaps for ever.
  const isDead = fields[0] === "Z" || fields[0] === "X";
  return isDead ? undefined : fields[19];
}
