import { pino } from "pino";
import { describe, expect, it } from "vitest";
import { createConsoleBot } from "../../../src/bots/console/bot.ts";
import { parsePrincipalFlag } from "../../../src/bots/console/principal-flag.ts";
import { ChatError } from "../../../src/core/bot.ts";
import { isServiceError } from "../../../src/core/errors.ts";
import { sampleRegistry } from "../../support/sample-actions.ts";
import { ada, cancelButton, createFakeEntrance, sam } from "./fake-entrance.ts";
import { createTerminal } from "./terminal.ts";

function open(options: { columns?: number; tty?: boolean } = {}) {
  const terminal = createTerminal(options);
  const fake = createFakeEntrance();
  let nowMs = 0;
  const bot = createConsoleBot({
    entrance: fake.entrance,
    registry: sampleRegistry,
    principal: sam,
    identify: async ({ name }) => (name === "ada" ? ada : null),
    stateOf: fake.stateOf,
    input: terminal.input,
    output: terminal.output,
    log: pino({ level: "silent" }),
    color: false,
    now: () => nowMs,
  });
  fake.messenger = bot.messenger;
  return {
    ...terminal,
    fake,
    bot,
    pass: (ms: number) => {
      nowMs += ms;
    },
    prompt: () => terminal.until((screen) => screen.endsWith("ratatosk>")),
  };
}

/** Without the spaces and breaks that a narrow terminal moves. */
const plain = (text: string) => text.replaceAll(/\s+/g, "");
const running = (label: string, detail?: string) =>
  ({ label, state: "running", ...(detail === undefined ? {} : { detail }) }) as const;
const done = (label: string, detail: string) => ({ label, state: "done", detail }) as const;
const planned = (label: string) => ({ label, state: "planned" }) as const;

