// The registry of clouds. A provider is one folder, and here its options' type and its factory.
import type { Logger } from "pino";
import type { Cloud, Clouds } from "../core/cloud.ts";
import { ServiceError } from "../core/errors.ts";
import { createOpenStackCloud } from "./openstack/cloud.ts";
import type { OpenStackCloudOptions } from "./openstack/options.ts";
import { createPveCloud } from "./pve/cloud.ts";
import type { PveCloudOptions } from "./pve/options.ts";

/** One configured cloud; `config/` makes these. */
export type CloudEntry =
  | ({ type: "openstack" } & OpenStackCloudOptions)
  | ({ type: "pve" } & PveCloudOptions);

export interface CloudRegistry extends Clouds {
  close(): Promise<void>;
}

/** Opens nothing: a cloud that is down is found out by the first call. Throws `configuration` for an unreadable CA file. */
export function createClouds(entries: readonly CloudEntry[], log: Logger): CloudRegistry {
  const clouds = new Map<string, Cloud>();
  for (const entry of entries) {
    const { name } = entry;
    if (clouds.has(name)) {
      throw new ServiceError("configuration", `Two clouds are called ${name}. Give each its own name.`, {
        facts: { cloud: name },
      });
    }
    clouds.set(name, openCloud(entry, log));
  }
  return {
    get(name) {
      const cloud = clouds.get(name);
      if (cloud !== undefined) return cloud;
      throw new ServiceError(
        "configuration",
        "The cloud that this is on is no longer configured. The operators must put it back to work on its servers.",
        {
          staffDetail: `There is no cloud ${name} in the configuration, only ${[...clouds.keys()].join(", ") || "none"}.`,
        },
      );
    },
    list: () => [...clouds.values()],
    async close() {
      await Promise.all([...clouds.values()].map((cloud) => cloud.close()));
    },
  };
}

function openCloud(entry: CloudEntry, log: Logger): Cloud {
  switch (entry.type) {
    case "openstack":
      return createOpenStackCloud(entry, { log });
    case "pve":
      return createPveCloud(entry, { log });
  }
}
