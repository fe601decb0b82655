/** An entry of clouds.yaml, found and merged with secure.yaml as the OpenStack SDK does. */
import { readFileSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import { parse } from "yaml";
import { z } from "zod";
import type { EnvironmentReader } from "./environment.ts";
import { adviceFor, type Problems } from "./problems.ts";
import { OpenStackAuth } from "./schema.ts";

/** What an entry of clouds.yaml tells us; it has much more that is not for us. */
const CloudsYamlEntry = z.object({
  auth_type: z.string().optional(),
  auth: OpenStackAuth,
  region_name: z.string().optional(),
  interface: z.string().optional(),
  verify: z.boolean().optional(),
  cacert: z.string().optional(),
  compute_endpoint_override: z.string().optional(),
  image_endpoint_override: z.string().optional(),
  network_endpoint_override: z.string().optional(),
});

const AUTH_TYPES = ["password", "v3password", "v3applicationcredential"];
interface CloudsYamlReading {
  environment: EnvironmentReader;
  cwd: string;
  problems: Problems;
}

export interface NamedCloud {
  auth: z.output<typeof OpenStackAuth>;
  region: string | undefined;
  interface: "public" | "internal" | "admin" | undefined;
  verifyTls: boolean | undefined;
  caFile: string | undefined;
  endpoints: Record<string, string>;
}

/** `where` is who asks, for the problems. */
export function readCloudsYaml(
  cloud: string,
  where: string,
  reading: CloudsYamlReading,
): NamedCloud | undefined {
  const { problems } = reading;
  const named = reading.environment.text("OS_CLIENT_CONFIG_FILE");
  const places =
    named === undefined
      ? [reading.cwd, join(homedir(), ".config", "openstack"), "/etc/openstack"].map((dir) =>
          join(dir, "clouds.yaml"),
        )
      : [named];
  const file = places.find((path) => readYaml(path, problems) !== undefined);
  if (file === undefined) {
    problems.add(
      `${where} names an entry of clouds.yaml, which is in none of: ${places.join(", ")}`,
      "put the file there or set OS_CLIENT_CONFIG_FILE",
    );
    return undefined;
  }
  const clouds = entriesOf(readYaml(file, problems));
  const secure = entriesOf(readYaml(join(dirname(file), "secure.yaml"), problems));
  if (!Object.hasOwn(clouds, cloud)) {
    problems.add(
      `${where} names the entry "${cloud}", which is not in ${file}`,
      adviceFor(cloud, Object.keys(clouds), `it has ${Object.keys(clouds).join(", ")}`),
    );
    return undefined;
  }
  const parsed = CloudsYamlEntry.safeParse(merge(clouds[cloud], secure[cloud]));
  if (!parsed.success) {
    const keys = parsed.error.issues.map((issue) => issue.path.join(".")).join(", ");
    problems.add(
      `${where}: the entry "${cloud}" of ${file} is not usable (${keys})`,
      "correct it; vendor profiles are not supported, write auth_url out",
    );
    return undefined;
  }
  const { data } = parsed;
  if (data.auth_type !== undefined && !AUTH_TYPES.includes(data.auth_type)) {
    problems.add(
      `${where}: the entry "${cloud}" of ${file} has an auth_type that is not supported`,
      `use one of ${AUTH_TYPES.join(", ")}`,
    );
    return undefined;
  }
  return {
    auth: data.auth,
    region: data.region_name,
    interface: (["public", "internal", "admin"] as const).find((value) => data.interface?.startsWith(value)),
    verifyTls: data.verify,
    caFile: data.cacert,
    endpoints: defined({
      compute: data.compute_endpoint_override,
      image: data.image_endpoint_override,
      network: data.network_endpoint_override,
    }),
  };
}

function readYaml(path: string, problems: Problems): unknown {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
  try {
    return parse(text, { prettyErrors: false });
  } catch {
    problems.add(`${path} is not valid YAML`, "correct it");
    return {};
  }
}

function entriesOf(document: unknown): Record<string, unknown> {
  const parsed = z.object({ clouds: z.record(z.string(), z.unknown()) }).safeParse(document);
  return parsed.success ? parsed.data.clouds : {};
}

function merge(base: unknown, over: unknown): unknown {
  if (typeof base !== "object" || base === null || typeof over !== "object" || over === null)
    return over ?? base;
  const merged: Record<string, unknown> = { ...base };
  for (const [key, value] of Object.entries(over)) merged[key] = merge(merged[key], value);
  return merged;
}

/** Without the keys that are undefined: here an optional property is absent or has a value. */
export function defined<T extends object>(object: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  const entries = Object.entries(object).filter(([, value]) => value !== undefined);
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the filter is what the type says
  return Object.fromEntries(entries) as { [K in keyof T]?: Exclude<T[K], undefined> };
}