describe("a terminal", () => {
  it("runs commands and shows the card, its changes and its end", async () => {
    const { bot, fake, type, until, prompt, pass, screen, raw } = open();
    const ended = bot.run();
    await prompt();
    type("server resize web-1 memory:8G\r");
    await until((text) => text.includes("op-1 is on its way."));
    await prompt();
    expect(fake.requests[0]).toMatchObject({
      action: "server.resize",
      options: { server: "web-1", memory: "8G" },
      principal: sam,
      source: "console",
      origin: { platform: "console", userId: "sam" },
    });
    expect(fake.requests[0]?.idempotencyKey).toMatch(/^console:[0-9a-f-]{36}$/);

    pass(1_000);
    await fake.move("running", { steps: [running("Check"), planned("Resize")] });
    pass(2_000);
    await fake.move("waiting", {
      text: "Waiting for the cloud.",
      steps: [done("Check", "2 s"), running("Resize", "copying, 1 %")],
    });
    pass(1_000);
    await fake.move("waiting", { steps: [done("Check", "2 s"), running("Resize", "copying, 2 %")] });
    pass(10_000);
    await fake.move("waiting", { steps: [done("Check", "2 s"), running("Resize", "copying, 90 %")] });
    pass(1_000);
    await fake.move("succeeded", {
      tone: "success",
      text: "Done.",
      fields: [{ label: "Addresses", value: "203.0.113.7" }],
      steps: [done("Check", "2 s"), done("Resize", "12 s")],
      buttons: [],
    });
    await prompt();
    const shown = screen();
    const card = shown.slice(shown.indexOf("● #1"));
    expect(card.split("\n").filter((line) => line.trim() !== "")).toEqual([
      "● #1 Resize web-1",
      "  Running.",
      "  · Check",
      "  · Resize",
      "  [1] Cancel",
      "  op-1",
      "● op-1 is on its way.",
      "  #1      1 s  ▸ Check",
      "  #1      3 s  ✓ Check  2 s",
      "  #1      3 s  ▸ Resize  copying, 1 %",
      "  #1     14 s  ▸ Resize  copying, 90 %",
      "  #1     15 s  ✓ Resize  12 s",
      "✓ #1 Resize web-1",
      "  Done.",
      "  Addresses  203.0.113.7",
      "  op-1",
      "ratatosk>",
    ]);
    expect(raw()).not.toContain("secret-token");
    type("exit\r");
    expect(await ended).toBe(0);
    expect(bot.status()).toEqual({ ok: false, detail: "ended" });
  });

  it.each([80, 40, 25])("keeps the line that is being typed whole at %i columns", async (columns) => {
    const { bot, fake, type, until, prompt } = open({ columns });
    void bot.run();
    await prompt();
    type("server resize web-1 memory:8G\r");
    await until((text) => text.includes("Cancel") && text.endsWith("ratatosk>"));
    const typing = "server provision ada name:web-2 plan:medium";
    type(typing);
    const ends = (text: string) => text.replaceAll("\n", "").endsWith(typing);
    await until(ends);
    await Promise.all([
      fake.move("running", { steps: [running("Check"), planned("Resize")] }),
      fake.move("running", { steps: [done("Check", "1 s"), running("Resize")] }),
    ]);
    await fake.move("running", { steps: [done("Check", "1 s"), done("Resize", "1 s")] });
    const screen = await until(ends);
    for (const line of ["▸ Check", "✓ Check  1 s", "▸ Resize", "✓ Resize  1 s"])
      expect(plain(screen)).toContain(plain(line));
    // No copy of the half-typed line stays behind.
    expect(plain(screen).split("serverprovision")).toHaveLength(2);
    await bot.stop();
  });

  it("presses buttons by number or label, and tells which there are", async () => {
    const { bot, fake, type, until, prompt } = open();
    void bot.run();
    await prompt();
    type("server resize web-1 memory:8G\r");
    await until((text) => text.includes("[1] Cancel") && text.endsWith("ratatosk>"));
    type("!7\r");
    await until((text) => text.includes("There is no button [7] now; there are !1 Cancel."));
    type("!1\r");
    await until((text) => text.includes("✓ Pressed"));
    type("!cancel\r");
    await until((text) => text.split("✓ Pressed").length === 3);
    expect(fake.pressed).toEqual([cancelButton.token, cancelButton.token]);
    await bot.stop();
  });

  it("asks before a button that asks, and presses only on yes", async () => {
    const { bot, fake, type, until, prompt } = open();
    void bot.run();
    await prompt();
    type("server resize web-1 memory:8G\r");
    await until((text) => text.includes("[1] Cancel") && text.endsWith("ratatosk>"));
    const confirm = { title: "Sure?", text: "web-1 of Ada.", yes: "Yes, do it", no: "No" };
    await fake.move("awaiting_confirmation", { buttons: [{ ...cancelButton, label: "Confirm", confirm }] });
    type("!1\r");
    await until((text) => text.endsWith("Type yes or no:"));
    type("no\r");
    await until((text) => text.includes("nothing was done"));
    expect(fake.pressed).toEqual([]);
    type("!1\r");
    await until((text) => text.endsWith("Type yes or no:"));
    type("yes\r");
    await until((text) => text.includes("✓ Pressed"));
    expect(fake.pressed).toHaveLength(1);
    await bot.stop();
  });

  it("shows a secret once and burns it after it was written", async () => {
    const { bot, fake, type, until, prompt, raw } = open();
    void bot.run();
    await prompt();
    type("server resize web-1 memory:8G\r");
    await until((text) => text.includes("[1] Cancel") && text.endsWith("ratatosk>"));
    const reveal = {
      ...cancelButton,
      token: "reveal-token",
      label: "Show password once",
      purpose: "reveal",
    } as const;
    await fake.move("succeeded", { tone: "success", text: "Done.", buttons: [reveal] });
    await until((text) => text.includes("[2] Show password once"));
    type("!2\r");
    await until((text) => text.includes("Shown this once and deleted now.") && text.endsWith("ratatosk>"));
    expect(fake.burnt).toEqual(["reveal-token"]);
    expect(fake.released).toEqual([]);
    expect(raw().split("correct-horse").length).toBe(2);
    await bot.stop();
  });

  it("asks for what is missing, and again for what is wrong", async () => {
    const { bot, fake, type, until, prompt } = open();
    void bot.run();
    await prompt();
    type("server power\r");
    await until((text) => text.endsWith("Server:"));
    type("web\r");
    await until((text) => text.includes("2  web-2") && text.endsWith("Server:"));
    type("2\r");
    await until((text) => text.includes("4  Reboot") && text.endsWith("What to do:"));
    type("\r");
    await until((text) => text.includes("This one is needed"));
    type("explode\r");
    await until((text) => text.includes("✗ verb:explode is not one of the choices"));
    await until((text) => text.endsWith("What to do:"));
    type("2\r");
    await until((text) => text.includes("op-1 is on its way."));
    expect(fake.requests.at(-1)?.options).toEqual({ server: "srv-of-web-2", verb: "stop" });
    const keys = fake.requests.map(({ idempotencyKey }) => idempotencyKey);
    expect(new Set(keys).size).toBe(1);
    await bot.stop();
  });

  it("stops asking on Ctrl+C, drops a half-typed line, and leaves when pressed twice", async () => {
    const { bot, fake, type, until, prompt } = open();
    const ended = bot.run();
    await prompt();
    type("server power\r");
    await until((text) => text.endsWith("Server:"));
    type("\u0003");
    await until((text) => text.includes("Nothing was done.") && text.endsWith("ratatosk>"));
    type("server list");
    await until((text) => text.endsWith("server list"));
    type("\u0003");
    await until((text) => text.endsWith("\nratatosk>"));
    type("\u0003");
    await until((text) => text.includes("Ctrl+C again, or exit, leaves.") && text.endsWith("ratatosk>"));
    type("\u0003");
    expect(await ended).toBe(0);
    expect(fake.requests).toHaveLength(1);
  });

  it("completes commands, options and look-ups", async () => {
    const { bot, type, until, prompt } = open();
    void bot.run();
    await prompt();
    const steps: [string, string][] = [
      ["ser\t", "server"],
      ["res\t", "server resize"],
      ["db\t", "server resize db-1"],
      ["mem\t", "server resize db-1 memory:"],
      ["8G pl\t", "server resize db-1 memory:8G plan:"],
      ["m\t", "server resize db-1 memory:8G plan:medium"],
      ["--\t", "server resize db-1 memory:8G plan:medium --dry-run"],
    ];
    for (const [keys, line] of steps) {
      type(keys);
      expect(await until((text) => text.endsWith(`ratatosk> ${line}`))).toContain(line);
    }
    await bot.stop();
  });

  it("completes a server by its public id, too", async () => {
    const { bot, type, until, prompt } = open();
    void bot.run();
    await prompt();
    type("server resize srv-of-d\t");
    expect(await until((text) => text.endsWith("ratatosk> server resize srv-of-db-1"))).toContain(
      "srv-of-db-1",
    );
    await bot.stop();
  });

  it("changes hands only to people it knows", async () => {
    const { bot, fake, type, until, prompt } = open();
    void bot.run();
    await prompt();
    type("as staff:eve\r");
    await until((text) =>
      text.includes('Nobody is configured as a staff member "eve"; you stay who you are.'),
    );
    type("as customer:ada\r");
    await until((text) => text.includes("You are Ada (customer) now."));
    type("server delete web-1\r");
    type("server list\r");
    await until((text) => text.includes("web-1 is here."));
    expect(fake.requests.at(-1)?.principal).toEqual(ada);
    await bot.stop();
  });

  it("shows staff's details to staff only, and never a stack", async () => {
    const { bot, fake, type, until, prompt, raw } = open();
    void bot.run();
    await prompt();
    type("server resize foreign memory:8G\r");
    await until((text) => text.includes("request id req-1"));
    fake.entrance.dispatch = async () => {
      throw new Error("password=hunter2");
    };
    type("server list\r");
    await until((text) => text.includes("Something went wrong on our side"));
    expect(raw()).not.toContain("hunter2");
    await bot.stop();
  });
});

