/** The main job, as people do it. */
import { until } from "./report.ts";
import { buttonsOf, type Message } from "./slack.ts";
import { change, count, follow, press, remove, secretShown, showing, type, type World } from "./world.ts";

export async function connect(world: World): Promise<void> {
  const { report, slack, alice } = world;
  report.title("Connect: requests signed by Slack only, the first synchronisation");
  const probe = await slack.probe();
  for (const kind of ["wrongSecret", "stale", "unsigned", "tampered"]) {
    report.check(`a request with the signature "${kind}"`, 401, probe[kind]?.status);
  }
  await until("the first synchronisation", 60_000, async () => {
    const { text } = await alice.command("/sync status");
    return ["flavors", "images", "networks", "servers"].every((what) =>
      text.split("\n").some((row) => row.includes(what) && row.includes("completed")),
    );
  });
  const status = await type(world, alice, "/sync status");
  report.check("flavors", /flavors \| completed/, status.text);
}

export async function build(world: World): Promise<string> {
  const { report, alice, bob } = world;
  report.title("A server from one line; the same line typed again");
  const name = world.named("web");
  const line = `/server provision ${name} customer:ada plan:s image:debian-12`;
  const first = await type(world, alice, line);
  const again = await type(world, alice, line);
  report.check("the second answer names the first order", first.operation, again.operation);
  report.check("and says so", /^Already asked for/, again.text);
  const ended = await follow(world, first.operation, "provision");
  report.check("the card's end", "Done.", ended.outcome);
  const server = await count(world, { operation: first.operation, name, how: "typed twice" }, 1);
  report.check("its flavor in Nova", "m1.small", server?.flavor.original_name);
  report.check("an address on the card", /10\.20\.0\.\d+/, ended.text);
  const third = await type(world, alice, line);
  report.check("a third time, a link to the card", /archives\/C01OPS\/p\d+/, third.text);
  const refused = await press(world, bob, ended.card, "Show password once");
  report.check("another person's press", /Only the person who asked/, refused.text);
  const shown = await press(world, alice, ended.card, "Show password once");
  report.check("the password in the modal", true, secretShown(shown.text).length >= 16);
  await alice.close();
  report.check("the password in any message", false, await isPosted(world, secretShown(shown.text)));
  return name;
}

export async function fillForm(world: World): Promise<string> {
  const { report, alice } = world;
  report.title("A server from the form");
  const name = world.named("form");
  const opened = await type(world, alice, "/server provision");
  report.check("a form came up", true, opened.modal !== null);
  for (const [field, typed, wanted] of [
    ["customer", "ada", "ada"],
    ["plan", "", "t"],
    ["image", "deb", "debian-12"],
  ] as const) {
    const found = await alice.suggestions(field, typed);
    report.check(`suggestions of "${field}" for "${typed}"`, new RegExp(`"${wanted}"`), found);
  }
  report.did(alice.name, "submits the form with the name Bad_Name!");
  const entered = { customer: "ada", plan: "t", image: "debian-12" };
  const wrong = await alice.submit({ ...entered, name: "Bad_Name!" });
  report.check(
    "the error under its field",
    /letters, digits and hyphens/,
    wrong.errors["name"] ?? wrong.text,
  );
  report.did(alice.name, `submits the form with the name ${name}`);
  const before = new Set((await world.slack.messages("C01OPS", alice.id)).map((message) => message.ts));
  const sent = await alice.submit({ ...entered, name });
  report.check("the form is closed", true, sent.modal === null);
  const card = await until("the card of the form's order", 10_000, async () =>
    (await world.slack.messages("C01OPS", alice.id)).find(
      (message) => !before.has(message.ts) && !message.ephemeral && message.text.includes(name),
    ),
  );
  const operation = /op-[a-z0-9]+/i.exec(card.text)?.[0] ?? "";
  const ended = await follow(world, operation, "provision (form)");
  report.check("the card's end", "Done.", ended.outcome);
  await count(world, { operation, name, how: "form" }, 1);
  return name;
}

export async function look(world: World, name: string): Promise<void> {
  const { report, alice, carol } = world;
  report.title("List and show; what another customer sees of it");
  const list = await type(world, alice, `/server list ${name}`);
  report.check("its row", new RegExp(`${name} \\| srv-\\w+ \\| active \\| s \\| 10\\.20`), list.text);
  const show = await type(world, alice, `/server show ${name}`);
  report.check("its size", /1 vCPU, 2 GiB, 10 GiB disk/, show.text);
  const foreign = await type(world, carol, `/server show ${name}`, "C02SUPPORT");
  const unknown = await type(world, carol, "/server show no-such-server", "C02SUPPORT");
  const neutral = (text: string, typed: string) => text.replace(typed, "…");
  report.check(
    "a foreign server and an unknown one read the same",
    neutral(unknown.text, "no-such-server"),
    neutral(foreign.text, name),
  );
  const own = await type(world, carol, "/server list", "C02SUPPORT");
  report.check("her own list", /0 servers/, own.text);
}

export async function resize(world: World, name: string): Promise<void> {
  const { report, alice, bob, nova } = world;
  report.title("Resize, confirmed by the cloud; meanwhile the server is busy");
  const reply = await type(world, alice, `/server resize ${name} plan:m`);
  const card = await showing(world, reply.operation, /Waiting for the cloud/);
  const busy = await type(world, bob, `/server power ${name} action:stop`);
  report.check("another order on a busy server", new RegExp(`${reply.operation}.*holds it since`), busy.text);
  report.check("a button to cancel what cannot be stopped half-way", 0, buttonsOf(card).length);
  const late = await type(world, alice, `/ops cancel ${reply.operation}`);
  report.check("cancel in the middle of a resize", /Too late to cancel/, late.text);
  const ended = await follow(world, reply.operation, "resize");
  report.check("the card's end", "Done.", ended.outcome);
  report.check("what changed", /Memory: 2 GiB → 4 GiB/, ended.text);
  const [server] = await nova.named(name);
  report.check(
    "flavor and state in Nova",
    "m1.medium ACTIVE",
    `${server?.flavor.original_name} ${server?.status}`,
  );
}

