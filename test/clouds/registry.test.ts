import { pino } from "pino";
import { expect, it } from "vitest";
import { createClouds } from "../../src/clouds/index.ts";
import { ServiceError } from "../../src/core/errors.ts";

const log = pino({ level: "silent" });
const entry = (name: string, more: { caFile?: string } = {}) => ({
  type: "openstack" as const,
  name,
  auth: { authUrl: "http://127.0.0.1:9/v3", username: "u", password: "p" },
  ...more,
});
const pve = (name: string) => ({
  type: "pve" as const,
  name,
  url: "https://127.0.0.1:9",
  credential: { kind: "token" as const, tokenId: "a@pve!b", tokenSecret: "c" },
  vmidRange: [100, 200] as const,
});

it("opens nothing, finds clouds by name, and says which are configured", async () => {
  const clouds = createClouds([entry("a"), pve("b")], log);
  expect(clouds.list().map((cloud) => [cloud.name, cloud.provider])).toEqual([
    ["a", "openstack"],
    ["b", "pve"],
  ]);
  expect(clouds.get("b").name).toBe("b");
  expect(() => clouds.get("c")).toThrow(
    expect.objectContaining({
      code: "configuration",
      staffDetail: expect.stringMatching(/no cloud c .*only a, b/u),
    }),
  );
  await clouds.close();
});

it("refuses two clouds of one name, and a CA file that is not there", () => {
  expect(() => createClouds([entry("a"), entry("a")], log)).toThrow(ServiceError);
  expect(() => createClouds([entry("a", { caFile: "/nowhere/ca.pem" })], log)).toThrow(/\/nowhere\/ca\.pem/u);
});

it("check never throws: it tells each service's trouble", async () => {
  const clouds = createClouds([entry("a")], log);
  const checks = await clouds.get("a").check();
  expect(checks.map(({ service, ok }) => [service, ok])).toEqual([
    ["identity", false],
    ["compute", false],
    ["image", false],
    ["network", false],
  ]);
  await clouds.close();
});
