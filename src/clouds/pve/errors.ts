// PVE's refusals, wherever they come from: the body of an answer, its reason phrase (a 401 and, before libpve-http-server
// 5.2.0, every 500 have nothing else), or the exit status of a task. Its own words go to staffDetail only.
import { type ErrorCode, reworded, ServiceError, type ServiceErrorOptions } from "../../core/errors.ts";
import { type HttpResponse, withoutSecrets } from "../http.ts";

export interface FailedCall {
  cloud: string;
  /** "POST /nodes/pve1/qemu/301/status/start". */
  label: string;
  changing: boolean;
  response: HttpResponse;
  /** What must not appear even if PVE quotes it. */
  secrets: readonly string[];
}

const MAX_DETAIL = 400;

interface Rule {
  pattern: RegExp;
  code: ErrorCode;
  message: string;
  retryable?: true;
  facts?(found: RegExpExecArray): Record<string, unknown>;
}

/** Texts of qemu-server, pve-storage and pve-cluster (measured: docs/pve.md), the first that fits. */
const RULES: readonly Rule[] = [
  {
    // Before all others: what follows are words of whoever is root in the guest, and may read like any of PVE's own.
    pattern: /Agent error:/iu,
    code: "cloud_failed",
    message: "The guest refused this, so nothing was changed in it. Staff see its reason.",
    facts: () => ({ agent: "refused" }),
  },
  {
    // Locks that PVE's own clean-up or a neighbour holds for seconds.
    pattern:
      /can't lock file .* - got timeout|Failed to obtain guest migration lock|cfs-lock .* (?:got lock request timeout|error)|error with cfs lock|got no worker upid|checksum mismatch/iu,
    code: "cloud_conflict",
    message: "The cloud is busy with this server for a moment.",
    retryable: true,
    facts: () => ({ transientLock: true }),
  },
  {
    pattern: /VM is locked \(([\w-]+)\)/u,
    code: "cloud_conflict",
    message: "The server is locked in the cloud, so nothing was changed. Our operators see by what.",
    facts: ([, lock]) => ({ lock }),
  },
  {
    pattern:
      /Configuration file .* does not exist|unable to find configuration file|no such VM|VM \d+ does not exist/iu,
    code: "cloud_not_found",
    message: "The cloud has no such server.",
  },
  { pattern: /no such task/iu, code: "cloud_not_found", message: "The cloud no longer knows this task." },
  {
    pattern: /config file already exists|VM \d+ already exists/iu,
    code: "cloud_conflict",
    message: "Somebody else took the number that was reserved for this server, so it was not made.",
    // Another number may be free.
    retryable: true,
    facts: () => ({ taken: true }),
  },
  {
    pattern: /already running/iu,
    code: "cloud_conflict",
    message: "The server is running already.",
    facts: () => ({ already: "running" }),
  },
  {
    pattern: /protection mode enabled/iu,
    code: "cloud_conflict",
    message:
      "The server is protected against deletion in the cloud, so nothing was deleted. The protection must be switched off there first.",
    facts: () => ({ protected: true }),
  },
  {
    // PVE::Storage::Plugin::free_image
    pattern: /cannot remove protected volume/iu,
    code: "cloud_conflict",
    message: "A backup of the server is protected in the cloud, so it was not deleted.",
  },
  {
    pattern: /is running - destroy failed|unable to (?:remove|destroy) VM \d+ - used in HA/iu,
    code: "cloud_conflict",
    message: "The cloud does not delete a server that is running. It must be stopped first.",
  },
  {
    pattern: /still in use by linked clone/iu,
    code: "cloud_conflict",
    message: "Other servers are built on this one's disk, so it cannot be deleted.",
  },
  {
    pattern: /snapshot feature is not available/iu,
    code: "unsupported",
    message: "The storage of this server's disk cannot take snapshots, so none was taken.",
  },
  {
    pattern: /snapshot name '.*' already used/iu,
    code: "cloud_conflict",
    message: "The server has a snapshot of that name already, so none was taken. Choose another name.",
  },
  {
    pattern: /snapshot '.*' does not exist/iu,
    code: "cloud_not_found",
    message: "The snapshot is no longer there.",
  },
  {
    // ZFS and others: pve-storage, volume_rollback_is_possible.
    pattern: /is not (?:the )?most recent snapshot|more recent snapshots? exist/iu,
    code: "cloud_conflict",
    message:
      "The storage of this server's disk goes back to the newest snapshot only, so nothing was changed. Delete the newer ones first.",
  },
  {
    pattern: /unable to rollback to incomplete snapshot/iu,
    code: "cloud_conflict",
    message: "This snapshot was never finished, so nothing was changed. Delete it.",
  },
  {
    pattern: /volume '\S+:iso\/.*' does not exist/iu,
    code: "cloud_invalid",
    message:
      "The ISO image is not there, so the server cannot boot from it. Our operators must put it there.",
  },
  {
    pattern: /QEMU guest agent is not running|No QEMU guest agent configured/iu,
    code: "cloud_conflict",
    message: "The guest agent in the server does not answer.",
    facts: () => ({ agent: "silent" }),
  },
  {
    pattern: /VM \d+ (?:is )?not running/iu,
    code: "cloud_conflict",
    message: "The server must be running for this, so nothing was changed. Start it, then try again.",
    facts: () => ({ already: "stopped" }),
  },
  {
    pattern: /(?:quit\/powerdown|shutdown|powerdown) failed.*got timeout/iu,
    code: "cloud_failed",
    message:
      'The guest did not react in time and is still running. Use "stop", which cuts the power in the end, or "reset".',
    facts: () => ({ guest: "silent" }),
  },
  {
    pattern:
      /No space left|not enough (?:free )?space|out of space|exceeds? .*(?:quota|space)|cannot allocate memory|not enough memory/iu,
    code: "capacity",
    message:
      "The cloud has no room for this at the moment. Try a smaller size, or have our operators make room.",
  },
  {
    pattern: /shrinking disks is not supported/iu,
    code: "cloud_invalid",
    message: "The cloud cannot make a disk smaller.",
  },
  {
    pattern: /SSH public key validation error|invalid urlencoded string/iu,
    code: "cloud_invalid",
    message: "The cloud does not accept this SSH key.",
  },
  {
    pattern: /storage '.*' (?:does not exist|is disabled|is not (?:available|online))|no such storage/iu,
    code: "cloud_invalid",
    message: "The storage that is configured for this cloud is not there. Our operators must correct it.",
  },
  {
    pattern: /hostname lookup .* failed|no such cluster node|unable to get IP for node/iu,
    code: "cloud_invalid",
    message: "The cloud has no such node. Our operators must correct it.",
  },
  {
    pattern: /can't clone|linked clone|not allowed for linked clones/iu,
    code: "cloud_invalid",
    message: "The cloud cannot copy this image to there. Our operators must choose another node or storage.",
  },
  {
    pattern: /bridge '.*' does not exist|no such bridge/iu,
    code: "cloud_invalid",
    message: "The network is not there on the server's node. Our operators must correct it.",
  },
  {
    pattern: /no quorum|cluster not ready/iu,
    code: "cloud_conflict",
    message: "The cloud is cut in two and takes no changes at the moment, so nothing was changed.",
    retryable: true,
  },
  {
    pattern: /interrupted by signal|unexpected status|received interrupt/iu,
    code: "cloud_failed",
    message:
      "The work on this server was killed in the cloud before it was finished. Our operators must look at it.",
    facts: () => ({ killed: true }),
  },
];

