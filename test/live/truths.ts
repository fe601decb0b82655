/** Five ways in which a cloud fails: the thread has to tell the truth, and nothing may be left behind unmentioned. */
import { beginOutage } from "./outage.ts";
import { until } from "./report.ts";
import { visible } from "./slack.ts";
import { change, count, follow, press, provision, remove, showing, type, type World } from "./world.ts";

export async function failedBuild(world: World): Promise<void> {
  const { report, alice } = world;
  report.title("Truth 1: the build fails in the cloud (osr_fail=spawn)");
  const name = world.named("t1");
  const reply = await type(
    world,
    alice,
    `/server provision ${name} customer:ada plan:t image:debian-12 metadata:osr_fail=spawn`,
  );
  const ended = await follow(world, reply.operation, "a build that fails", 90_000);
  report.check("the card's end", /^Failed: The cloud tried to build the server on every host/, ended.outcome);
  report.check("the thread on what is left", /Nothing of it is left in the cloud/, ended.thread);
  await count(world, { operation: reply.operation, name, how: "fails" }, 0);
  const list = await type(world, alice, `/server list ${name}`);
  report.check("our own list", /No server matches/, list.text);
  const retried = await press(world, alice, ended.card, "Retry");
  const again = await follow(
    world,
    otherThan(reply.operation, retried.text),
    "the same, tried again",
    90_000,
  );
  report.check("tried again, it fails again", /^Failed:/, again.outcome);
  await count(world, { operation: again.operation, name, how: "fails, retried" }, 0);
}

function otherThan(operation: string, text: string): string {
  const found = text.match(/op-[a-z0-9]+/gi)?.find((one) => one !== operation);
  if (found === undefined) throw new Error(`no new operation in: ${text}`);
  return found;
}

export async function failedResize(world: World): Promise<void> {
  const { report, alice, nova } = world;
  report.title("Truth 2: the resize fails in the cloud (osr_fail=resize), is repaired there and tried again");
  const name = world.named("t2");
  const { server } = await provision(world, name, { metadata: "osr_fail=resize" });
  const ended = await change(world, `/server resize ${name} plan:s`, /^Failed:/);
  const [after] = await nova.named(name);
  report.check("its flavor in Nova", /m1\.(tiny|small)/, after?.flavor.original_name ?? "");
  report.note(`Nova says: ${after?.status} ${after?.flavor.original_name}`);
  const shown = await type(world, alice, `/server show ${name}`);
  report.check(
    "our own view of it",
    after?.status === "ERROR" ? /State: error/ : /State: active/,
    shown.text,
  );
  // A host that gave up in the middle leaves ERROR, in which Nova changes no metadata.
  if (after?.status === "ERROR") await change(world, `/server power ${name} action:reset`, /^Done\.$/);
  await nova.removeMetadata(server.id, "osr_fail");
  report.note("An operator repairs the cloud (the metadata osr_fail is taken away).");
  const retried = await press(world, alice, ended.card, "Retry");
  const again = await follow(world, otherThan(ended.operation, retried.text), "a failed resize, tried again");
  report.check("tried again, the card's end", "Done.", again.outcome);
  const [grown] = await nova.named(name);
  report.check(
    "flavor and state in Nova",
    "m1.small ACTIVE",
    `${grown?.flavor.original_name} ${grown?.status}`,
  );
  await remove(world, name);
}

export async function noAgent(world: World): Promise<void> {
  const { report } = world;
  report.title("Truth 3: no guest agent, so no password can be set (osr_no_agent=1)");
  const name = world.named("t3");
  await provision(world, name, { metadata: "osr_no_agent=1" });
  const ended = await change(world, `/server password ${name}`, /^Failed: The cloud cannot set a password/);
  report.check("a way out", /SSH|console/, ended.outcome);
  report.check("the thread on the old password", /old password/i, ended.thread);
  report.check("a button that shows a password", false, /Show password/.test(ended.text));
  await remove(world, name);
}

/** One server is being built and one is ordered while nobody answers. */
export async function computeAway(world: World): Promise<void> {
  const { report, alice } = world;
  report.title("Truth 4: nova-api is stopped while one server is being built and another is ordered");
  const building = world.named("t4a");
  const ordered = world.named("t4b");
  const first = await type(
    world,
    alice,
    `/server provision ${building} customer:ada plan:t image:debian-12 metadata:osr_delay=10`,
  );
  await showing(world, first.operation, /starting the server|preparing/);
  const from = performance.now();
  const outage = beginOutage("nova-api", "kill");
  let second: string;
  try {
    report.note("nova-api is stopped.");
    const reply = await type(
      world,
      alice,
      `/server provision ${ordered} customer:ada plan:t image:debian-12`,
    );
    second = reply.operation;
    await sayMeanwhile(world, second, /Nothing was done; trying again/);
  } finally {
    await outage.end();
    report.note(`nova-api is back after ${((performance.now() - from) / 1000).toFixed(0)} s.`);
  }
  const one = await follow(world, first.operation, "a build across an outage", 120_000);
  report.check("the one that was being built", "Done.", one.outcome);
  await count(world, { operation: first.operation, name: building, how: "nova-api away" }, 1);
  const two = await follow(world, second, "an order in an outage", 150_000);
  report.check("the one that was ordered", "Done.", two.outcome);
  await count(world, { operation: second, name: ordered, how: "nova-api away" }, 1);
  await remove(world, building);
  await remove(world, ordered);
}

/** The thread's words while it lasts. */
async function sayMeanwhile(world: World, operation: string, expected: RegExp): Promise<void> {
  const { report, slack, alice } = world;
  const thread = await until(`${String(expected)} in the thread of ${operation}`, 60_000, async () => {
    const card = await slack.card(operation, alice.id);
    const lines = card === undefined ? [] : await slack.thread(card, alice.id);
    return lines.some((line) => expected.test(line)) && lines.join("\n");
  }).catch((error: unknown) => String(error));
  // Read after the thread: the card is brought up to date before it.
  const card = await slack.card(operation, alice.id);
  const shown = card === undefined ? "no card" : visible(card);
  report.note(`the card of ${operation} meanwhile:`);
  report.saw(shown);
  report.note("its thread:");
  report.saw(thread);
  report.check("the thread tells it", expected, thread);
  report.check("and the card", /· (not possible yet, )?trying again/, shown);
}

/** The program starts anew, so that it has no token, and finds an identity service that answers nothing. */
export async function identityHung(world: World): Promise<void> {
  const { report, alice } = world;
  report.title("Truth 5: Keystone hangs, and the program has no token");
  const name = world.named("t5");
  const from = performance.now();
  const outage = beginOutage("keystone", "hang");
  let operation: string;
  try {
    report.note("Keystone is stopped in the middle (SIGSTOP); the program is restarted.");
    await world.restart();
    const reply = await type(world, alice, `/server provision ${name} customer:ada plan:t image:debian-12`);
    operation = reply.operation;
    await sayMeanwhile(world, operation, /Nothing was done; trying again/);
  } finally {
    await outage.end();
    report.note(`Keystone goes on after ${((performance.now() - from) / 1000).toFixed(0)} s.`);
  }
  const ended = await follow(world, operation, "an order while Keystone hangs", 150_000);
  report.check("the card's end", "Done.", ended.outcome);
  await count(world, { operation, name, how: "keystone hung" }, 1);
  await remove(world, name);
}
