/**
 * The query of the next page, or undefined on the last one. Of the link only the query is used: behind a proxy Nova's links
 * have the wrong origin, and Glance's is a path with its own /v2.
 */
export function nextQuery(body: Record<string, unknown>, key: string): Record<string, string> | undefined {
  const href =
    typeof body["next"] === "string" ? body["next"] : linkTo(body[`${key}_links`] ?? body["links"]);
  if (href === undefined) return undefined;
  return Object.fromEntries(new URL(href, "http://cloud.invalid").searchParams);
}

function linkTo(links: unknown): string | undefined {
  if (!Array.isArray(links)) return undefined;
  for (const link of links as unknown[]) {
    if (typeof link !== "object" || link === null || !("rel" in link) || !("href" in link)) continue;
    if (link.rel === "next" && typeof link.href === "string") return link.href;
  }
  return undefined;
}
