/** PVE's refusals in all the shapes that its versions and its gateway give them, as the codes of core/cloud.ts. */
import { describe, expect, it } from "vitest";
import { errorOf, taskError } from "../../../src/clouds/pve/errors.ts";

const JSON_TYPE = { "content-type": "application/json;charset=UTF-8" };
const PLAIN = { "content-type": "text/plain" };
const HTML = { "content-type": "text/html" };

interface Shape {
  status: number;
  reason?: string;
  text?: string;
  headers?: Record<string, string>;
  changing?: boolean;
  retryAfterMs?: number;
}

function error({ status, reason = "", text = "", headers = {}, changing = true, retryAfterMs }: Shape) {
  return errorOf({
    cloud: "pve1",
    label: "POST /nodes/n1/qemu/100/status/start",
    changing,
    secrets: ["s3cret"],
    response: {
      status,
      statusText: reason,
      headers,
      text,
      requestId: undefined,
      date: undefined,
      retryAfterMs,
    },
  });
}

/** libpve-http-server from 5.2.0 on, and before: then a 500's text is in the reason phrase alone. */
function bothStyles(status: number, message: string): Shape[] {
  return [
    {
      status,
      text: JSON.stringify({ message: `${message}\n`, data: null }),
      headers: JSON_TYPE,
      reason: message,
    },
    { status, text: JSON.stringify({ data: null }), headers: JSON_TYPE, reason: message },
    { status, reason: message },
  ];
}

describe("an answer of PVE", () => {
  it("says the same with a message in its JSON (from 8.4 on) as with a reason phrase alone (before)", () => {
    for (const [message, code, facts] of [
      ["VM is locked (backup)", "cloud_conflict", { lock: "backup" }],
      [
        "can't lock file '/var/lock/qemu-server/lock-100.conf' - got timeout",
        "cloud_conflict",
        { transientLock: true },
      ],
      ["cfs-lock 'storage-x' error: got lock request timeout", "cloud_conflict", { transientLock: true }],
      [
        "error with cfs lock 'storage-x': got lock request timeout",
        "cloud_conflict",
        { transientLock: true },
      ],
      ["got no worker upid - start worker failed", "cloud_conflict", { transientLock: true }],
      [
        "Failed to obtain guest migration lock - replication running?",
        "cloud_conflict",
        { transientLock: true },
      ],
      ["Configuration file 'nodes/n1/qemu-server/100.conf' does not exist", "cloud_not_found", {}],
      ["can't remove VM 100 - protection mode enabled", "cloud_conflict", { protected: true }],
      ["VM 100 is running - destroy failed", "cloud_conflict", {}],
      ["unable to create VM 100: config file already exists", "cloud_conflict", { taken: true }],
      ["VM 100 not running", "cloud_conflict", { already: "stopped" }],
      ["cluster not ready - no quorum?", "cloud_conflict", {}],
      ["hostname lookup 'n9' failed - failed to get address info", "cloud_invalid", {}],
      ["something that nobody has seen yet", "cloud_failed", {}],
    ] as const) {
      for (const shape of bothStyles(500, message)) {
        const seen = error(shape);
        expect(seen.code, message).toBe(code);
        expect(seen.facts, message).toMatchObject(facts);
        expect(seen.staffDetail, message).toContain(message);
        expect(seen.message, message).not.toContain(message);
      }
    }
  });

  it("that is plain text is understood like one in JSON", () => {
    expect(
      error({ status: 500, text: "malformed JSON string, neither tag, array\n", headers: PLAIN }).code,
    ).toBe("cloud_failed");
    expect(error({ status: 501, text: "Unexpected content for method 'DELETE'", headers: PLAIN }).code).toBe(
      "unsupported",
    );
    expect(error({ status: 506, text: "upload 'Content-Type' not implemented", headers: PLAIN }).code).toBe(
      "unsupported",
    );
    expect(
      error({ status: 501, text: '{"data":null,"message":"Method not implemented"}', headers: JSON_TYPE })
        .code,
    ).toBe("unsupported");
    for (const text of ["", "malformed JSON", '{"data":null}', "null", "[]", "{"]) {
      expect(error({ status: 400, text }).code, text).toBe("cloud_invalid");
    }
  });

  it("401 has an empty body and its text in the reason phrase; 403 names the privilege for staff alone", () => {
    for (const reason of [
      "No ticket",
      "Authentication failed!",
      "Permission denied - invalid csrf token",
      "",
    ]) {
      expect(error({ status: 401, reason })).toMatchObject({ code: "unauthorized" });
    }
    expect(error({ status: 401, reason: "Authentication failed!" }).staffDetail).toContain(
      "Authentication failed!",
    );
    const [forbidden] = bothStyles(403, "Permission check failed (/vms/203, VM.PowerMgmt)").map(error);
    expect(forbidden).toMatchObject({
      code: "cloud_forbidden",
      staffDetail: expect.stringContaining("VM.PowerMgmt"),
    });
    expect(forbidden?.message).not.toContain("VM.PowerMgmt");
  });

  it("400 tells which parameters were refused, to staff alone and without secrets", () => {
    const text = JSON.stringify({
      errors: {
        sshkeys: "invalid format - invalid urlencoded string: s3cret",
        memory: "value must have a minimum value of 16",
      },
      message: "Parameter verification failed.\n",
      data: null,
    });
    const refused = error({ status: 400, text, headers: JSON_TYPE });
    expect(refused).toMatchObject({ code: "cloud_invalid" });
    expect(refused.staffDetail).toMatch(/sshkeys: .*\[removed\].*memory: value must/u);
    expect(`${refused.message} ${refused.staffDetail}`).not.toContain("s3cret");
  });
});

