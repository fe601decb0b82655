/** BullMQ on what there is: Redis by REDIS_URL, else the database's queue pool (PostgreSQL, or the embedded one). */
import {
  type ConnectionOptions,
  createPostgresBackend,
  Queue,
  runMigrations,
  Worker,
  withBackend,
} from "bullmq";
import { Redis } from "ioredis";
import type { Database } from "../database/client.ts";

export type Backend = ReturnType<typeof onRedis>;

export function onRedis(url: string, onError: (error: Error) => void) {
  // Without ioredis' own queue a call fails in a millisecond while Redis is away, instead of hanging for ever.
  const producer = new Redis(url, {
    enableOfflineQueue: false,
    maxRetriesPerRequest: 1,
    connectTimeout: 5_000,
  });
  producer.on("error", onError);
  return {
    Queue,
    Worker,
    producer: producer as ConnectionOptions,
    consumer: { url, maxRetriesPerRequest: null } as ConnectionOptions,
    /** Throws while the queue is known to be away. */
    assertReady() {
      if (producer.status !== "ready") throw new Error(`Redis is not connected (${producer.status}).`);
    },
    ping: (): Promise<unknown> => producer.ping(),
    disconnect: () => producer.disconnect(),
  };
}

export async function onPostgres({ queuePool }: Database): Promise<Backend> {
  const client = await queuePool.connect();
  try {
    await runMigrations(client);
  } finally {
    client.release();
  }
  // The same classes over another backend; their types differ in the connection only, which stays in here.
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion
  const classes = withBackend(createPostgresBackend) as unknown as Pick<Backend, "Queue" | "Worker">;
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion
  const pool = queuePool as unknown as ConnectionOptions;
  return {
    ...classes,
    producer: pool,
    consumer: pool,
    assertReady() {},
    ping: () => queuePool.query("SELECT 1"),
    disconnect() {}, // the pool is the database's
  };
}