function ruleFor(text: string): { rule: Rule; found: RegExpExecArray } | null {
  for (const rule of RULES) {
    const found = rule.pattern.exec(text);
    if (found !== null) return { rule, found };
  }
  return null;
}

function typed(text: string, options: ServiceErrorOptions): ServiceError | null {
  const known = ruleFor(text);
  if (known === null) return null;
  const { rule, found } = known;
  return new ServiceError(rule.code, rule.message, {
    ...options,
    facts: { ...options.facts, ...rule.facts?.(found) },
    ...(rule.retryable === true ? { retryable: true } : {}),
  });
}

/** Why a task ended badly. `exitStatus` is PVE's own text. */
export function taskError(
  exitStatus: string,
  { cloud, upid, what }: { cloud: string; upid: string; what: string },
): ServiceError {
  const options = {
    facts: { cloud, upid },
    staffDetail: `${cloud}: task ${upid}: ${shortened(exitStatus)}`,
  };
  return (
    typed(exitStatus, options) ??
    new ServiceError("cloud_failed", `The cloud tried to ${what} and failed. Staff see its reason.`, options)
  );
}

/** Where a VM was a moment ago it is no more: the next look finds where it is now, or that it is gone. */
export function justMoved(cause: ServiceError): ServiceError {
  return reworded(cause, "The server has just moved or gone in the cloud.", {
    code: "cloud_conflict",
    retryable: true,
  });
}

