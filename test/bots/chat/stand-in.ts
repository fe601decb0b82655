/** A stand-in serves one test file at a time: they reset it and count its violations. */
import { createServer } from "node:net";

/** Of the stand-in's port. Whoever listens there has the stand-in; a process that dies leaves it. */
const LOCK_PORT_OFFSET = 20_000;

/** Waits for its turn, at most 2 minutes; returns what ends it. */
export async function reserve(url: string): Promise<() => Promise<void>> {
  const port = Number(new URL(url).port) + LOCK_PORT_OFFSET;
  return until(() => listen(port), { what: "the stand-in is taken", withinMs: 120_000 });
}

/** Polls until `check` brings something. */
export async function until<T>(
  check: () => Promise<T | undefined>,
  { what, withinMs = 8_000 }: { what: string; withinMs?: number },
): Promise<T> {
  const end = Date.now() + withinMs;
  for (;;) {
    const found = await check();
    if (found !== undefined) return found;
    if (Date.now() > end) throw new Error(`${what}, after ${withinMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

function listen(port: number): Promise<(() => Promise<void>) | undefined> {
  const server = createServer();
  return new Promise((resolve) => {
    server.once("error", () => resolve(undefined));
    server.listen(port, "127.0.0.1", () =>
      resolve(() => new Promise<void>((closed) => server.close(() => closed()))),
    );
  });
}

/** `POST /_control/<name>` (or GET) of either stand-in. Throws what the stand-in says a client would not let a person do. */
export async function control<T>(
  base: string,
  name: string,
  body: Record<string, unknown> = {},
  method: "GET" | "POST" = "POST",
): Promise<T> {
  const query = method === "GET" ? `?${new URLSearchParams(body as Record<string, string>).toString()}` : "";
  const response = await fetch(`${base}/_control/${name}${query}`, {
    method,
    ...(method === "GET"
      ? {}
      : { headers: { "content-type": "application/json" }, body: JSON.stringify(body) }),
  });
  const answer = (await response.json()) as T & { error?: string };
  if (!response.ok) throw new Error(answer.error);
  return answer;
}
