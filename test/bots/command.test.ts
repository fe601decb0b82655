import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { parseCommand } from "../../src/bots/command.ts";
import { plainText } from "../../src/bots/command-words.ts";
import type { Principal } from "../../src/core/access.ts";
import { isServiceError, type ServiceError } from "../../src/core/errors.ts";
import { asTyped, quotedIfNeeded } from "../../src/core/option-values.ts";
import { parseOptions } from "../../src/core/options.ts";
import { registryOf, sampleAction, sampleRegistry } from "../support/sample-actions.ts";

const sam: Principal = { kind: "staff", id: "s1", name: "sam", role: "admin" };
const ada: Principal = { kind: "customer", id: "c1", name: "ada", customerId: "c1" };

const parse = (text: string, group = "server") => parseCommand(group, text, sampleRegistry);

function refused(text: string, group = "server", principal: Principal = sam): ServiceError {
  try {
    parseCommand(group, text, sampleRegistry, { principal });
  } catch (error) {
    if (isServiceError(error)) return error;
    throw error;
  }
  throw new Error("nothing was refused");
}

function outcome(text: string): string {
  try {
    return parse(text).action;
  } catch (error) {
    if (isServiceError(error, "invalid_input", "unknown_command")) return error.message;
    throw error;
  }
}

const resized = (options: Record<string, string>) => ({
  action: "server.resize",
  options: { server: "web-1", ...options },
  dryRun: false,
  help: false,
});

