// What both ways share: what was set is looked at, and in the end what the server runs from.
import { z } from "zod";
import { ServiceError } from "../../../core/errors.ts";
import type { Issued, PlannedStep, StepDefinition } from "../../../core/operations/step.ts";
import type { PveClient } from "../client.ts";
import { remoteServerOf } from "../server.ts";
import { pendingKeys } from "../vm.ts";
import { getTarget, outcomeFor } from "./target.ts";

const Input = z.object({ externalId: z.string(), goal: z.enum(["rescue", "active"]) });

export function planLook(input: z.infer<typeof Input>): PlannedStep {
  return { name: "pve.rescue_verify", label: "Check what it runs from", input };
}

export function lookStep(client: PveClient): StepDefinition {
  return {
    name: "pve.rescue_verify",
    deadlineMs: 10 * 60_000,
    callTimeoutMs: 60_000,
    evidence: "none",
    async issue(context): Promise<Issued> {
      const { goal } = Input.parse(context.input);
      const vm = await getTarget(client, context);
      const server = await remoteServerOf(client, vm, context.signal);
      const waiting = (await pendingKeys(client, vm, context.signal)).filter((key) =>
        /^(?:boot|(?:ide|sata)\d+)$/u.test(key),
      );
      if (server.state === goal && waiting.length === 0) {
        return { kind: "done", ...outcomeFor(context, server) };
      }
      const where = goal === "rescue" ? "the rescue media" : "its own disk";
      const error = new ServiceError(
        "cloud_failed",
        `The server was restarted, but the cloud does not show it running from ${where}. Our operators must look at it.`,
        {
          facts: { cloud: client.cloud, state: server.state, pending: waiting },
          staffDetail: `${client.cloud}: VM ${vm.vmid} is ${server.providerStatus}, boot ${vm.config["boot"] ?? "none"}, pending: ${waiting.join(", ") || "nothing"}`,
        },
      );
      return { kind: "failed", error, server };
    },
  };
}
