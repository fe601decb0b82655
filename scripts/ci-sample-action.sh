#!/usr/bin/env bash
# Adding an action costs one new file and its lines in the registry: done for real on a copy of this tree, it must be in
# the help, in Slack's and in Discord's command sets, and answer in the console. Ends with one line that says so.
set -euo pipefail

root="$(cd "$(dirname "$0")/.." && pwd)"
copy="$(mktemp -d "${TMPDIR:-/tmp}/ratatosk-sample.XXXXXX")"
trap 'rm -rf "$copy"' EXIT
fail() {
  echo "sample action: FAILED: $*" >&2
  exit 1
}

cd "$root"
[ -d src/database/generated ] || fail "no database client; run npm run db:generate first"
# The working tree as it is, without what git ignores. Files deleted since the last commit are still listed.
git ls-files --cached --others --exclude-standard -z | while IFS= read -r -d '' path; do
  if [ -e "$path" ]; then printf '%s\0' "$path"; fi
done | tar --null --files-from=- -cf - | tar -xf - -C "$copy"
ln -s "$root/node_modules" "$copy/node_modules"
cp -R src/database/generated "$copy/src/database/generated"

cd "$copy"
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null
git init -q
# A link is not covered by "node_modules/".
echo node_modules >> .git/info/exclude
git add -A
git -c user.name=ci -c user.email=ci@localhost commit -qm "before" --no-verify

cat > src/core/actions/sample-greet.ts <<'ACTION'
import { z } from "zod";
import { defineRead } from "../action.ts";

const GreetInput = z.object({ name: z.string().max(40) });
type GreetInput = z.infer<typeof GreetInput>;

export const sampleGreet = defineRead<GreetInput>({
  name: "sample.greet",
  summary: "Greet somebody",
  audience: ["staff", "customer"],
  permission: "server.read",
  input: GreetInput,
  options: [
    {
      name: "name",
      field: "name",
      label: "Name",
      help: "Who is greeted",
      type: "text",
      required: true,
      subject: true,
    },
  ],
  run: async (_context, { name }) => ({ title: `Hello, ${name}`, tone: "success" }),
});
ACTION

node_modules/.bin/node --input-type=module - src/core/actions/index.ts <<'EDIT'
import { readFileSync, writeFileSync } from "node:fs";
const path = process.argv[2];
const lines = readFileSync(path, "utf8").split("\n");
const lastImport = lines.findLastIndex((line) => /^import .*from "\.\/.*";$/.test(line));
const list = lines.findIndex((line) => /^(export )?const actions\b.*\[$/.test(line));
const end = lines.findIndex((line, index) => index > list && line === "];");
if (lastImport < 0 || list < 0 || end < 0) throw new Error(`${path} no longer has a list of actions`);
lines.splice(end, 0, "  sampleGreet,");
lines.splice(lastImport + 1, 0, 'import { sampleGreet } from "./sample-greet.ts";');
writeFileSync(path, lines.join("\n"));
EDIT

git add --intent-to-add src/core/actions/sample-greet.ts
git --no-pager diff --stat
changed="$(git diff --name-only | sort | paste -sd' ')"
[ "$changed" = "src/core/actions/index.ts src/core/actions/sample-greet.ts" ] || fail "it took more than two files: $changed"
[ -z "$(git ls-files --others --exclude-standard)" ] || fail "files were left beside it"

node() { command node_modules/.bin/node --liftoff-only --disable-warning=ExperimentalWarning "$@"; }

node src/cli/main.ts manifest slack --url https://bot.example.com > slack.json
node src/cli/main.ts manifest discord > discord.json
node --input-type=module - <<'LOOK'
import { readFileSync } from "node:fs";
const read = (path) => JSON.parse(readFileSync(path, "utf8"));
const slack = read("slack.json").features.slash_commands.find(({ command }) => command === "/sample");
if (!slack?.usage_hint.includes("greet")) throw new Error(`not in Slack's manifest: ${JSON.stringify(slack)}`);
const discord = read("discord.json").find(({ name }) => name === "sample");
const verb = discord?.options.find(({ name }) => name === "greet");
if (!verb?.options.some((option) => option.name === "name" && option.required)) {
  throw new Error(`not in Discord's commands: ${JSON.stringify(discord)}`);
}
LOOK

# The program itself, sandboxed: help lists it, the grammar takes it, and it answers.
printf '%s\n' "/help sample" "/sample greet Ada" "/sample greet --help" |
  env -i PATH="$PATH" HOME="$copy" PORT=0 LOG_LEVEL=error RATATOSK_DATA_DIR="$copy/.data" \
    timeout 60 node_modules/.bin/node --liftoff-only --disable-warning=ExperimentalWarning src/main.ts --console > console.txt 2>&1 ||
  { cat console.txt; fail "the console ended badly"; }
grep -q "/sample greet <name> *Greet somebody" console.txt || { cat console.txt; fail "it is not in the help"; }
grep -q "Hello, Ada" console.txt || { cat console.txt; fail "it does not answer in the console"; }

added="$(git diff --numstat -- src/core/actions/index.ts | cut -f1)"
echo "sample action: one file and $added lines of the registry put it into help, Slack, Discord and the console"
