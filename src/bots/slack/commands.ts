/** Slash commands: one request each, answered in the acknowledgement itself when there is time. */
import type { AckFn, RespondArguments, RespondFn, SlashCommand } from "@slack/bolt";
import type { Principal } from "../../core/access.ts";
import { helpView } from "../../core/help.ts";
import { LINK } from "../../core/people/link.ts";
import { parseCommand } from "../command.ts";
import { late, within } from "../deadline.ts";
import { acknowledge, openModal, placeOf, type SlackContext } from "./context.ts";
import { renderView, type SlackMessage } from "./message.ts";
import { identify, type Sender, workspaceOf } from "./person.ts";
import { notLinked, problemReply, type Reply, replyTo, sentence } from "./reply.ts";

export interface CommandArgs {
  command: SlashCommand;
  ack: AckFn<string | RespondArguments>;
  respond: RespondFn;
}

export async function handleCommand(
  context: SlackContext,
  { command, ack, respond }: CommandArgs,
): Promise<void> {
  const work = answer(context, command);
  const inTime = await within(work, context.ackBudgetMs);
  // Needs no call to Slack, no membership in the channel, and has no rate limit.
  const said = inTime !== late && inTime.kind === "message" ? inTime.message : undefined;
  const taken = await acknowledge(context, () =>
    ack(said === undefined ? undefined : { response_type: "ephemeral", ...said }),
  );
  if (taken && said !== undefined) return;
  const reply = await work;
  const message =
    reply.kind === "message" ? reply.message : await openModal(context, command.trigger_id, reply.modal);
  if (message !== undefined) await respond({ response_type: "ephemeral", ...message });
}

async function answer(context: SlackContext, command: SlashCommand): Promise<Reply> {
  let principal: Principal | null = null;
  try {
    const sender = senderOf(command);
    principal = await identify(context.entrance, sender);
    const group = groupOf(command.command, context.commandPrefix);
    if (principal === null)
      return { kind: "message", message: await answerStranger(context, command, group) };

    const parsed = parseCommand(group, command.text, context.registry, { principal });
    const { action, options, dryRun } = parsed;
    if (parsed.help) {
      return { kind: "message", message: renderView(helpView(context.registry, principal, action)) };
    }
    const place = placeOf(context, { sender, principal }, { channel: command.channel_id, dryRun });
    const dispatched = await context.entrance.dispatch({
      action,
      options,
      principal,
      source: "slack",
      // The same signed request again (a retry, a replay) has the same trigger_id, and so the same operation.
      idempotencyKey: `slack:${workspaceOf(sender)}:${command.trigger_id}`,
      origin: place.origin,
      dryRun,
    });
    return await replyTo(dispatched, place.whereabouts);
  } catch (error) {
    return { kind: "message", message: problemReply(error, principal, context.log) };
  }
}

/** A stranger may be linked, and nothing else. */
async function answerStranger(
  { entrance, registry, commandPrefix }: SlackContext,
  { user_id: userId, text, command }: SlashCommand,
  group: string,
): Promise<SlackMessage> {
  if (group !== LINK) return notLinked(userId, commandPrefix);
  const { options } = parseCommand(LINK, text, registry);
  const code = options["code"] ?? "";
  if (code === "")
    return sentence(`Write the code that you were given behind the command: ${command} code:…`);
  return renderView(await entrance.link({ platform: "slack", userId }, code));
}

/** "/rt-server" → "server". */
function groupOf(command: string, prefix: string): string {
  const name = command.replace(/^\//u, "");
  return name.startsWith(prefix) ? name.slice(prefix.length) : name;
}

function senderOf({ user_id, team_id, enterprise_id }: SlashCommand): Sender {
  return {
    user: { id: user_id },
    team: { id: team_id },
    enterprise: enterprise_id === undefined ? null : { id: enterprise_id },
  };
}
