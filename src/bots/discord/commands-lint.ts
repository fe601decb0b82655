/**
 * Discord's limits on application commands, which neither its API types nor discord.js's builders check in full.
 * https://docs.discord.com/developers/interactions/application-commands
 */
import { type DiscordCommand, type DiscordOption, optionTypes } from "./commands.ts";

const limits = {
  commands: 100,
  options: 25,
  choices: 25,
  name: 32,
  description: 100,
  choice: 100,
  /** Names, descriptions and values of a command with all that is in it. */
  total: 8000,
} as const;

const namePattern = /^[-_'\p{L}\p{N}\p{sc=Deva}\p{sc=Thai}]{1,32}$/u;

/** Every limit that the set breaks, one sentence each; empty when Discord will take it. */
export function lintDiscordCommands(commands: readonly DiscordCommand[]): string[] {
  const found: string[] = [];
  if (commands.length > limits.commands) {
    found.push(`There are ${commands.length} commands; Discord takes ${limits.commands}.`);
  }
  found.push(...duplicates("commands", commands));
  for (const command of commands) {
    const path = `/${command.name}`;
    found.push(...lintNamed(path, command), ...lintChildren(path, command.options ?? [], 0));
    const size = sizeOf(command);
    if (size > limits.total)
      found.push(`${path} has ${size} characters in all; Discord takes ${limits.total}.`);
  }
  return found;
}

function lintNamed(path: string, named: { name: string; description: string }): string[] {
  const found: string[] = [];
  if (!namePattern.test(named.name) || named.name !== named.name.toLowerCase()) {
    found.push(`${path}: the name must be 1 to ${limits.name} lower-case letters, digits, - or _.`);
  }
  const { length } = named.description;
  if (length < 1 || length > limits.description) {
    found.push(
      `${path}: the description has ${length} characters; Discord takes 1 to ${limits.description}.`,
    );
  }
  return found;
}

/** `level`: 0 below a command, 1 below a group, 2 below a sub-command. */
function lintChildren(path: string, options: readonly DiscordOption[], level: number): string[] {
  const found: string[] = duplicates(`options of ${path}`, options);
  if (options.length > limits.options) {
    found.push(`${path} has ${options.length} options or verbs; Discord takes ${limits.options}.`);
  }
  const verbs = options.filter((option) => isVerb(option));
  if (verbs.length > 0 && verbs.length < options.length) found.push(`${path} mixes verbs with options.`);
  const firstOptional = options.findIndex((option) => !isVerb(option) && option.required !== true);
  const late = options.find(
    (option, index) => firstOptional !== -1 && index > firstOptional && option.required,
  );
  if (late !== undefined)
    found.push(`${path} ${late.name} is required and must stand before the optional ones.`);

  for (const option of options) {
    const inner = `${path} ${option.name}`;
    found.push(...lintNamed(inner, option));
    if (!isVerb(option)) {
      found.push(...lintValue(inner, option));
      continue;
    }
    const group = option.type === optionTypes.group;
    if (level > (group ? 0 : 1)) found.push(`${inner} is nested too deep.`);
    if (group && (option.options ?? []).some((verb) => verb.type !== optionTypes.subcommand)) {
      found.push(`${inner} is a group and may hold sub-commands only.`);
    }
    if (group && (option.options ?? []).length === 0) found.push(`${inner} is a group without sub-commands.`);
    found.push(...lintChildren(inner, option.options ?? [], group ? 1 : 2));
  }
  return found;
}

function lintValue(path: string, option: DiscordOption): string[] {
  const found: string[] = [];
  const choices = option.choices ?? [];
  if (option.options !== undefined) found.push(`${path} is no verb and has options.`);
  if (choices.length > limits.choices) {
    found.push(`${path} has ${choices.length} choices; Discord takes ${limits.choices}.`);
  }
  if (option.choices !== undefined && option.autocomplete === true) {
    found.push(`${path} has choices and autocomplete; Discord takes one of them.`);
  }
  const numeric = option.type === optionTypes.integer || option.type === optionTypes.number;
  if (
    !numeric &&
    option.type !== optionTypes.string &&
    (option.autocomplete === true || choices.length > 0)
  ) {
    found.push(`${path} is yes or no and has choices or autocomplete.`);
  }
  if (!numeric && (option.min_value !== undefined || option.max_value !== undefined)) {
    found.push(`${path} is no number and has bounds.`);
  }
  if ((option.min_value ?? -Infinity) > (option.max_value ?? Infinity)) {
    found.push(`${path} has a least value above the greatest.`);
  }
  for (const choice of choices) {
    const { length } = choice.name;
    if (length < 1 || length > limits.choice) {
      found.push(`${path}: a choice's name has ${length} characters; Discord takes 1 to ${limits.choice}.`);
    }
    if (
      typeof choice.value === "string" ? choice.value.length > limits.choice : !Number.isFinite(choice.value)
    ) {
      found.push(`${path}: the value of the choice "${choice.name}" is too long or no number.`);
    }
    if ((typeof choice.value === "number") !== numeric) {
      found.push(`${path}: the value of the choice "${choice.name}" is not of the option's type.`);
    }
  }
  return found;
}

function isVerb(option: DiscordOption): boolean {
  return option.type === optionTypes.subcommand || option.type === optionTypes.group;
}

function duplicates(where: string, named: readonly { name: string }[]): string[] {
  const groups = Map.groupBy(named, ({ name }) => name);
  return [...groups]
    .filter(([, same]) => same.length > 1)
    .map(([name]) => `The ${where} have "${name}" twice.`);
}

function sizeOf(item: DiscordCommand | DiscordOption): number {
  const choices = "choices" in item ? (item.choices ?? []) : [];
  const own = item.name.length + item.description.length;
  const ofChoices = choices.reduce(
    (sum, choice) => sum + choice.name.length + String(choice.value).length,
    0,
  );
  return (item.options ?? []).reduce((sum, option) => sum + sizeOf(option), own + ofChoices);
}
