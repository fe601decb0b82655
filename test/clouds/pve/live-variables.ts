/**
 * The node that the live suites work on: TEST_PVE_URL (https://host:8006), TEST_PVE_TOKEN (user@realm!id=uuid), TEST_PVE_CA (PEM
 * file), TEST_PVE_NODE, TEST_PVE_TEMPLATE (VMID of a template with a cloud-init drive and the guest agent) and, for the rescue
 * system, TEST_PVE_ISO (local:iso/rescue.iso). Without them a simulator sets the very same variables, so that what a stranger
 * runs on a node of theirs is what runs here.
 */
import { startPveSimulator } from "../../../src/sandbox/pve/index.ts";
import { caFileOf } from "./open-simulator.ts";

export const isReal = process.env["TEST_PVE_URL"] !== undefined;
export const rescueIso = isReal ? process.env["TEST_PVE_ISO"] : "local:iso/rescue.iso";

export interface Variables {
  TEST_PVE_URL: string;
  TEST_PVE_TOKEN: string;
  TEST_PVE_CA: string;
  TEST_PVE_NODE: string;
  TEST_PVE_TEMPLATE: string;
  stop(): Promise<void>;
}

export async function variables(): Promise<Variables> {
  if (isReal) {
    const read = (name: string) => {
      const value = process.env[name];
      if (value === undefined) throw new Error(`TEST_PVE_URL is set, so ${name} must be set too`);
      return value;
    };
    return {
      TEST_PVE_URL: read("TEST_PVE_URL"),
      TEST_PVE_TOKEN: read("TEST_PVE_TOKEN"),
      TEST_PVE_CA: read("TEST_PVE_CA"),
      TEST_PVE_NODE: read("TEST_PVE_NODE"),
      TEST_PVE_TEMPLATE: read("TEST_PVE_TEMPLATE"),
      stop: () => Promise.resolve(),
    };
  }
  const simulator = await startPveSimulator({ speed: 0, nodes: ["pve1"] });
  return {
    TEST_PVE_URL: simulator.url,
    TEST_PVE_TOKEN: `${simulator.tokenId}=${simulator.tokenSecret}`,
    TEST_PVE_CA: caFileOf(simulator),
    TEST_PVE_NODE: "pve1",
    TEST_PVE_TEMPLATE: "9000",
    stop: () => simulator.close(),
  };
}