describe("the messenger", () => {
  it("says that cards of an earlier console are gone, posts once per key, and tells lines once", async () => {
    const { bot, screen } = open();
    const target = { workspace: "local", channel: "x", userId: "sam" };
    const view = { title: "Card", tone: "progress" } as const;
    const { messenger } = bot;
    await expect(messenger.editCard(target, "old:1", view)).rejects.toMatchObject({ kind: "gone" });
    const handle = await messenger.postCard(target, view, "key");
    expect(await messenger.postCard(target, view, "key")).toBe(handle);
    const line = { at: new Date(0), level: "info", text: "Hello\u001b[2J\nthere" } as const;
    await messenger.postLines(target, handle, [line], { mention: true, key: "l1" });
    await messenger.postLines(target, handle, [line], { mention: true, key: "l1" });
    expect(screen().match(/Card|│.*/g)).toEqual(["Card", "│ Hello[2J", "│ there", "│ @sam"]);
  });

  it("reports a closed terminal as unavailable", async () => {
    const { bot, output } = open();
    output.destroy();
    const posted = bot.messenger.postCard(
      { workspace: "local", channel: "x", userId: null },
      { title: "C", tone: "neutral" },
      "k",
    );
    await expect(posted).rejects.toBeInstanceOf(ChatError);
    await expect(posted).rejects.toMatchObject({ kind: "unavailable" });
  });
});

