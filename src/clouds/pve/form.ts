// How PVE wants to be asked: everything form-encoded, in the body or, for GET and DELETE, in the query.

export type Parameters = Readonly<Record<string, string | number | boolean | undefined>>;

export const FORM: Record<string, string> = {
  Accept: "application/json",
  "Content-Type": "application/x-www-form-urlencoded",
};

/** `+` and spaces always as %2B and %20: PVE reads a bare plus as a space. Booleans are 0 and 1. */
export function encodeForm(parameters: Parameters): string {
  return Object.entries(parameters)
    .filter(([, value]) => value !== undefined)
    .map(([key, value]) => `${encodeURIComponent(key)}=${encodeURIComponent(plain(value))}`)
    .join("&");
}

function plain(value: string | number | boolean | undefined): string {
  if (typeof value === "boolean") return value ? "1" : "0";
  return String(value);
}

/** `data` of an answer; undefined when it is no JSON. */
export function unwrap(text: string): unknown {
  try {
    const body: unknown = JSON.parse(text);
    return typeof body === "object" && body !== null && "data" in body ? body.data : undefined;
  } catch {
    return undefined;
  }
}
