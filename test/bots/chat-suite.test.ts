import { discordDriver } from "./chat/discord-driver.ts";
import { slackDriver } from "./chat/slack-driver.ts";
import { chatSuite } from "./chat-suite.ts";

chatSuite({
  name: "Slack over HTTP",
  variable: "TEST_SLACK_HARNESS",
  driver: (base) => slackDriver(base, "http"),
});
chatSuite({
  name: "Slack over Socket Mode",
  variable: "TEST_SLACK_HARNESS",
  driver: (base) => slackDriver(base, "socket"),
});
chatSuite({
  name: "Discord on the gateway",
  variable: "TEST_DISCORD_HARNESS",
  driver: discordDriver,
});
