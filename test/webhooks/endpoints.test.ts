import { afterAll, beforeEach, expect, it } from "vitest";
import { isServiceError } from "../../src/core/errors.ts";
import { type ConfiguredEndpoint, REMOVED_REASON, syncEndpoints } from "../../src/webhooks/endpoints.ts";
import { generateSecret } from "../../src/webhooks/signature.ts";
import { clean, eachBackend } from "../support/database.ts";
import { addCustomer, createWorld } from "./world.ts";

interface Row {
  name: string;
  url: string;
  events: string[];
  mine: boolean;
  secretId: string;
  off: string | null;
}

function endpoint(changes: Partial<ConfiguredEndpoint> = {}): ConfiguredEndpoint {
  return {
    name: "crm",
    url: "https://crm.example.com/hook",
    secret: generateSecret(),
    events: ["server.*"],
    format: "standard",
    ...changes,
  };
}

eachBackend("configured endpoints", (database) => {
  const world = createWorld(database);
  beforeEach(() => clean(database()));
  afterAll(() => world.close());

  const sync = (...list: ConfiguredEndpoint[]) => syncEndpoints(database(), world.secrets, list);
  const rows = () =>
    database().sql<Row>(
      `SELECT name, url, event_types AS events, customer_id IS NULL AS mine, secret_id AS "secretId",
              disabled_reason AS off FROM endpoints ORDER BY name`,
    );
  const secretCount = async () => (await database().sql("SELECT 1 FROM secrets")).length;

  async function problem(...list: ConfiguredEndpoint[]): Promise<string> {
    const error = await sync(...list).then(
      () => undefined,
      (reason: unknown) => reason,
    );
    if (!isServiceError(error, "configuration")) throw new Error(`not refused: ${String(error)}`);
    return error.message;
  }

  it("are created once, with an encrypted secret", async () => {
    const crm = endpoint();
    expect(await sync(crm)).toEqual({ created: ["crm"], changed: [], enabled: [], disabled: [] });
    expect(await sync(crm)).toEqual({ created: [], changed: [], enabled: [], disabled: [] });
    const [row] = await rows();
    expect(row).toMatchObject({ name: "crm", url: crm.url, events: ["server.*"], mine: true, off: null });
    expect(await world.secrets.read(database(), row?.secretId ?? "")).toBe(crm.secret);
    const dump = JSON.stringify(
      await database().sql("SELECT to_jsonb(s) AS s, to_jsonb(e) AS e FROM secrets s, endpoints e"),
    );
    expect(dump).not.toContain(crm.secret.slice("whsec_".length));
  });

  it("several processes that start together make one of each", async () => {
    const crm = endpoint();
    const done = await Promise.all([sync(crm), sync(crm), sync(crm)]);
    expect(done.flatMap(({ created }) => created)).toEqual(["crm"]);
    expect((await rows()).length).toBe(1);
    expect(await secretCount()).toBe(1);
  });

  it("change in place; the old secret is deleted", async () => {
    const crm = endpoint();
    await sync(crm);
    const [before] = await rows();
    const changed = { ...crm, url: "https://new.example.com/", events: ["*"], secret: generateSecret() };
    expect(await sync(changed)).toMatchObject({ created: [], changed: ["crm"] });
    const [after] = await rows();
    expect(after).toMatchObject({ url: changed.url, events: ["*"] });
    expect(after?.secretId).not.toBe(before?.secretId);
    expect(await world.secrets.read(database(), after?.secretId ?? "")).toBe(changed.secret);
    expect(await secretCount()).toBe(1);
  });

  it("are disabled when removed, with their history, and enabled when they come back", async () => {
    const [crm, erp] = [endpoint(), endpoint({ name: "erp" })];
    await sync(crm, erp);
    expect(await sync(erp)).toMatchObject({ disabled: ["crm"] });
    expect(await rows()).toMatchObject([
      { name: "crm", off: REMOVED_REASON },
      { name: "erp", off: null },
    ]);
    expect(await sync(erp)).toMatchObject({ disabled: [] });
    expect(await sync(crm, erp)).toMatchObject({ enabled: ["crm"], created: [] });
    expect(await rows()).toMatchObject([{ off: null }, { off: null }]);
  });

  it("belong to their customer and never by mistake to us", async () => {
    await addCustomer(database(), "ada");
    await addCustomer(database(), "bob");
    const hers = endpoint({ customer: "ada" });
    await sync(hers);
    expect(await rows()).toMatchObject([{ mine: false }]);
    expect(await problem({ ...hers, customer: "bob" })).toMatch(/belongs to another customer already/);
    expect(await problem({ ...hers, customer: undefined })).toMatch(/belongs to another customer already/);
    expect(await problem(endpoint({ name: "x", customer: "eve" }))).toBe(
      "Webhook x: there is no customer eve; add it to customers.",
    );
    expect(await rows()).toMatchObject([{ name: "crm", mine: false }]);
  });

  it("with problems are refused together, before anything is written", async () => {
    const text = await problem(
      endpoint(),
      endpoint(),
      endpoint({ name: "a", url: "ftp://example.com", secret: "whsec_tooshort" }),
      endpoint({ name: "b", url: "https://user:pw@example.com/", format: "xml" }),
      endpoint({ name: "c", events: [] }),
      endpoint({ name: "d", events: ["Server.*", "server.*.x"] }),
    );
    expect(text.split("\n").length).toBe(8);
    for (const part of [
      /Webhook crm: there are two/,
      /Webhook a: the url must be an https address/,
      /Webhook a: The webhook secret cannot be used/,
      /Webhook b: the url must not hold a name or password/,
      /Webhook b: there is no format "xml"; there is standard/,
      /Webhook c: it names no events/,
      /Webhook d: "Server\.\*"/,
      /Webhook d: "server\.\*\.x"/,
    ])
      expect(text).toMatch(part);
    expect(text).not.toContain("pw@");
    expect(await rows()).toEqual([]);
  });
});
