// Every shape of error body that the services and the gateways before them send, turned into one of the cloud codes.
// A cloud's own words go to staffDetail only, and only after what they quote of our request has been cut out: Nova's 400
// repeats the whole request, adminPass and user_data included.
import { ServiceError, type ServiceErrorOptions } from "../../core/errors.ts";
import { type HttpResponse, withoutSecrets } from "../http.ts";

export interface FailedCall {
  cloud: string;
  /** "compute POST /servers". */
  label: string;
  changing: boolean;
  response: HttpResponse;
  /** What must not appear even if the cloud quotes it. */
  secrets: readonly string[];
}

export interface CloudText {
  /** Cleaned; empty when the cloud said nothing. */
  message: string;
  /** Nova's fault name, Neutron's type or "". */
  type: string;
  /** The token middleware answered, so the service itself never saw the request. */
  fromMiddleware: boolean;
}

const MAX_DETAIL = 400;

export function cloudTextOf(response: HttpResponse, secrets: readonly string[]): CloudText {
  const raw = rawTextOf(response.text);
  return { ...raw, message: clean(raw.message, secrets) };
}

function rawTextOf(text: string): CloudText {
  const body = parsed(text);
  if (!isRecord(body)) return { message: text, type: "", fromMiddleware: false };
  // Keystone, and each service's token middleware: {"error": {code, message, title}}
  const error = body["error"];
  if (isRecord(error) && typeof error["message"] === "string") {
    return { message: error["message"], type: "error", fromMiddleware: error["code"] === 401 };
  }
  // Glance, and the middleware when Keystone is away: {"message", "code": "503 Service Unavailable", "title"}
  if (typeof body["message"] === "string") {
    return {
      message: body["message"],
      type: "",
      fromMiddleware: /Keystone service is temporarily unavailable/u.test(body["message"]),
    };
  }
  // Nova and Cinder: {"<fault>": {code, message}}; Neutron: {"NeutronError": {type, message, detail}} or a plain string
  for (const [name, value] of Object.entries(body)) {
    if (isRecord(value) && typeof value["message"] === "string") {
      const type = typeof value["type"] === "string" ? value["type"] : name;
      return { message: value["message"], type, fromMiddleware: false };
    }
    if (name === "NeutronError" && typeof value === "string") {
      return { message: value, type: name, fromMiddleware: false };
    }
  }
  return { message: "", type: "", fromMiddleware: false };
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function clean(text: string, secrets: readonly string[]): string {
  const flat = text
    .replaceAll(/<(style|script|title)\b[^>]*>.*?<\/\1>/gisu, " ")
    .replaceAll(/<class '([^']*)'>/gu, "$1")
    .replaceAll(/<\/?[a-z][^>]*>/giu, " ")
    .replaceAll(/\s+/gu, " ")
    .trim();
  // "Invalid input for field/attribute server. Value: {…}. 'x' is too long": what follows "Value:" is our request, and the
  // reason after it quotes values again.
  const cut = flat.replace(/\bValue:.*$/u, "(values removed)");
  const masked = cut
    .replaceAll(
      /(['"]?(?:adminPass|admin_pass|user_data|password|secret)['"]?\s*[:=]\s*)\S+/giu,
      "$1[removed]",
    )
    .replaceAll(/gAAAAA[\w=-]{20,}/gu, "[removed]");
  const safe = withoutSecrets(masked, secrets);
  return safe.length > MAX_DETAIL ? `${safe.slice(0, MAX_DETAIL)}…` : safe;
}

/** What staff may see of an answer: which call, its status, the cloud's cleaned words and the id to search its logs for. */
export function staffDetailOf(call: FailedCall): string {
  const { message } = cloudTextOf(call.response, call.secrets);
  const id = call.response.requestId === undefined ? "" : ` (request ${call.response.requestId})`;
  return `${call.cloud}: ${call.label}: HTTP ${call.response.status}${message === "" ? "" : `: ${message}`}${id}`;
}

export function errorOf(call: FailedCall): ServiceError {
  const { response } = call;
  const text = cloudTextOf(response, call.secrets);
  const facts: Record<string, unknown> = { cloud: call.cloud, status: response.status };
  if (response.requestId !== undefined) facts["requestId"] = response.requestId;
  const options: ServiceErrorOptions = { facts, staffDetail: staffDetailOf(call) };
  if (response.status >= 500) return serverError(call, text, options);
  switch (response.status) {
    case 400:
      return invalid(text, options);
    case 401:
      return new ServiceError(
        "unauthorized",
        "The cloud does not accept our credential for this: it is not allowed (it may have expired, or be restricted). The operators must check it in the configuration.",
        options,
      );
    case 403:
    case 413:
      return refusedByPolicy(response, text, options);
    case 404:
      return new ServiceError(
        "cloud_not_found",
        "The cloud has no such thing, or we may not see it.",
        options,
      );
    case 405:
      return new ServiceError("unsupported", "This cloud cannot do that.", options);
    case 406:
      return new ServiceError(
        "unsupported",
        "This cloud's compute service is too old or too new for that.",
        options,
      );
    case 409:
      return conflict(text, options);
    case 429:
      return busyGateway(response, options);
    default:
      return new ServiceError(
        "cloud_invalid",
        "The cloud refused the request, so nothing was changed.",
        options,
      );
  }
}

function serverError(call: FailedCall, text: CloudText, options: ServiceErrorOptions): ServiceError {
  const { status, retryAfterMs } = call.response;
  if (status === 501) return new ServiceError("unsupported", "This cloud cannot do that.", options);
  // A 503 that says when to come back is a gateway's, and the middleware's stands before the service: in both cases the
  // service did not see the request. Any other 5xx may have come after the work was begun.
  const neverArrived =
    status === 503 && (text.fromMiddleware || (retryAfterMs !== undefined && text.type === ""));
  if (neverArrived) return busyGateway(call.response, options);
  if (call.changing) {
    return new ServiceError(
      "unknown_outcome",
      "The cloud stumbled over the request, so it is not known yet whether the change was made.",
      options,
    );
  }
  return new ServiceError("unreachable", "The cloud has trouble answering at the moment. Try again later.", {
    ...options,
    retryable: true,
  });
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

function invalid(text: CloudText, options: ServiceErrorOptions): ServiceError {
  const sentence = INVALID_SENTENCES.find(([pattern]) => pattern.test(text.message))?.[1];
  return new ServiceError(
    "cloud_invalid",
    sentence ?? "The cloud refuses these values, so nothing was changed. Staff see its reason.",
    options,
  );
}

const INVALID_SENTENCES: readonly (readonly [RegExp, string])[] = [
  [/field\/attribute name\b/u, "The cloud refuses this name: use letters, digits, dots and hyphens."],
  [/printable characters/u, "The cloud refuses this name: use letters, digits, dots and hyphens."],
  [
    /disk is too small|smaller than the minimum.*disk|minDisk/iu,
    "The image needs a bigger disk than this size has.",
  ],
  [/memory is too small|minRam/iu, "The image needs more memory than this size has."],
  [/must change flavor/iu, "The server has this size already."],
  [
    /image .*(not (be )?found|is not active)|Can ?not find (requested )?image/iu,
    "The cloud no longer has this image, or it is not ready.",
  ],
  [/Flavor .*(not (be )?found)/iu, "The cloud no longer has this size."],
  [/Network .*(not (be )?found)/iu, "The cloud no longer has this network."],
  [/user_data/iu, "The start-up data is too long for the cloud."],
];

// The last is Nova's and Glance's wording under unified limits.
const QUOTA = /quota exceeded|exceeds? (the )?quota|OverQuota|is over (a )?limit/iu;

function refusedByPolicy(
  response: HttpResponse,
  text: CloudText,
  options: ServiceErrorOptions,
): ServiceError {
  const { status, retryAfterMs } = response;
  // Cinder's quota is a 413 with Retry-After: 0; with a real pause it is a rate limit of the old kind.
  if (status === 413 && (retryAfterMs ?? 0) > 0) return busyGateway(response, options);
  // Nova answers 403 for a quota as well as for a policy, and Cinder 413 overLimit: the words decide.
  if (QUOTA.test(text.message) || text.type === "overLimit") return quota(text, options);
  if (status === 413) {
    return new ServiceError("cloud_invalid", "The cloud refuses the request as too large.", options);
  }
  return new ServiceError(
    "cloud_forbidden",
    "Our credential may not do this in the cloud. The operators must give it the role, or choose another way.",
    options,
  );
}

function quota(text: CloudText, options: ServiceErrorOptions): ServiceError {
  const found =
    /Quota exceeded for ([\w, ]+): Requested ([\d, ]+), but already used ([\d, ]+) of ([\d, ]+)/u.exec(
      text.message,
    );
  const facts = { ...options.facts };
  if (found) {
    const [, resource = "", requested = "", used = "", limit = ""] = found;
    Object.assign(facts, { resource, requested, used, limit: limit.trim() });
  }
  return new ServiceError(
    "cloud_quota",
    // How much all customers together use is in the cloud's own words, for staff.
    "The cloud project's quota is used up, so nothing was changed. Remove something, or have the quota raised.",
    { ...options, facts },
  );
}

function conflict(text: CloudText, options: ServiceErrorOptions): ServiceError {
  if (text.type === "OverQuota" || QUOTA.test(text.message)) return quota(text, options);
  if (/is locked/u.test(text.message)) {
    return new ServiceError(
      "cloud_conflict",
      "The server is locked in the cloud, so nothing was changed. Have it unlocked there, then try again.",
      { ...options, facts: { ...options.facts, locked: true } },
    );
  }
  if (/guest agent is not enabled|admin password is not supported/iu.test(text.message)) {
    return new ServiceError(
      "unsupported",
      "The cloud cannot set a password in this server, because no guest agent runs in it. Rebuild the server, or change the password inside it over SSH or its console.",
      options,
    );
  }
  if (/Failed to set admin password/iu.test(text.message)) {
    return new ServiceError(
      "cloud_failed",
      "The guest refused the new password, so the old one is still good. Try again, or set it inside the server.",
      options,
    );
  }
  const task = /while it is in task_state (\S+)/u.exec(text.message);
  if (task) {
    return new ServiceError(
      "cloud_conflict",
      "The cloud is still busy with this server, so nothing was changed. Try again when it is done.",
      { ...options, facts: { ...options.facts, task: task[1] }, retryable: true },
    );
  }
  return new ServiceError(
    "cloud_conflict",
    "The server is in a state in which the cloud cannot do this, so nothing was changed.",
    options,
  );
}
