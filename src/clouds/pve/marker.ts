// Which operation made a VM: a line of its own in the VM's description, so that it survives every edit of the other lines.
const LINE = /^op:([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.(\d+)$/u;

export interface Marker {
  operationId: string;
  attempt: number;
}

/** The markers in a VM's description; PVE hands it back with a line break at its end. */
export function markersIn(description: string | undefined): Marker[] {
  return (description ?? "").split("\n").flatMap((line) => {
    const found = LINE.exec(line.trim());
    return found === null ? [] : [{ operationId: found[1] ?? "", attempt: Number(found[2]) }];
  });
}

/** `op=<id>.<attempt>` of the engine as a line of a description. */
export function markerLine(marker: string): string {
  return marker.replace(/^op=/u, "op:");
}

/** The form that core/cloud.ts speaks of. */
export function markerText({ operationId, attempt }: Marker): string {
  return `op=${operationId}.${attempt}`;
}

/** The marker first, then what the order brought; a line of the order can never read as a marker. */
export function descriptionOf(line: string, metadata: Readonly<Record<string, string>>): string {
  const rest = Object.entries(metadata).map(([key, value]) =>
    `${key} = ${value}`.replaceAll(/[\p{Cc}\u2028\u2029]+/gu, " "),
  );
  return [line, "Made by Ratatosk, which finds it again by the line above.", ...rest].join("\n");
}
