import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { z } from "zod";
import type { Principal } from "../../src/core/access.ts";
import { defineRead, type Option } from "../../src/core/action.ts";
import { isServiceError, type ServiceError } from "../../src/core/errors.ts";
import { formOf } from "../../src/core/form-of.ts";
import { helpView } from "../../src/core/help.ts";
import { nearest } from "../../src/core/nearest.ts";
import { missingOptions, parseOptions } from "../../src/core/options.ts";
import { sampleAction, sampleRegistry } from "../support/sample-actions.ts";

const sam: Principal = { kind: "staff", id: "s1", name: "sam", role: "admin" };
const vera: Principal = { kind: "staff", id: "s2", name: "vera", role: "viewer" };
const ada: Principal = { kind: "customer", id: "c1", name: "ada", customerId: "c1" };

function refusal(work: () => unknown): ServiceError {
  try {
    work();
  } catch (error) {
    if (isServiceError(error)) return error;
    throw error;
  }
  throw new Error("nothing was refused");
}

const resize = sampleAction("server.resize");
const parse = (raw: Record<string, string>, action = resize) => parseOptions(action, raw, sam);
const refused = (raw: Record<string, string>, action = resize) => refusal(() => parse(raw, action));

describe("parseOptions", () => {
  it.each([
    ["8G", 8192],
    ["8g", 8192],
    ["8GB", 8192],
    ["8GiB", 8192],
    ["8 GiB", 8192],
    ["8192M", 8192],
    ["512MiB", 512],
    ["1.5G", 1536],
    ["0.25T", 262_144],
    ["\u200b8G\u00a0", 8192],
  ])("reads memory:%s as MiB", (text, memoryMib) => {
    expect(parse({ server: "web-1", memory: text })).toEqual({ server: "web-1", memoryMib });
  });

  it.each([
    ["80G", 80],
    ["1T", 1024],
    ["0.5T", 512],
    ["20480M", 20],
  ])("reads disk:%s as GiB", (text, diskGib) => {
    expect(parse({ server: "web-1", disk: text })).toEqual({ server: "web-1", diskGib });
  });

  it.each([
    ["memory", "8", "memory:8 needs a unit; write memory:8G (or memory:8M)."],
    ["memory", "8192", "memory:8192 needs a unit; write memory:8192M (or memory:8192G)."],
    ["memory", "8X", 'memory:8X has the unknown unit "X"; write M, G or T, for example memory:8G.'],
    ["memory", "much", "memory:much is not a size; write memory:8G."],
    ["memory", "-8G", "memory:-8G is not a size; write memory:8G."],
    ["memory", "0G", "memory:0G must be more than nothing; write memory:8G."],
    ["memory", "1.3M", "memory:1.3M is not a whole number of MiB; the next one is memory:2M."],
    ["memory", "256M", "memory:256M is too small; the least is 512M."],
    ["memory", "1T", "memory:1T is too large; the most is 256G."],
    ["disk", "80", "disk:80 needs a unit; write disk:80G."],
    ["disk", "500M", "disk:500M is not a whole number of GiB; the next one is disk:1G."],
    ["disk", "5G", "disk:5G is too small; the least is 10G."],
    ["cpu", "four", "cpu:four is not a number; write cpu:4."],
    ["cpu", "0x10", "cpu:0x10 is not a number; write cpu:4."],
    ["cpu", "1e3", "cpu:1e3 is not a number; write cpu:4."],
    ["cpu", "2.5", "cpu:2.5 must be a whole number."],
    ["cpu", "0", "cpu:0 is too small; the least is 1."],
    ["plan", "a\u0000b", 'plan:"a b" contains control characters; type it again by hand.'],
  ])("refuses %s:%s with one sentence", (option, text, sentence) => {
    const error = refused({ server: "web-1", [option]: text });
    expect(error.code).toBe("invalid_input");
    expect(error.message).toBe(sentence);
    expect(error.facts["option"]).toBe(option);
  });

  it("takes choices by value or label and names the nearest one otherwise", () => {
    const power = sampleAction("server.power");
    expect(parse({ server: "web-1", verb: "STOP" }, power)).toEqual({ server: "web-1", verb: "stop" });
    expect(parse({ server: "web-1", verb: "Shutdown" }, power)).toMatchObject({ verb: "shutdown" });
    expect(refused({ server: "web-1", verb: "strat" }, power).message).toBe(
      "verb:strat is not one of the choices; did you mean start?",
    );
    expect(refused({ server: "web-1", verb: "explode" }, power).message).toBe(
      "verb:explode is not one of the choices; choose start, stop, shutdown or reboot.",
    );
  });

  it("reads flags and pairs", () => {
    const provision = sampleAction("server.provision");
    const given = { customer: "ada", name: "web-1", plan: "m", image: "debian-12" };
    expect(parse({ ...given, start: "No", labels: 'env=prod, note="a, b",empty=' }, provision)).toMatchObject(
      {
        start: false,
        labels: { env: "prod", note: "a, b", empty: "" },
      },
    );
    expect(parse(given, provision)).toMatchObject({ start: true });
    expect(refused({ ...given, start: "maybe" }, provision).message).toBe(
      "start:maybe is neither yes nor no; write start:yes or start:no.",
    );
    expect(refused({ ...given, labels: "env" }, provision).message).toBe(
      'labels:env has "env" where key=value belongs; write labels:key=value.',
    );
    expect(refused({ ...given, labels: "a=1,a=2" }, provision).message).toBe(
      'labels:a=1,a=2 has "a" twice; keep one of them.',
    );
    expect(refused({ ...given, labels: "__proto__=1" }, provision).facts["option"]).toBe("labels");
  });

  it("lets an action's schema word its own rules", () => {
    const given = { customer: "ada", name: "Web 1", plan: "m", image: "debian-12" };
    expect(refused(given, sampleAction("server.provision")).message).toBe(
      'name:"Web 1" must start with a letter and have only lower-case letters, digits and hyphens.',
    );
    const both = refused({ server: "web-1" });
    expect(both.message).toBe("Say what to change: plan, memory, cpu or disk.");
    expect(both.facts).not.toHaveProperty("option");
  });

  it("names the nearest option for an unknown one", () => {
    expect(refused({ server: "web-1", memry: "8G" }).message).toBe(
      '/server resize has no option "memry"; did you mean memory?',
    );
    expect(refused({ server: "web-1", colour: "red" }).message).toBe(
      '/server resize has no option "colour"; it takes server, plan, memory, cpu and disk.',
    );
    expect(refused({ server: "web-1", ["__proto__"]: "x" }).code).toBe("invalid_input");
  });

  it("reports every wrong option for a form, and the first one as the message", () => {
    const error = refused({ server: "", memory: "8", cpu: "four" });
    expect(error.message).toBe("/server resize needs server; write server:web-1.");
    expect(error.facts["errors"]).toEqual({
      server: "/server resize needs server; write server:web-1.",
      memory: "memory:8 needs a unit; write memory:8G (or memory:8M).",
      cpu: "cpu:four is not a number; write cpu:4.",
    });
  });

  it("hides options of another audience: they do not exist", () => {
    const provision = sampleAction("server.provision");
    const raw = { name: "web-1", plan: "m", image: "debian-12" };
    expect(parseOptions(provision, raw, ada)).not.toHaveProperty("customer");
    expect(missingOptions(provision, raw, ada)).toEqual([]);
    expect(missingOptions(provision, raw, sam).map((option) => option.name)).toEqual(["customer"]);
    const error = refusal(() => parseOptions(provision, { ...raw, customer: "bob" }, ada));
    expect(error.message).toMatch(/^\/server provision has no option "customer"; it takes name, plan/);
  });

  it("names the option for every kind of schema rule", () => {
    const option = (name: string): Option => ({ name, field: name, label: name, help: name, type: "text" });
    const action = defineRead({
      name: "x.y",
      summary: "x",
      audience: ["staff"],
      permission: "server.read",
      input: z.object({
        mail: z.email().optional(),
        site: z.url().optional(),
        code: z.string().regex(/^\d+$/).optional(),
        short: z.string().max(3).optional(),
        kind: z.enum(["a", "b"]).optional(),
        odd: z
          .string()
          .refine(() => false)
          .optional(),
      }),
      options: ["mail", "site", "code", "short", "kind", "odd"].map(option),
      run: async () => ({ title: "", tone: "neutral" }),
    });
    const sentences = Object.keys({ mail: 0, site: 0, code: 0, short: 0, kind: 0, odd: 0 }).map(
      (name) => refused({ [name]: "wrong" }, action).message,
    );
    expect(sentences).toEqual([
      "mail:wrong is not an e-mail address.",
      "site:wrong is not a web address.",
      "code:wrong is not written as it must be; write code:text.",
      "short:wrong is too long; it may have at most 3 characters.",
      "kind:wrong is not one of the choices; choose a or b.",
      "odd:wrong is not accepted here; write odd:text.",
    ]);
  });

  it("gives a typed input or one ServiceError, whatever is typed", () => {
    fc.assert(
      fc.property(
        fc.dictionary(fc.constantFrom("server", "memory", "cpu", "disk", "plan"), fc.string()),
        (raw) => {
          expect(outcome(raw)).toMatch(/^(parsed|\P{Cc}+[.?])$/u);
        },
      ),
    );
  });
});

