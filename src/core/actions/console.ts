/** A link to a server's screen. What it opens is core/console/session.ts, and HTTP's part src/console. */
import { z } from "zod";
import type { Principal } from "../access.ts";
import { defineImmediate } from "../action.ts";
import { CONSOLE_LINK_SECONDS, makeConsoleLink } from "../console/link.ts";
import { CONSOLE_ACTION, NO_CONSOLE } from "../console/session.ts";
import { ServiceError } from "../errors.ts";
import { allowedIn, requireNotSuspended, requireState } from "../servers/allowed.ts";
import { externalIdOf } from "../servers/change.ts";
import { findServer } from "../servers/find.ts";
import { bannersFor, viewerOf } from "../servers/maintenance.ts";
import { requireProcedure } from "../servers/procedure.ts";
import { serverOption } from "./options.ts";

const ConsoleInput = z.object({ server: z.string() });
type ConsoleInput = z.infer<typeof ConsoleInput>;

export const serverConsole = defineImmediate<ConsoleInput>({
  name: CONSOLE_ACTION,
  summary: "Show a server's screen in the browser",
  audience: ["staff", "customer"],
  // Whoever sits at its screen can do anything to it.
  permission: "server.change",
  risk: "change",
  stepUp: true,
  input: ConsoleInput,
  options: [serverOption],
  async run({ database, principal, source, engine }, input) {
    const server = await findServer(database, principal, input.server);
    requireProcedure(engine.clouds.get(server.cloudName), "console", NO_CONSOLE);
    requireNotSuspended(server, "shown");
    requireState(server, "shown", allowedIn.console);
    const address = engine.address?.();
    if (address === undefined || !isSafe(address)) throw noAddress(principal, address);
    const token = await makeConsoleLink(database, {
      serverId: server.id,
      externalId: externalIdOf(server),
      customerId: server.customerId,
      principalKind: principal.kind,
      principalId: principal.id,
      via: principal.kind === "customer" ? (principal.via ?? null) : null,
      source,
    });
    return {
      subject: server.publicId,
      view: {
        title: `Screen of ${server.name}`,
        tone: "success",
        text: `The link opens once, within ${CONSOLE_LINK_SECONDS} seconds. Give it to nobody: whoever opens it sits at the server's keyboard, in your name.`,
        link: { label: `Open the screen of ${server.name}`, url: `${address}/console/${token}` },
        footer:
          "It closes after 15 minutes without a key or a click, after 2 hours, and when you may no longer use the server.",
        ...(await bannersFor(database, viewerOf(principal), { serverIds: [server.id] })),
      },
    };
  },
});

/** What is typed on a screen, passwords too, goes this way. */
function isSafe(address: string): boolean {
  const { protocol, hostname } = new URL(address);
  return protocol === "https:" || ["localhost", "127.0.0.1", "[::1]"].includes(hostname);
}

function noAddress({ kind }: Principal, address: string | undefined): ServiceError {
  const why =
    address === undefined
      ? "Nobody has said under which address browsers reach Ratatosk"
      : "Browsers reach Ratatosk without encryption";
  return new ServiceError(
    "configuration",
    kind === "customer"
      ? "Screens cannot be opened here yet: our operators must first set the address under which browsers reach this service."
      : `${why}, so no screen can be opened. Set RATATOSK_PUBLIC_URL (https://bot.example.com) and start it again.`,
    { staffDetail: `RATATOSK_PUBLIC_URL is ${address === undefined ? "not set" : "http:"}` },
  );
}
