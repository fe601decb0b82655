/** What zod found → a predicate that follows the option as typed, with bounds in the option's own unit. */
import type { z } from "zod";
import type { Option } from "./action.ts";
import { exampleOf, listed } from "./option-values.ts";

type Issue = z.core.$ZodRawIssue;

export function predicateOf(issue: Issue, option: Option | undefined): string {
  const example = option === undefined ? "" : `; write ${exampleOf(option)}`;
  switch (issue.code) {
    case "too_small":
      return bound(issue, { value: issue.minimum, inclusive: issue.inclusive ?? true, lower: true }, option);
    case "too_big":
      return bound(issue, { value: issue.maximum, inclusive: issue.inclusive ?? true, lower: false }, option);
    case "invalid_type":
      if (issue.expected === "int") return "must be a whole number";
      return `is not what belongs here${example}`;
    case "not_multiple_of":
      return `must be a multiple of ${amount(issue.divisor, option)}`;
    case "invalid_value":
      return `is not one of the choices; choose ${listed(issue.values.map(String), "or")}`;
    case "invalid_format":
      return `is not ${formatNames[issue.format] ?? "written as it must be"}${formatNames[issue.format] === undefined ? example : ""}`;
    case "unrecognized_keys":
      return `has the unknown ${listed(issue.keys)}`;
    case "invalid_union":
    case "invalid_key":
    case "invalid_element":
    case "custom":
      break;
  }
  return `is not accepted here${example}`;
}

const formatNames: Readonly<Record<string, string>> = {
  email: "an e-mail address",
  url: "a web address",
  uuid: "an id",
  ipv4: "an IPv4 address",
  ipv6: "an IPv6 address",
  cidrv4: "an IPv4 range",
  cidrv6: "an IPv6 range",
  date: "a date; write it as 2026-11-21",
  datetime: "a time; write it as 2026-11-21T12:00:00Z",
};

function bound(
  issue: Issue & { origin: string },
  limit: { value: number | bigint; inclusive: boolean; lower: boolean },
  option: Option | undefined,
): string {
  const value = Number(limit.value);
  if (issue.origin === "string") {
    const characters = value === 1 ? "character" : "characters";
    return limit.lower
      ? `is too short; it needs at least ${value} ${characters}`
      : `is too long; it may have at most ${value} ${characters}`;
  }
  const shown = amount(value, option);
  if (!limit.inclusive) return limit.lower ? `must be more than ${shown}` : `must be less than ${shown}`;
  return limit.lower ? `is too small; the least is ${shown}` : `is too large; the most is ${shown}`;
}

/** In the unit that a person types: 512 → "512M", 2048 → "2G" for memory. */
export function amount(value: number, option: Option | undefined): string {
  if (option?.type === "memory")
    return value >= 1024 && value % 1024 === 0 ? `${value / 1024}G` : `${value}M`;
  if (option?.type === "disk") return `${value}G`;
  return String(value);
}
