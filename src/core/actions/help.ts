import { z } from "zod";
import { defineRead } from "../action.ts";
import { helpView } from "../help.ts";

const HelpInput = z.object({ topic: z.string().optional() });
type HelpInput = z.infer<typeof HelpInput>;

export const help = defineRead<HelpInput>({
  name: "help",
  summary: "What you can do here",
  audience: ["staff", "customer"],
  permission: "server.read",
  input: HelpInput,
  options: [
    {
      name: "topic",
      field: "topic",
      label: "Topic",
      help: "A command: server resize",
      type: "text",
      subject: true,
    },
  ],
  run: async ({ engine, principal }, input) => helpView(engine.registry, principal, input.topic),
});
