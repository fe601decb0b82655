/**
 * The registry → Discord's application commands. One set serves staff and customers: who may run what is decided when
 * it is run. Limits: commands-lint.ts.
 * https://docs.discord.com/developers/interactions/application-commands
 */
import { z } from "zod";
import type { Action, ActionRegistry, Option } from "../../core/action.ts";

/** ApplicationCommandOptionType. */
export const optionTypes = {
  subcommand: 1,
  group: 2,
  string: 3,
  integer: 4,
  boolean: 5,
  number: 10,
} as const;

export interface DiscordChoice {
  name: string;
  value: string | number;
}

export interface DiscordOption {
  type: (typeof optionTypes)[keyof typeof optionTypes];
  name: string;
  description: string;
  required?: boolean;
  autocomplete?: boolean;
  choices?: DiscordChoice[];
  min_value?: number;
  max_value?: number;
  options?: DiscordOption[];
}

export interface DiscordCommand {
  /** CHAT_INPUT. */
  type: 1;
  name: string;
  description: string;
  options?: DiscordOption[];
}

/** What `--dry-run` is on Discord: a yes/no option of every operation, not one of the action's own. */
export const dryRunOption = "dry-run";
/** The only option of `/help`: a group or command, autocompleted from help. */
export const helpTopicOption = "topic";

const mostChoices = 25;
const longestDescription = 100;

/**
 * In the registry's order, `/help` last. Throws Error when the registry has names that Discord cannot express: a
 * command that is both run by itself and has verbs, or verbs of more than two levels.
 */
export function discordCommands(registry: Pick<ActionRegistry, "list">): DiscordCommand[] {
  const groups = Map.groupBy(registry.list(), (action) => action.name.split(".")[0] ?? action.name);
  const commands = [...groups].map(([name, actions]) => commandOfGroup(name, actions));
  if (!groups.has("help")) commands.push(helpCommand());
  return commands;
}

function helpCommand(): DiscordCommand {
  const topic: DiscordOption = {
    type: optionTypes.string,
    name: helpTopicOption,
    description: "A command, for example: server resize",
    autocomplete: true,
  };
  return { type: 1, name: "help", description: "What you can do here", options: [topic] };
}

function commandOfGroup(name: string, actions: readonly Action[]): DiscordCommand {
  const own = actions.find((action) => action.name === name);
  if (own !== undefined) {
    if (actions.length > 1) throw new Error(`/${name} has verbs, so Discord cannot run it by itself`);
    return withOptions({ type: 1, name, description: own.summary }, optionsOf(own));
  }
  const options: DiscordOption[] = [];
  for (const action of actions) addVerb(options, action);
  return { type: 1, name, description: summaryOf(options), options };
}

function addVerb(options: DiscordOption[], action: Action): void {
  const [, verb = "", inner, ...deeper] = action.name.split(".");
  if (deeper.length > 0) throw new Error(`${action.name} has more levels than a Discord command`);
  if (inner === undefined) {
    options.push(subcommand(verb, action));
    return;
  }
  let group = options.find((option) => option.name === verb);
  if (group === undefined) {
    group = { type: optionTypes.group, name: verb, description: "", options: [] };
    options.push(group);
  }
  if (group.options === undefined || group.type !== optionTypes.group) {
    throw new Error(`${action.name} stands below a verb, so Discord cannot run that verb by itself`);
  }
  group.options.push(subcommand(inner, action));
  group.description = summaryOf(group.options);
}

function subcommand(name: string, action: Action): DiscordOption {
  return withOptions({ type: optionTypes.subcommand, name, description: action.summary }, optionsOf(action));
}

function withOptions<Holder extends DiscordCommand | DiscordOption>(
  holder: Holder,
  options: DiscordOption[],
): Holder {
  if (options.length > 0) holder.options = options;
  return holder;
}

/** A group is never run, so its description is only ever seen in a list: its verbs say the most. */
function summaryOf(verbs: readonly DiscordOption[]): string {
  const text = verbs.map((verb) => verb.name).join(", ");
  return text.length <= longestDescription ? text : `${text.slice(0, longestDescription - 1)}…`;
}

function optionsOf(action: Action): DiscordOption[] {
  const bounds = boundsOf(action);
  const options = action.options.map((option) => optionOf(option, bounds(option.field)));
  if (action.kind === "operation") {
    options.push({
      type: optionTypes.boolean,
      name: dryRunOption,
      description: "Only show what would change",
    });
  }
  // Discord refuses a required option after an optional one; the order is otherwise the action's.
  return options.toSorted((a, b) => Number(b.required ?? false) - Number(a.required ?? false));
}

function optionOf(option: Option, bounds: Bounds): DiscordOption {
  const built: DiscordOption = { type: typeOf(option, bounds), name: option.name, description: option.help };
  // An option of one audience would be required of the other one, who may not give it.
  if (option.required === true && option.audience === undefined) built.required = true;
  if (option.choices !== undefined && option.choices.length <= mostChoices) {
    const numeric = built.type !== optionTypes.string;
    built.choices = option.choices.map(({ value, label }) => ({
      name: label,
      value: numeric ? Number(value) : value,
    }));
  } else if (option.lookup !== undefined || option.choices !== undefined) {
    built.autocomplete = true;
  }
  if (option.type === "number" && option.choices === undefined) {
    if (bounds.minimum !== undefined) built.min_value = bounds.minimum;
    if (bounds.maximum !== undefined) built.max_value = bounds.maximum;
  }
  return built;
}

function typeOf(option: Option, bounds: Bounds): DiscordOption["type"] {
  // Sizes need their unit and pairs their commas, so they stay text.
  if (option.type === "flag") return option.choices === undefined ? optionTypes.boolean : optionTypes.string;
  if (option.type !== "number") return optionTypes.string;
  return bounds.integer ? optionTypes.integer : optionTypes.number;
}

interface Bounds {
  integer: boolean;
  minimum: number | undefined;
  maximum: number | undefined;
}

const NumberSchema = z.object({
  type: z.string().optional(),
  minimum: z.number().optional(),
  maximum: z.number().optional(),
});
const ObjectSchema = z.object({ properties: z.record(z.string(), z.unknown()).default({}) });

/** From the input's JSON Schema, so that Discord refuses what the action would refuse. */
function boundsOf(action: Action): (field: string) => Bounds {
  const schema = ObjectSchema.parse(z.toJSONSchema(action.input, { io: "input", unrepresentable: "any" }));
  return (field) => {
    const { data } = NumberSchema.safeParse(schema.properties[field]);
    return { integer: data?.type === "integer", minimum: safe(data?.minimum), maximum: safe(data?.maximum) };
  };
}

/** z.int() is bounded by the safe integers, which is no bound that anybody meant. */
function safe(bound: number | undefined): number | undefined {
  return bound === undefined || Math.abs(bound) >= Number.MAX_SAFE_INTEGER ? undefined : bound;
}