export async function password(world: World, name: string): Promise<void> {
  const { report, alice } = world;
  report.title("A new password, shown once");
  const ended = await change(world, `/server password ${name}`, /^Done\.$/);
  const shown = await press(world, alice, ended.card, "Show password once");
  const secret = secretShown(shown.text);
  report.check("the password in the modal", true, secret.length >= 16);
  await alice.close();
  const again = await press(world, alice, ended.card, "Show password once");
  report.check("a second press", /used .*already|no longer/, again.text);
  report.check("the password in any message", false, await isPosted(world, secret));
  const gone = await until("the card without its button", 10_000, async () => {
    const card = await world.slack.card(ended.operation, alice.id);
    return card !== undefined && buttonsOf(card).length === 0 && card;
  });
  report.check("the card's buttons afterwards", 0, buttonsOf(gone).length);
}

/** Everything that anybody can read in the channel. */
async function isPosted(world: World, secret: string): Promise<boolean> {
  const all = await world.slack.messages("C01OPS", world.alice.id);
  return all.some((message: Message) => JSON.stringify(message).includes(secret));
}

export async function power(world: World, name: string): Promise<void> {
  const { report, nova, alice } = world;
  report.title("Power");
  const status = async () => (await nova.named(name))[0]?.status;
  await change(world, `/server power ${name} action:stop`, /^Done\.$/);
  report.check("its state in Nova", "SHUTOFF", await status());
  const nothing = await type(world, alice, `/server power ${name} action:stop`);
  report.check("stopping it again", /Nothing to change/, nothing.text);
  await change(world, `/server power ${name} action:start`, /^Done\.$/);
  report.check("its state in Nova", "ACTIVE", await status());
  await change(world, `/server power ${name} action:reboot`, /^Done\.$/);
  report.check("its state in Nova", "ACTIVE", await status());
}

export async function cancel(world: World): Promise<void> {
  const { report, alice, bob } = world;
  report.title("Cancel a slow build with its button");
  const name = world.named("slow");
  const reply = await type(
    world,
    alice,
    `/server provision ${name} customer:ada plan:t image:debian-12 metadata:osr_delay=20`,
  );
  const card = await showing(world, reply.operation, /starting the server|preparing/);
  const held = await type(world, bob, `/server power ${name} action:stop`);
  report.check("another order on it", new RegExp(`${reply.operation}.*holds it since`), held.text);
  await press(world, alice, card, "Cancel");
  const ended = await follow(world, reply.operation, "cancel a build");
  report.check("the card's end", "Cancelled.", ended.outcome);
  report.check("the thread on what is left", /Cancelled\. Nothing of it is left in the cloud/, ended.thread);
  await count(world, { operation: reply.operation, name, how: "cancelled" }, 0);
}

export async function badInputs(world: World, name: string): Promise<void> {
  const { report, alice, bob } = world;
  report.title("What cannot be done is refused with the way out");
  const wrong: [string, RegExp][] = [
    [`/server resize ${name} memory:8X`, /memory.*unknown unit "X".*8G/i],
    ["/server show wbe-nothing", /No server "wbe-nothing"/],
    [`/server resize ${name} plan:s`, /A disk cannot shrink/],
    [`/server resize ${name} plan:m`, /Nothing to change/],
    [`/server resize ${name} memory:8`, /needs a unit/],
    [`/server provision ${name} customer:ada plan:t image:debian-12`, /has a server called/],
    ["/server provision x-1 customer:ada plan:huge image:debian-12", /plan "huge"/i],
    ["/server provision x-1 customer:ada plan:t image:ubuntu-24.04", /too small/],
    ["/server restart web", /There is no command \/server restart/],
    [`/server power ${name} action:explode`, /not one of the choices/],
  ];
  for (const [line, expected] of wrong) {
    const reply = await type(world, alice, line);
    report.check(line, expected, reply.text);
    if (reply.modal !== null) await alice.close();
  }
  const forbidden = await type(world, bob, `/server delete ${name}`);
  report.check("an operator's delete", /role admin/, forbidden.text);
}

export async function removeAsked(world: World, name: string): Promise<void> {
  const { report, alice, bob } = world;
  report.title("Delete, after a confirmation that is not anybody's to give");
  const reply = await type(world, alice, `/server delete ${name}`);
  const card = await showing(world, reply.operation, /Waiting for confirmation/);
  const dialog = buttonsOf(card).find((button) => button.label === "Confirm")?.confirm ?? "";
  report.check(
    "the dialog names the server and its customer",
    new RegExp(`${name} \\(srv-\\w+\\) of Ada`),
    dialog,
  );
  const refused = await press(world, bob, card, "Confirm");
  report.check("an operator's confirmation", /role admin/, refused.text);
  await press(world, alice, card, "Cancel");
  const cancelled = await follow(world, reply.operation, "cancel before confirmation");
  report.check("the card's end", /^Cancelled/, cancelled.outcome);
  report.check("its servers in Nova", 1, (await world.nova.named(name)).length);
  await remove(world, name);
}
