import { describe, expect, it } from "vitest";
import type { Outcome, OutgoingEvent } from "../../src/webhooks/formats/format.ts";
import { findFormat, formats } from "../../src/webhooks/formats/index.ts";
import { standardFormat } from "../../src/webhooks/formats/standard.ts";

const event: OutgoingEvent = {
  id: "0199b1c2-0000-7000-8000-000000000001",
  type: "server.resize.succeeded",
  occurredAt: new Date("2026-11-20T10:11:12.345Z"),
  position: 7n,
  sequence: 3n,
  serverPublicId: "srv-k7q2m9xd",
  operationPublicId: "op-4fz9c2kd",
  customerRef: "C-1001",
  dataJson: '{"server": {"name": "web-1"}}',
  staffDataJson: '{"node": "pve3", "vmid": 104}',
};

describe.each(formats.map((format) => [format.name, format] as const))("the format %s", (_name, format) => {
  it("is found by its name and by no other", () => {
    expect(findFormat(format.name)).toBe(format);
    expect(findFormat(`${format.name}x`)).toBeUndefined();
  });

  it("renders the same bytes every time", () => {
    const recipient = { audience: "staff" } as const;
    expect(format.render(event, recipient)).toEqual(format.render({ ...event }, recipient));
  });

  it("never shows staff data to a customer", () => {
    const { body, headers } = format.render(event, { audience: "customer" });
    for (const text of [body, JSON.stringify(headers)]) expect(text).not.toMatch(/pve3|vmid|104|internal/);
  });

  it("takes 2xx for delivered and a redirect or a server error for none", () => {
    expect(format.judge(200, {}, "{}")).toBe("delivered");
    for (const status of [301, 307, 500, 502]) expect(format.judge(status, {}, "")).toBe("retry");
  });
});

describe("the standard format", () => {
  const render = (changes: Partial<OutgoingEvent> = {}) =>
    standardFormat.render({ ...event, ...changes }, { audience: "staff" }).body;

  it("is the envelope of Standard Webhooks", () => {
    expect(JSON.parse(render())).toEqual({
      type: "server.resize.succeeded",
      timestamp: "2026-11-20T10:11:12.345Z",
      id: event.id,
      position: 7,
      sequence: 3,
      server: "srv-k7q2m9xd",
      operation: "op-4fz9c2kd",
      customer: "C-1001",
      data: { server: { name: "web-1" }, internal: { node: "pve3", vmid: 104 } },
    });
  });

  it("leaves out what an event has not", () => {
    const none = { sequence: null, serverPublicId: null, operationPublicId: null, customerRef: null };
    const body = standardFormat.render({ ...event, ...none }, { audience: "customer" }).body;
    expect(Object.keys(JSON.parse(body))).toEqual(["type", "timestamp", "id", "position", "data"]);
  });

  it("loses no digit", () => {
    const body = render({
      dataJson: '{"bytes": 18446744073709551615, "price": 10.50, "list": [1e3, -0.10]}',
      sequence: 9_007_199_254_740_991n,
      position: 9_007_199_254_740_992n,
    });
    expect(body).toContain('"bytes":18446744073709551615,"price":10.50,"list":[1e3,-0.10]');
    expect(body).toContain('"sequence":9007199254740991,');
    expect(body).toContain('"position":"9007199254740992"');
  });

  it("strips what deceives from text that others wrote, and keeps the rest", () => {
    const name = 'web\u0000\u0007-1\u202egnp.exe\u200b\u2066\ufeff\nline\ttab 日本語 🚀 "q" \\ é';
    const data = JSON.parse(render({ dataJson: JSON.stringify({ name, list: [name] }) })).data;
    expect(data.name).toBe('web-1gnp.exe line tab 日本語 🚀 "q" \\ é');
    expect(data.list).toEqual([data.name]);
  });

  it("is not fooled by names in the data", () => {
    const dataJson = '{"internal": "mine", "__proto__": {"a": 1}, "type": "x"}';
    const staff = JSON.parse(render({ dataJson }));
    expect(staff.type).toBe("server.resize.succeeded");
    expect(staff.data.internal).toEqual({ node: "pve3", vmid: 104 });
    expect(Object.keys(staff.data)).toContain("__proto__");
  });

  it.each<[number, Record<string, string>, Outcome]>([
    [200, {}, "delivered"],
    [204, {}, "delivered"],
    [300, {}, "retry"],
    [304, {}, "retry"],
    [400, {}, "permanent"],
    [401, {}, "permanent"],
    [403, {}, "permanent"],
    [404, {}, "retry"],
    [408, {}, "retry"],
    [409, {}, "retry"],
    [410, {}, "gone"],
    [413, {}, "permanent"],
    [422, {}, "retry"],
    [429, {}, "throttled"],
    [503, {}, "retry"],
    [503, { "retry-after": "9" }, "throttled"],
    [500, { "retry-after": "9" }, "retry"],
    [200, { "webhook-delivery": "disable" }, "gone"],
    [500, { "webhook-delivery": "abort-message" }, "permanent"],
  ])("judges %i %o as %s", (status, headers, outcome) => {
    expect(standardFormat.judge(status, headers, "")).toBe(outcome);
  });
});
