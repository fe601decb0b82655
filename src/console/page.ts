/** The page and what it loads: static files, under a policy that runs nothing but them. */
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import express, { type ErrorRequestHandler, type Express, type Response } from "express";
import { isConsoleToken } from "../core/console/link.ts";

const OWN = join(import.meta.dirname, "page");
/** noVNC's package, as it is: ES modules that browsers load one by one. */
const NOVNC = dirname(dirname(fileURLToPath(import.meta.resolve("@novnc/novnc"))));
const ASSETS = "/console/assets";

/** `address`: where browsers reach us. */
export function createPages(address: () => string | undefined): Express {
  const app = express();
  app.disable("x-powered-by");
  app.use((_request, response, next) => {
    response.set({
      "Content-Security-Policy": policyFor(address()),
      "Referrer-Policy": "no-referrer",
      "X-Content-Type-Options": "nosniff",
      "X-Frame-Options": "DENY",
      "X-Robots-Tag": "noindex, nofollow",
      "Cross-Origin-Opener-Policy": "same-origin",
      "Cross-Origin-Resource-Policy": "same-origin",
    });
    next();
  });
  // Revalidated, so that a page and its script are of one release.
  const assets = { index: false, redirect: false, cacheControl: false, dotfiles: "ignore" } as const;
  const asset = (response: Response) => void response.set("Cache-Control", "no-cache");
  app.use(`${ASSETS}/novnc/core`, express.static(join(NOVNC, "core"), { ...assets, setHeaders: asset }));
  app.use(`${ASSETS}/novnc/vendor`, express.static(join(NOVNC, "vendor"), { ...assets, setHeaders: asset }));
  for (const [path, file] of [
    ["novnc/LICENSE.txt", join(NOVNC, "LICENSE.txt")],
    ["console.js", join(OWN, "console.js")],
    ["console.css", join(OWN, "console.css")],
  ] as const) {
    app.get(`${ASSETS}/${path}`, (_request, response) => {
      response.sendFile(file, { cacheControl: false, headers: { "Cache-Control": "no-cache" } });
    });
  }
  app.get("/console/:token", (request, response) => {
    response.set("Cache-Control", "no-store");
    // The same page for any token: whether it is good is told once, to whoever uses it up.
    if (isConsoleToken(request.params.token))
      response.sendFile(join(OWN, "console.html"), { cacheControl: false });
    else nothing(response);
  });
  app.use((_request, response) => nothing(response));
  // Express's own answer would show where our files are.
  const onError: ErrorRequestHandler = (error: unknown, _request, response, next) => {
    if (response.headersSent) next(error);
    else nothing(response);
  };
  app.use(onError);
  return app;
}

function nothing(response: Response): void {
  response.set("Cache-Control", "no-store").status(404).type("text/plain");
  response.send("There is nothing at this address. Ask for a server's screen with /server console.\n");
}

/** `data:`: noVNC draws pointers and compressed parts of the screen from such images. */
function policyFor(address: string | undefined): string {
  // Not every browser takes WebSockets for 'self'.
  const socket = address === undefined ? "" : ` ${new URL(address).origin.replace(/^http/, "ws")}`;
  return [
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' data:",
    `connect-src 'self'${socket}`,
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ].join("; ");
}