/** "parsed" or the refusal's sentence; any other error is thrown on. */
function outcome(raw: Record<string, string>): string {
  try {
    parse(raw);
    return "parsed";
  } catch (error) {
    if (isServiceError(error, "invalid_input")) return error.message;
    throw error;
  }
}

describe("nearest", () => {
  it.each([
    ["resiez", "resize"],
    ["RESIZE", "resize"],
    ["lst", "list"],
    ["prov", "provision"],
    ["delet", "delete"],
    ["explode", undefined],
    ["x", undefined],
    ["", undefined],
  ])("%s → %s", (word, expected) => {
    expect(nearest(word, ["list", "resize", "provision", "delete", "power"])).toBe(expected);
  });

  it("prefers the smaller distance, then the first", () => {
    expect(nearest("stat", ["start", "state"])).toBe("state");
    expect(nearest("cat", ["bat", "rat"])).toBe("bat");
  });

  it("finds itself, and any swap of neighbours", () => {
    const word = fc.string({ minLength: 3, maxLength: 12, unit: fc.constantFrom("a", "b", "c", "d", "e") });
    fc.assert(
      fc.property(word, fc.nat(10), (text, at) => {
        const index = at % (text.length - 1);
        const swapped = text.slice(0, index) + text[index + 1] + text[index] + text.slice(index + 2);
        expect(nearest(swapped, [text])).toBe(text);
      }),
    );
  });
});

