/**
 * Nothing that staff can ask for crashes. Every action of the registry is run through the entrance on both
 * simulators; one without a sample fails here.
 */
import { expect, it } from "vitest";
import type { Option } from "../../../src/core/action.ts";
import { createRegistry } from "../../../src/core/actions/index.ts";
import type { Cloud } from "../../../src/core/cloud.ts";
import { isServiceError, ServiceError } from "../../../src/core/errors.ts";
import { buttonTexts } from "../../../src/core/operations/card.ts";
import type { Answer } from "../../../src/core/request.ts";
import type { Database } from "../../../src/database/client.ts";
import { createPveWorld } from "../../clouds/pve/world.ts";
import { testDatabase } from "../../support/database.ts";
import { type CloudWorld, createWorld } from "../../support/world.ts";
import { plausible } from "../isolation-sweep.ts";
import { optionsOf, type Sample, samples } from "./samples.ts";

const worlds: Record<Cloud["provider"], (database: Database) => Promise<CloudWorld>> = {
  openstack: (database) => createWorld({ database }),
  pve: (database) =>
    createPveWorld({
      database,
      client: { rescueIso: "local:iso/rescue.iso", isos: { "help-disk": "local:iso/rescue.iso" } },
    }),
};

it("every action has a sample, in test/core/actions/samples.ts", () => {
  const known = new Set(samples.map(({ action }) => action));
  const names = createRegistry()
    .list()
    .map(({ name }) => name);
  expect(names.filter((name) => !known.has(name))).toEqual([]);
  expect([...known].filter((name) => !names.includes(name))).toEqual([]);
});

it("on OpenStack every action answers staff with what was asked for, or refuses it in a sentence", async () => {
  expect(await onCloud("openstack", askEverything)).toEqual([]);
}, 120_000);

it("on Proxmox VE every action answers staff with what was asked for, or refuses it in a sentence", async () => {
  expect(await onCloud("pve", askEverything)).toEqual([]);
}, 120_000);

it("on OpenStack no value of an option makes an action crash", async () => {
  expect(await onCloud("openstack", tryOptions)).toEqual([]);
}, 120_000);

it("on Proxmox VE no value of an option makes an action crash", async () => {
  expect(await onCloud("pve", tryOptions)).toEqual([]);
}, 120_000);

async function onCloud<T>(provider: Cloud["provider"], work: (world: CloudWorld) => Promise<T>): Promise<T> {
  const database = await testDatabase();
  try {
    const world = await worlds[provider](database);
    try {
      return await work(world);
    } finally {
      await world.close();
    }
  } finally {
    await database.close();
  }
}

/** Answers with what is wrong. */
async function askEverything(world: CloudWorld): Promise<string[]> {
  const wrong: string[] = [];
  for (const sample of samples) {
    const problem = await judge(world, sample, await outcomeOf(world, sample));
    if (problem !== null) wrong.push(`${sample.action}: ${problem}`);
    await settleAll(world);
  }
  return [...wrong, ...(await buttonsWithoutText(world))];
}

/** A card leaves them out, so that nobody would miss them. */
async function buttonsWithoutText({ database }: CloudWorld): Promise<string[]> {
  const offered = await database.sql<{ action: string }>(`SELECT DISTINCT action FROM capabilities`);
  if (offered.length === 0) return ["no card had a button"];
  return offered
    .filter(({ action }) => buttonTexts[action] === undefined)
    .map(({ action }) => `${action}: has no text for its button`);
}

async function tryOptions(world: CloudWorld): Promise<string[]> {
  for (const name of ["web-1", "web-2"]) {
    await world.run(world.sam, "server.provision", { name, customer: "ada", plan: "s", image: "debian-12" });
  }
  const wrong: string[] = [];
  let asked = 0;
  for (const sample of samples) {
    const action = world.engine.registry.get(sample.action);
    // What is done at once is done above; here nothing is changed.
    if (action.kind === "immediate" || typeof sample.options === "function") continue;
    for (const option of action.options) {
      for (const value of valuesOf(option)) {
        asked += 1;
        const told = await dryRun(world, sample.action, { ...sample.options, [option.name]: value });
        if (told === null) continue;
        wrong.push(`${sample.action} ${option.name}:${value.slice(0, 20)}: ${told.slice(0, 300)}`);
      }
    }
  }
  if (asked < 100) wrong.push(`only ${asked} were tried`);
  return wrong;
}

function valuesOf(option: Option): string[] {
  const choices = option.choices?.map(({ value }) => value) ?? [plausible(option)];
  return [...choices, "", "0", "-1", "no", "zz", "\u0000", "x".repeat(5000)];
}

/** What is wrong with the answer, or null. */
async function dryRun(
  world: CloudWorld,
  action: string,
  options: Record<string, string>,
): Promise<string | null> {
  try {
    await world.entrance.dispatch({
      action,
      options,
      principal: world.rita,
      source: "console",
      idempotencyKey: "never-used",
      origin: null,
      dryRun: true,
    });
    return null;
  } catch (error) {
    return problemWith(error);
  }
}

function problemWith(error: unknown): string | null {
  if (!(error instanceof ServiceError)) return `crashed: ${String(error)}`;
  if (error.code === "internal") return "answers with an internal error";
  const isSentence = /^\S.+[.?!]$/u.test(error.message) && error.message.length < 800;
  return isSentence ? null : `is no sentence for a person: ${error.message}`;
}

async function outcomeOf(world: CloudWorld, sample: Sample): Promise<Answer | ServiceError | Error> {
  try {
    return await world.ask(world.rita, sample.action, await optionsOf(sample, { world, who: world.rita }));
  } catch (error) {
    if (error instanceof Error) return error;
    throw error;
  }
}

/** What a decision set going must not be in the way of the next sample. */
async function settleAll(world: CloudWorld): Promise<void> {
  const going = await world.database.sql<{ id: string }>(
    `SELECT id FROM operations WHERE state = ANY(ARRAY['queued', 'running', 'waiting', 'compensating'])`,
  );
  for (const { id } of going) await world.settle(id);
}

async function judge(world: CloudWorld, sample: Sample, outcome: Answer | Error): Promise<string | null> {
  if (outcome instanceof Error) {
    // A cloud that has no such thing says so.
    const absent = world.cloud.provider === "openstack" && isServiceError(outcome, "unsupported");
    if (absent || (sample.refused !== undefined && isServiceError(outcome, sample.refused)))
      return problemWith(outcome);
    return `${problemWith(outcome) ?? "refused"}: ${outcome.message}`;
  }
  if (sample.refused !== undefined) return `was to be refused as ${sample.refused}`;
  if (outcome.kind === "view") return outcome.view.title === "" ? "shows nothing" : null;
  if (outcome.kind === "form") return "asks for more options than its sample gives";
  const first = await world.settle(outcome.operationId);
  if (first.state === "awaiting_confirmation") {
    await world.ask(world.rita, "ops.confirm", { operation: outcome.publicId });
  }
  const { state, problem } = await world.settle(outcome.operationId);
  return state === "succeeded" ? null : `ended as ${state}: ${JSON.stringify(problem)}`;
}
