/** Takes a service of the test cloud down for a moment and brings it back, whatever happens to this process meanwhile. */
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { join } from "node:path";

const folder = process.env["OSR_DIR"] ?? "/var/lib/osr";
const up = process.env["OSR_UP"] ?? "/tmp/real-openstack/up.sh";

export interface Outage {
  end(): Promise<void>;
}

/** `kill`: the service is gone until up.sh starts it again. `hang`: it takes connections and answers nothing. */
export function beginOutage(service: string, how: "kill" | "hang"): Outage {
  const group = -Number(readFileSync(join(folder, "pid", service), "utf8").split(" ")[0]);
  if (!Number.isInteger(group) || group >= -1)
    throw new Error(`no process group of ${service} in ${folder}/pid`);
  let over = false;
  const atExit = () => {
    if (over) return;
    if (how === "hang") process.kill(group, "SIGCONT");
    else spawnSync(up, { stdio: "ignore" });
  };
  process.once("exit", atExit);
  process.kill(group, how === "hang" ? "SIGSTOP" : "SIGTERM");
  return {
    async end() {
      if (over) return;
      if (how === "hang") process.kill(group, "SIGCONT");
      else {
        const [code] = await once(spawn(up, { stdio: "ignore" }), "exit");
        if (code !== 0) throw new Error(`${up} ended with ${String(code)}: the test cloud is not complete`);
      }
      over = true;
      process.off("exit", atExit);
    },
  };
}