describe("parseCommand", () => {
  it.each([
    ["resize web-1 memory:8G cpu:4", { memory: "8G", cpu: "4" }],
    ["  Resize   web-1\tMemory:8G ", { memory: "8G" }],
    ["resize memory:8G web-1", { memory: "8G" }],
    ["resize server:web-1 memory:8G", { memory: "8G" }],
    ["resize 'web-1' memory:\"8 GiB\"", { memory: "8 GiB" }],
    ["resize “web-1” plan:“a b”", { plan: "a b" }],
    ["resize ‘web-1’ plan:‘Ada’s box’", { plan: "Ada’s box" }],
    ["resize `web-1` plan:`m`", { plan: "m" }],
    ['resize web-1 plan:"say \\"hi\\" \\\\"', { plan: 'say "hi" \\' }],
    ["resize\u00a0web-1\u202fplan:m\ufeff", { plan: "m" }],
    ["resize web-1 plan:a&amp;b", { plan: "a&b" }],
    ["resize web-1 plan:<http://m.example|m.example>", { plan: "m.example" }],
    ["resize web-1 plan:<https://m.example/a?b=1&amp;c=2>", { plan: "https://m.example/a?b=1&c=2" }],
    ["resize web-1 plan:<mailto:a@b.example|a@b.example>", { plan: "a@b.example" }],
    ["resize web-1 plan:O'Brien", { plan: "O'Brien" }],
    ["resize web-1 plan:a:b", { plan: "a:b" }],
    ['resize web-1 plan:""', { plan: "" }],
  ])("reads %j", (text, options) => {
    expect(parse(text)).toEqual(resized(options));
  });

  it.each(["--dry-run", "—dry-run", "–dry-run", "--Dry-Run"])("reads %s wherever it stands", (flag) => {
    expect(parse(`resize web-1 memory:8G ${flag}`)).toEqual({ ...resized({ memory: "8G" }), dryRun: true });
    expect(parse(`resize ${flag} web-1 memory:8G`)).toEqual({ ...resized({ memory: "8G" }), dryRun: true });
  });

  it("keeps a quoted flag and a quoted pair as text", () => {
    expect(parse('resize "--dry-run"').options).toEqual({ server: "--dry-run" });
    expect(parse('resize "memory:8G"').options).toEqual({ server: "memory:8G" });
  });

  it("takes addresses as bare words, not as pairs", () => {
    expect(parse("resize https://web-1.example").options).toEqual({ server: "https://web-1.example" });
    expect(parse("resize fe80::1").options).toEqual({ server: "fe80::1" });
  });

  it("keeps spaces inside quoted pairs of pairs", () => {
    const { options } = parse(
      'provision ada name:web-1 labels:env=prod,note="a b",x=1 plan:m image:debian-12',
    );
    expect(options["labels"]).toBe('env=prod,note="a b",x=1');
    expect(parseOptions(sampleAction("server.provision"), options, sam)).toMatchObject({
      labels: { env: "prod", note: "a b", x: "1" },
    });
  });

  it("finds two-level verbs and commands without a verb", () => {
    expect(parse("volume attach web-1 size:20G")).toMatchObject({
      action: "server.volume.attach",
      options: { server: "web-1", size: "20G" },
    });
    expect(parse("ABC-123", "link")).toMatchObject({ action: "link", options: { code: "ABC-123" } });
  });

  it.each([
    ["server", "", "server"],
    ["server", "help", "server"],
    ["server", "--help", "server"],
    ["server", "?", "server"],
    ["server", "help resize", "server.resize"],
    ["server", "resize help", "server.resize"],
    ["server", "resize --help", "server.resize"],
    ["server", "resize web-1 -h", "server.resize"],
    ["server", "volume", "server.volume"],
    ["server", "volume help", "server.volume"],
    ["help", "", ""],
    ["help", "/server resize", "server.resize"],
  ])("/%s %s asks for help about %j", (group, text, action) => {
    expect(parse(text, group)).toEqual({ action, options: {}, dryRun: false, help: true });
  });

  it.each([
    [
      "resiez web-1",
      "unknown_command",
      "There is no command /server resiez. Did you mean /server resize? /server knows list, provision, resize, power, delete and volume.",
    ],
    [
      "explode web-1",
      "unknown_command",
      "There is no command /server explode. /server knows list, provision, resize, power, delete and volume.",
    ],
    [
      "volume atach web-1",
      "unknown_command",
      "There is no command /server volume atach. Did you mean /server volume attach? /server volume knows attach.",
    ],
    [
      "memory:8G",
      "unknown_command",
      "Say what /server should do first; /server knows list, provision, resize, power, delete and volume.",
    ],
    ["resize web-1 8G", "invalid_input", '"8G" stands alone; say which option it is, for example memory:8G.'],
    [
      "resize web-1 large",
      "invalid_input",
      '"large" stands alone; say which option it is: plan:, memory:, cpu: or disk: before large.',
    ],
    [
      "power web-1 stop",
      "invalid_input",
      '"stop" stands alone; say which option it is, for example verb:stop.',
    ],
    ["resize web-1 memory=8G", "invalid_input", '"memory=8G" needs a colon; write memory:8G.'],
    [
      "provision ada name:my box",
      "invalid_input",
      '"box" stands alone; if it belongs to name, write name:"my box".',
    ],
    [
      "resize web-1 memory:8G memory:16G",
      "invalid_input",
      "memory is given twice, as memory:8G and memory:16G; keep one of them.",
    ],
    [
      "resize web-1 server:web-2",
      "invalid_input",
      "server is given twice, as server:web-1 and server:web-2; keep one of them.",
    ],
    ["resize web-1 memory: 8G", "invalid_input", "memory: has no value; write memory:8G, without a space."],
    ["resize web-1 memory:", "invalid_input", "memory: has no value; write one right after the colon."],
    ["resize web-1 --memory=8G", "invalid_input", "Options are written without dashes; write memory:8G."],
    ["resize web-1 --memory 8G", "invalid_input", "Options are written without dashes; write memory:8G."],
    ["resize web-1 --dryrun", "invalid_input", "There is no --dryrun; did you mean --dry-run?"],
    ["resize web-1 --yes", "invalid_input", "There is no --yes; there are --dry-run and --help."],
    [
      'resize web-1 plan:"a b',
      "invalid_input",
      'The quote before "a b is not closed; close it before the next space.',
    ],
    [
      "list web-1 state:active",
      "invalid_input",
      '"web-1" stands alone; say which option it is: state: before web-1.',
    ],
  ])("refuses %j", (text, code, message) => {
    const error = refused(text);
    expect(error.message).toBe(message);
    expect(error.code).toBe(code);
  });

  it("names the nearest command, and to a customer only a customer's", () => {
    expect(refused("", "sevrer").message).toBe(
      "There is no command /sevrer. Did you mean /server? The commands are /server, /ops, /link and /help.",
    );
    expect(refused("delte web-1").message).toContain("Did you mean /server delete?");
    expect(refused("delte web-1", "server", ada).message).not.toContain("delete");
    expect(refused("provision box bob", "server", ada).message).toBe(
      '"box" stands alone; say which option it is, for example name:box.',
    );
  });

  it("tells a customer nothing of a group that is staff's alone", () => {
    const staffOnly = registryOf([{ ...sampleAction("server.delete"), name: "sync.run" }]);
    expect(() => parseCommand("sync", "rnu", staffOnly, { principal: ada })).toThrow(
      /^There is no command \/sync rnu\.$/,
    );
  });

  it("reads back every value that it writes", () => {
    fc.assert(
      fc.property(fc.string({ unit: "grapheme", minLength: 1, maxLength: 15 }), (value) => {
        // What cleaning and Slack's unescaping change is not expected back.
        const text = plainText(value)
          .normalize("NFC")
          .replaceAll(/[\p{Cc}\p{Cf}\p{Zs}&<>]/gu, "")
          .trim();
        fc.pre(text !== "");
        expect(parse(`resize web-1 ${asTyped({ name: "plan" }, text)}`).options).toEqual({
          server: "web-1",
          plan: text,
        });
        expect(parse(`resize ${quotedIfNeeded(`a ${text}`)}`).options).toEqual({ server: `a ${text}` });
      }),
    );
  });

  it("answers any text with a command or a ServiceError", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (text) => {
        expect(outcome(`resize ${text}`)).toMatch(/^server|[.?]$/);
      }),
    );
  });
});
