/** Writes down what became of claimed deliveries, in groups, and tells the log and people. */
import type { Logger } from "pino";
import type { Database } from "../database/client.ts";
import { createAlerts } from "./alerts.ts";
import type { AttemptRecord } from "./attempt.ts";
import type { Claimed } from "./claim.ts";
import type { Tick } from "./dispatcher.ts";
import { groupWriter } from "./group-writer.ts";
import { recordAttempts, releaseDeliveries } from "./record.ts";

export interface RecorderOptions {
  readonly database: Database;
  readonly log: Logger;
  readonly onAlert?: (text: string) => void;
  readonly onNotice: () => void;
  readonly counts: Tick;
}

/** Neither throws: what cannot be written is repeated when its lease is over. */
export interface Recorder {
  record(record: AttemptRecord): Promise<void>;
  release(claimed: Claimed): Promise<void>;
}

export function createRecorder(options: RecorderOptions): Recorder {
  const { database, log, counts } = options;
  const alerts = createAlerts();

  async function writeRecords(group: AttemptRecord[]): Promise<void> {
    try {
      await writeGroup(group);
    } catch (error) {
      if (group.length === 1) {
        logLost(log, group, error);
        return;
      }
      // One record that the database refuses must not take the others with it.
      for (const record of group) {
        await writeRecords([record]);
      }
    }
  }

  async function writeGroup(group: AttemptRecord[]): Promise<void> {
    const recorded = await recordAttempts(database, group);
    for (const record of recorded.written) {
      if (record.state === "delivered") counts.delivered += 1;
      else if (record.state === "dead") counts.dead += 1;
      else counts.retried += 1;
      logAttempt(log, record);
    }
    const lost = group.length - recorded.written.length;
    if (lost > 0) {
      log.warn({ lost }, "webhook attempts took longer than their lease; another dispatcher repeats them");
    }
    for (const text of alerts.after(recorded)) {
      log.error({ alert: "endpoint" }, text);
      tellPeople(text);
    }
    if (recorded.written.some(({ state }) => state === "dead")) options.onNotice();
  }

  function tellPeople(text: string): void {
    try {
      options.onAlert?.(text);
    } catch (error) {
      log.error({ err: error }, "a webhook alert could not be passed on");
    }
  }

  async function writeReleases(group: Claimed[]): Promise<void> {
    counts.released += group.length;
    try {
      await releaseDeliveries(database, group);
    } catch (error) {
      log.error(
        { err: error },
        "webhook deliveries could not be given back; they are due when their lease is over",
      );
    }
  }

  const records = groupWriter<AttemptRecord>(writeRecords);
  const releases = groupWriter<Claimed>(writeReleases);
  return { record: records.add, release: releases.add };
}

function logLost(log: Logger, group: readonly AttemptRecord[], error: unknown): void {
  log.error(
    { err: error, deliveries: group.map(({ claimed }) => claimed.deliveryId) },
    "a webhook attempt was made and could not be recorded; it is repeated when its lease is over",
  );
}

function logAttempt(log: Logger, record: AttemptRecord): void {
  const { claimed, outcome, httpStatus, error, nextInMs, state, durationMs } = record;
  // Never the URL: some receivers' URLs are secrets.
  const facts = {
    endpoint: claimed.endpoint.name,
    event: claimed.event.id,
    type: claimed.event.type,
    attempt: claimed.attemptCount + 1,
    outcome,
    httpStatus,
    durationMs,
  };
  if (state === "delivered") log.debug(facts, "webhook delivered");
  else if (state === "dead") log.error({ ...facts, error }, "webhook delivery given up");
  else log.warn({ ...facts, error, nextInMs }, "webhook attempt failed");
}