describe("formOf", () => {
  it("has a field for each option, with what was given and what was wrong", () => {
    const form = formOf(sampleAction("server.provision"), { name: "Web", start: "true" }, sam, {
      name: "name is bad.",
    });
    expect(form.title).toBe("Build a server from a plan");
    expect(form.submit).toBe("Provision");
    expect(form.fields.map((field) => `${field.name}:${field.kind}`)).toEqual([
      "customer:lookup",
      "name:text",
      "plan:lookup",
      "image:lookup",
      "start:choice",
    ]);
    expect(form.fields[1]).toMatchObject({ initial: "Web", required: true });
    expect(form.fields[4]).toMatchObject({ initial: "yes", choices: [{ value: "yes" }, { value: "no" }] });
    expect(form.errors).toEqual({ name: "name is bad." });
  });

  it("shows advanced options only when given or wrong, and foreign ones never", () => {
    const provision = sampleAction("server.provision");
    const names = (given: Record<string, string>, errors = {}) =>
      formOf(provision, given, ada, errors).fields.map((field) => field.name);
    expect(names({})).toEqual(["name", "plan", "image", "start"]);
    expect(names({ labels: "a=1" })).toContain("labels");
    expect(names({}, { count: "count is wrong." })).toContain("count");
  });

  it("starts a choice only with one of its values", () => {
    const power = sampleAction("server.power");
    const initial = (verb: string) => formOf(power, { verb }, sam).fields[1]?.initial;
    expect(initial("Stop")).toBe("stop");
    expect(initial("explode")).toBeUndefined();
  });
});

describe("helpView", () => {
  const commands = (who: Principal, topic?: string) =>
    helpView(sampleRegistry, who, topic).table?.rows.map((row) => row[0]?.split(/ [<[a-z]*[:…<[]/)[0]);

  it("lists only what the principal may run", () => {
    expect(helpView(sampleRegistry, vera).table?.rows.map((row) => row[0])).toEqual([
      "/server list [state:…]",
      "/link <code>",
    ]);
    expect(commands(ada)?.join()).not.toContain("/server delete");
    expect(commands(sam)?.join()).toContain("/server delete");
    const hidden = refusal(() => helpView(sampleRegistry, ada, "server delete"));
    const absent = refusal(() => helpView(sampleRegistry, ada, "server destruct"));
    expect(hidden.code).toBe("unknown_command");
    expect(absent.code).toBe("unknown_command");
  });

  it("explains one action with usage, options and examples that parse", () => {
    const view = helpView(sampleRegistry, sam, "/server resize");
    expect(view.fields?.[0]?.value).toBe("/server resize <server> [plan:…] [memory:…] [cpu:…] [disk:…]");
    expect(view.fields?.[1]?.value).toBe("/server resize web-1\n/server resize web-1 plan:m memory:8G");
    expect(view.table?.rows[0]).toEqual([
      "server (required)",
      "Name or public id of the server",
      "server:web-1",
    ]);
    expect(view.footer).toContain("--dry-run");
  });

  it("takes groups and names the nearest topic otherwise", () => {
    expect(helpView(sampleRegistry, sam, "ops").title).toBe("/ops");
    expect(refusal(() => helpView(sampleRegistry, sam, "sevrer")).message).toBe(
      "There is no command /sevrer; did you mean /server?",
    );
  });
});
