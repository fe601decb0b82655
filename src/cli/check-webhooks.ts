/** May the endpoints of webhooks be called. Nothing is sent: a receiver would take it for an event. */
import type { Settings } from "../config/settings.ts";
import { ConnectorError, createConnector } from "../net/connector.ts";
import type { Report } from "./terminal.ts";

export async function checkWebhooks({ webhooks, policies }: Settings, report: Report): Promise<void> {
  if (webhooks.length === 0) {
    report.result(null, "webhooks", "none configured");
    return;
  }
  const connector = createConnector({ allow: policies.allowPrivateWebhooks });
  try {
    for (const { name, url } of webhooks) {
      try {
        // oxlint-disable-next-line no-await-in-loop -- one line after the other
        const addresses = await connector.vet(url);
        report.result(true, `webhook ${name}`, `${new URL(url).host} at ${addresses.join(", ")}`);
      } catch (error) {
        if (!(error instanceof ConnectorError)) throw error;
        report.result(false, `webhook ${name}`, `${error.message}\n${adviceOf(error)}`);
      }
    }
  } finally {
    await connector.close();
  }
}

function adviceOf({ code }: ConnectorError): string {
  return code === "dns"
    ? "Correct the url under webhooks in ratatosk.yaml, or the name's DNS entry."
    : "Only public https addresses are called; others are allowed by policies.allowPrivateWebhooks.";
}
