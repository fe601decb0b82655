// npm leaves optional platform packages out of package-lock.json when the registry it sees lacks them,
// and then `npm ci` refuses the lock ("Missing: … from lock file"). Run this after every `npm install`:
// it adds an entry for each missing one (without integrity, which we cannot know). A no-op where nothing is missing.
// npm/cli#9342
import { readFileSync, writeFileSync } from "node:fs";

const LOCK = "package-lock.json";
const PLATFORMS = { windows: "win32" };
for (const os of [
  "aix",
  "android",
  "darwin",
  "freebsd",
  "linux",
  "netbsd",
  "openbsd",
  "openharmony",
  "sunos",
  "win32",
]) {
  PLATFORMS[os] = os;
}
const CPUS = ["arm64", "x64", "ia32", "arm", "ppc64", "riscv64", "s390x", "loong64", "mips64el", "wasm32"];

const lock = JSON.parse(readFileSync(LOCK, "utf8"));
const missing = findMissing(lock.packages);
for (const [name, range] of missing) {
  lock.packages[`node_modules/${name}`] = lockEntry(name, range);
}
if (missing.size > 0) {
  const sorted = Object.entries(lock.packages).toSorted(([a], [b]) => (a < b ? -1 : 1));
  lock.packages = Object.fromEntries(sorted);
  writeFileSync(LOCK, `${JSON.stringify(lock, null, 2)}\n`);
}
console.log(`complete-lock: ${missing.size} entries added`);

function findMissing(packages) {
  const found = new Map();
  for (const [path, entry] of Object.entries(packages)) {
    for (const [name, range] of Object.entries(entry.optionalDependencies ?? {})) {
      if (!resolves(packages, path, name)) {
        found.set(name, range);
      }
    }
  }
  return found;
}

// Looks a name up the way node does: in this folder's node_modules, then in each parent's.
function resolves(packages, from, name) {
  for (let folder = from; ; folder = folder.slice(0, Math.max(0, folder.lastIndexOf("/node_modules/")))) {
    if (packages[`${folder === "" ? "" : `${folder}/`}node_modules/${name}`]) {
      return true;
    }
    if (folder === "") {
      return false;
    }
  }
}

function lockEntry(name, range) {
  const words = name.split(/[/-]/);
  const os = words.map((word) => PLATFORMS[word]).find(Boolean);
  const cpu =
    CPUS.find((each) => words.includes(each)) ??
    (words.some((word) => word.startsWith("arm")) ? "arm" : undefined);
  return {
    version: String(range).replace(/^[\^~]/, ""),
    ...(cpu ? { cpu: [cpu] } : {}),
    optional: true,
    ...(os ? { os: [os] } : {}),
    // Without libc, npm counts the musl build as wanted on glibc too.
    ...(words.includes("musl") ? { libc: ["musl"] } : {}),
  };
}