export function errorOf(call: FailedCall): ServiceError {
  const { response } = call;
  const text = withoutSecrets(textOf(response), call.secrets);
  const detail = `${call.cloud}: ${call.label}: HTTP ${response.status}${text === "" ? "" : `: ${shortened(text)}`}`;
  const options: ServiceErrorOptions = {
    facts: { cloud: call.cloud, status: response.status },
    staffDetail: detail,
  };
  switch (response.status) {
    case 401:
      return new ServiceError(
        "unauthorized",
        "The cloud does not accept our credential, so nothing was done. The operators must check it in the configuration.",
        options,
      );
    case 403:
      return new ServiceError(
        "cloud_forbidden",
        "Our credential may not do this in the cloud. The operators must give it the privilege.",
        options,
      );
    case 429:
      return busyGateway(response, options);
    case 501:
    case 506:
      return new ServiceError("unsupported", "This cloud cannot do that.", options);
    default:
      if (response.status === 503 && response.retryAfterMs !== undefined)
        return busyGateway(response, options);
      if (response.status < 500) return refused(text, options);
      return serverError(call, text, options);
  }
}

function refused(text: string, options: ServiceErrorOptions): ServiceError {
  return (
    typed(text, options) ??
    new ServiceError(
      "cloud_invalid",
      "The cloud refuses these values, so nothing was changed. Staff see its reason.",
      options,
    )
  );
}

function serverError(call: FailedCall, text: string, options: ServiceErrorOptions): ServiceError {
  const { response } = call;
  // 500 with a text is PVE's own "no"; the other ones are of what stands before its API, or of a proxy before that.
  // A mere "got timeout" is neither: something behind the API was too slow, whatever it has done.
  if (response.status === 500 && text !== "" && !/^got timeout$/iu.test(text) && isFromPve(response)) {
    const known = typed(text, options);
    if (known !== null) return known;
    return new ServiceError("cloud_failed", "The cloud refused this. Staff see its reason.", options);
  }
  if (call.changing) {
    return new ServiceError(
      "unknown_outcome",
      "The cloud stumbled over the request, so it is not known yet whether the change was made.",
      options,
    );
  }
  // 596: pveproxy waited 30 s for the daemon behind it; 599 is the same of other versions.
  const late =
    /^got timeout$/iu.test(text) ||
    response.status === 596 ||
    response.status === 599 ||
    response.status === 504;
  return new ServiceError(
    late ? "timeout" : "unreachable",
    late
      ? "The cloud did not answer in time. Nothing was changed; try again later."
      : "The cloud has trouble answering at the moment. Try again later.",
    { ...options, retryable: true },
  );
}

/** A 500 of a gateway is a page; PVE's is JSON, plain text, or the reason phrase alone. */
function isFromPve(response: HttpResponse): boolean {
  return !/text\/html/iu.test(response.headers["content-type"] ?? "");
}

function busyGateway(response: HttpResponse, options: ServiceErrorOptions): ServiceError {
  const facts = { ...options.facts };
  if (response.retryAfterMs !== undefined) facts["retryAfterMs"] = response.retryAfterMs;
  return new ServiceError(
    "unreachable",
    "The cloud is not taking requests at the moment, so nothing was changed. Try again later.",
    { ...options, facts, retryable: true },
  );
}

/** `message` and `errors` of the body, else a plain body, else the reason phrase. */
function textOf(response: HttpResponse): string {
  const body = jsonOf(response.text);
  if (isRecord(body)) {
    const message = typeof body["message"] === "string" ? body["message"].trim() : "";
    const errors = isRecord(body["errors"])
      ? Object.entries(body["errors"]).map(([key, why]) => `${key}: ${String(why).trim()}`)
      : [];
    const all = [message, ...errors].filter((part) => part !== "").join(" ");
    return all === "" ? reasonOf(response) : all;
  }
  const plain = response.text
    .replaceAll(/<[^>]*>/gu, " ")
    .replaceAll(/\s+/gu, " ")
    .trim();
  return plain === "" ? reasonOf(response) : plain;
}

/** Node fills in its own words when there is no phrase; those say nothing. */
function reasonOf(response: HttpResponse): string {
  const reason = response.statusText.trim();
  return reason === "Internal Server Error" ? "" : reason;
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function shortened(text: string): string {
  const flat = text.replaceAll(/\s+/gu, " ").trim();
  return flat.length > MAX_DETAIL ? `${flat.slice(0, MAX_DETAIL)}…` : flat;
}
