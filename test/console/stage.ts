/** A Ratatosk on the PVE simulator with its HTTP side, and web-1 of Ada, which runs. */
import { createApiServer } from "../../src/api/server.ts";
import {
  type ConsoleServer,
  type ConsoleServerOptions,
  createConsoleServer,
} from "../../src/console/server.ts";
import type { Principal } from "../../src/core/access.ts";
import { createPeople } from "../../src/core/people/identify.ts";
import type { Database } from "../../src/database/client.ts";
import { BUILD, createPveWorld, type PveWorld, type PveWorldOptions } from "../clouds/pve/world.ts";
import { recordingLog } from "../clouds/recording-log.ts";
import { clean } from "../support/database.ts";
import { type Browser, visit } from "./browser.ts";

export interface Scene extends PveWorld {
  screens: ConsoleServer;
  url: string;
  /** Everything that was logged. */
  logged(): string;
  /** The token of a link that this person was given. */
  link(who: Principal, server?: string): Promise<string>;
  /** A page of ours, with this token. */
  visit(token: string): Promise<Browser>;
  /** A page that has the screen. */
  look(who: Principal): Promise<{ browser: Browser; password: string }>;
  /** Moves the time of the open screens. */
  pass(ms: number): Promise<void>;
}

export interface SceneOptions extends Omit<PveWorldOptions, "database"> {
  limits?: ConsoleServerOptions["limits"];
}

export async function openScene(database: Database, options: SceneOptions = {}): Promise<Scene> {
  await clean(database);
  const { log, logged } = recordingLog();
  let listening: { url: string } | undefined;
  let offsetMs = 0;
  const address = () => listening?.url;
  const world = await createPveWorld({
    ...options,
    database,
    engine: { address, log, ...options.engine },
    runtime: { log, ...options.runtime },
  });
  const people = createPeople({
    database,
    staff: [
      { id: "sam", name: "Sam", role: "operator", slack: [], discord: [] },
      { id: "rita", name: "Rita", role: "admin", slack: [], discord: [] },
    ],
  });
  const screens = createConsoleServer({
    deps: { engine: world.engine, people },
    address,
    log,
    now: () => Date.now() + offsetMs,
    ...(options.limits === undefined ? {} : { limits: options.limits }),
  });
  const api = createApiServer({ receivers: [], sections: [screens], checks: [], log, version: "test" });
  listening = await api.listen({ host: "127.0.0.1", port: 0 });
  const { url } = listening;
  await world.run(world.rita, "server.build", BUILD);

  const scene: Scene = {
    ...world,
    screens,
    url,
    logged,
    async link(who, server = "web-1") {
      const answer = await world.ask(who, "server.console", { server });
      if (answer.kind !== "view" || answer.view.link === undefined) throw new Error(JSON.stringify(answer));
      const token = answer.view.link.url.split(`${url}/console/`)[1];
      if (token === undefined) throw new Error(answer.view.link.url);
      return token;
    },
    visit: (token) => visit({ url, token }),
    async look(who) {
      const browser = await visit({ url, token: await scene.link(who) });
      const told = await browser.told();
      if (told?.password === undefined) throw new Error(JSON.stringify(told));
      return { browser, password: told.password };
    },
    async pass(ms) {
      offsetMs += ms;
      await screens.tick();
    },
    async close() {
      await screens.stop();
      await api.close(0);
      await world.close();
    },
  };
  return scene;
}
