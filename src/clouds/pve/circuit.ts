// PVE answers every refused credential 3 s late (pve-http-server, AnyEvent.pm), so a wrong one would make each poll slow and
// fill the cluster's log. Once it is refused, calls fail at once for a while; one at a time then finds out whether it holds.
import { ServiceError } from "../../core/errors.ts";
import type { HttpResponse } from "../http.ts";

const FIRST_PAUSE_MS = 30_000;
const LONGEST_PAUSE_MS = 5 * 60_000;

interface Circuit {
  /**
   * Throws `unauthorized` without a call while it is open. `anyway`: for somebody who asks whether it holds by now.
   */
  through(call: () => Promise<HttpResponse>, options: { anyway: boolean }): Promise<HttpResponse>;
}

export function createCircuit(cloud: string, now: () => number): Circuit {
  /** 0 while it is closed. */
  let pauseMs = 0;
  let until = 0;
  let isTrying = false;

  function refused({ isTrial }: { isTrial: boolean }): void {
    // What was on its way when it opened says nothing new.
    if (pauseMs > 0 && !isTrial) return;
    pauseMs = pauseMs === 0 ? FIRST_PAUSE_MS : Math.min(LONGEST_PAUSE_MS, pauseMs * 2);
    until = now() + pauseMs;
  }

  return {
    async through(call, { anyway }) {
      const isTrial = pauseMs > 0 && !anyway;
      if (isTrial) {
        if (isTrying || now() < until) throw stillRefused(cloud, until - now());
        isTrying = true;
      }
      try {
        const response = await call();
        if (response.status === 401) refused({ isTrial });
        else pauseMs = 0;
        return response;
      } catch (error) {
        if (error instanceof ServiceError && error.code === "unauthorized") refused({ isTrial });
        throw error;
      } finally {
        if (isTrial) isTrying = false;
      }
    },
  };
}

function stillRefused(cloud: string, leftMs: number): ServiceError {
  const left =
    leftMs > 0 ? `not asked again for ${Math.ceil(leftMs / 1_000)} s` : "being tried again just now";
  return new ServiceError(
    "unauthorized",
    "The cloud does not accept our credential, so nothing was done. The operators must check it in the configuration.",
    { facts: { cloud }, staffDetail: `${cloud}: the credential was refused a moment ago; ${left}.` },
  );
}