describe("an answer of the gateway before PVE", () => {
  it("595, 596 and 599 of a write are unknown, of a read late or away, and both may be asked again", () => {
    for (const [status, code] of [
      [595, "unreachable"],
      [596, "timeout"],
      [599, "timeout"],
      [502, "unreachable"],
      [504, "timeout"],
    ] as const) {
      expect(error({ status, reason: "Connection timed out" }), String(status)).toMatchObject({
        code: "unknown_outcome",
        retryable: false,
      });
      expect(error({ status, changing: false }), String(status)).toMatchObject({ code, retryable: true });
    }
  });

  it("a 500 that is a page of HTML or says no more than 'got timeout' does not say what was done", () => {
    for (const shape of [
      { status: 500, text: "<html><body>Internal Server Error</body></html>", headers: HTML },
      { status: 500, reason: "Internal Server Error" },
      ...bothStyles(500, "got timeout"),
    ]) {
      expect(error(shape).code).toBe("unknown_outcome");
      expect(error({ ...shape, changing: false })).toMatchObject({ retryable: true });
    }
  });

  it("429, and 503 with a time, did nothing", () => {
    for (const status of [429, 503]) {
      expect(error({ status, retryAfterMs: 3_000 })).toMatchObject({
        code: "unreachable",
        retryable: true,
        facts: { retryAfterMs: 3_000 },
      });
    }
  });
});

describe("a task that ended badly", () => {
  it("is told by what its exit status says, and killed is told as killed", () => {
    const task = { cloud: "pve1", upid: "UPID:n1:0:0:0:qmstart:100:root@pam:", what: "start the server" };
    for (const [exitStatus, code] of [
      ["VM is locked (snapshot-delete)", "cloud_conflict"],
      ["unexpected status", "cloud_failed"],
      ["interrupted by signal", "cloud_failed"],
      ["clone failed: copy failed: No space left on device", "capacity"],
      ["VM quit/powerdown failed - got timeout", "cloud_failed"],
      ["shrinking disks is not supported", "cloud_invalid"],
      ["base volume 'local:9000/base-9000-disk-0.qcow2' is still in use by linked cloned", "cloud_conflict"],
      ["can't lock file '/var/lock/qemu-server/lock-100.conf' - got timeout", "cloud_conflict"],
      ["job errors", "cloud_failed"],
    ] as const) {
      const seen = taskError(exitStatus, task);
      expect(seen.code, exitStatus).toBe(code);
      expect(seen.message).not.toMatch(/UPID|qm|100/u);
      expect(seen.staffDetail).toContain(exitStatus);
    }
    expect(taskError("unexpected status", task).facts).toMatchObject({ killed: true });
    expect(taskError("job errors", task).message).toBe(
      "The cloud tried to start the server and failed. Staff see its reason.",
    );
  });
});
