/** To the minute, as people read it: "2026-11-21 18:00 UTC". */
export function minuteOf(time: Date): string {
  return `${time.toISOString().slice(0, 16).replace("T", " ")} UTC`;
}