describe("a pipe", () => {
  async function piped(lines: string[], prepare?: (opened: ReturnType<typeof open>) => void) {
    const opened = open({ tty: false });
    prepare?.(opened);
    opened.input.end(`${lines.join("\n")}\n`);
    return { ...opened, code: await opened.bot.run() };
  }

  it("runs each line after the one before has ended", async () => {
    const { code, fake, screen } = await piped(
      ["# comment", "", "server resize web-1 memory:8G", "server list"],
      ({ fake: entrance }) => {
        const post = entrance.onEntered;
        entrance.onEntered = async (operation) => {
          await post(operation);
          setImmediate(() => {
            void entrance.move("succeeded", { tone: "success", text: "Done.", buttons: [] }).then(() =>
              entrance.messenger?.postLines(operation.target, operation.handle ?? "", [], {
                mention: true,
                key: "end",
              }),
            );
          });
        };
      },
    );
    expect(code).toBe(0);
    expect(fake.requests.map(({ action }) => action)).toEqual(["server.resize", "server.list"]);
    const text = screen();
    expect(text.indexOf("Done.")).toBeLessThan(text.indexOf("> server list"));
    expect(text.indexOf("@sam")).toBeLessThan(text.indexOf("> server list"));
  });

  it("fails for a refused command, a missing option and a failed operation, and goes on", async () => {
    const refused = await piped(["server resize web-1 memory:8", "server list"]);
    expect(refused.code).toBe(1);
    expect(refused.screen()).toContain("✗ memory:8 needs a unit; write memory:8G (or memory:8M).");
    expect(refused.screen()).toContain("web-1 is here.");

    const missing = await piped(["server power web-1"]);
    expect(missing.code).toBe(1);
    expect(missing.screen()).toContain("/server power needs verb; write verb:….");

    const failed = await piped(["server resize web-1 memory:8G"], ({ fake }) => {
      const post = fake.onEntered;
      fake.onEntered = async (operation) => {
        await post(operation);
        await fake.move("failed", { tone: "error", text: "Failed: no room.", buttons: [] });
        await fake.messenger?.postLines(operation.target, operation.handle ?? "", [], {
          mention: true,
          key: "end",
        });
      };
    });
    expect(failed.code).toBe(1);
    expect(failed.screen()).toContain("Failed: no room.");
  });

  it("presses a confirmation only when the script says yes, and names what still waits", async () => {
    const prepare = ({ fake }: ReturnType<typeof open>) => {
      const post = fake.onEntered;
      const confirm = { title: "Sure?", text: "It is lost.", yes: "Yes", no: "No" };
      fake.onEntered = async (operation) => {
        operation.state = "awaiting_confirmation";
        operation.view = {
          ...operation.view,
          tone: "warning",
          buttons: [{ ...cancelButton, label: "Confirm", confirm }],
        };
        await post(operation);
      };
      fake.entrance.press = async (token) => {
        fake.pressed.push(token);
        await fake.move("cancelled", { tone: "warning", text: "Cancelled.", buttons: [] });
        const { target, handle } = fake.newest();
        await fake.messenger?.postLines(target, handle ?? "", [], { mention: true, key: "end" });
        return { kind: "view", view: { title: "Pressed", tone: "success" } };
      };
    };
    const unsure = await piped(["server delete web-1", "!1"], prepare);
    expect(unsure.code).toBe(1);
    expect(unsure.fake.pressed).toEqual([]);
    expect(unsure.screen()).toContain("write !1 yes to press it from a script");
    expect(unsure.screen()).toContain("op-1 still waits for somebody's decision.");

    const sure = await piped(["server delete web-1", "!confirm yes"], prepare);
    expect(sure.fake.pressed).toHaveLength(1);
    expect(sure.screen()).not.toContain("still waits");
    expect(sure.code).toBe(1);
  });
});

describe("parsePrincipalFlag", () => {
  it.each([
    ["staff:sam", { kind: "staff", name: "sam" }],
    ["Customer: Ada Lovelace ", { kind: "customer", name: "Ada Lovelace" }],
  ])("reads %s", (text, expected) => {
    expect(parsePrincipalFlag(text)).toEqual(expected);
  });

  it.each(["sam", "root:sam", "staff:", ""])("refuses %j", (text) => {
    let caught: unknown;
    try {
      parsePrincipalFlag(text);
    } catch (error) {
      caught = error;
    }
    expect(isServiceError(caught, "invalid_input")).toBe(true);
  });
});
