// The Node 24 that npm brought (optionalDependencies), or undefined where the platform has none.
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

export function ownNode() {
  const name = process.platform === "win32" ? "node.exe" : "node";
  const path = fileURLToPath(
    new URL(`../node_modules/node-${process.platform}-${process.arch}/bin/${name}`, import.meta.url),
  );
  return existsSync(path) ? path : undefined;
}
