import {
  ApiException,
  CoordinationV1Api,
  V1MicroTime,
  type KubeConfig,
  type V1Lease,
} from "@kubernetes/client-node";
import { randomUUID } from "node:crypto";
import { hostname } from "node:os";
import { setTimeout } from "node:timers/promises";
import { absent, MERGE, patiently, ResourceFailed } from "./cluster";
import type { Run } from "./watch";

/** After so many seconds without a sign of life from this run, another one may take it. */
const DURATION_SECONDS = 15;
const RENEW_MILLISECONDS = 5000;
const POLL_MILLISECONDS = 1000;

/**
 * A Lease of the namespace: who holds it, drives. As the leader election of Kubernetes' own client
 * takes it, by what is seen of it and not by the clocks of others
 * (https://kubernetes.io/docs/concepts/architecture/leases/).
 */
export class Lease {
  /** Another one for each run, by which people find its machine. */
  private readonly holder = `${hostname()}_${randomUUID()}`;
  private renewed = 0;

  constructor(
    private readonly kubeconfig: KubeConfig,
    private readonly namespace: string,
    private readonly name: string,
  ) {}

  /**
   * Waits until nobody else holds it.
   * @param meanwhile called again and again while somebody else does
   * @returns whether another one has held it meanwhile and given it up; false where it has died.
   */
  async acquire(
    { signal, tell }: Run,
    meanwhile: () => Promise<void> = () => Promise.resolve(),
  ): Promise<boolean> {
    let seen: { readonly version: string | undefined; readonly at: number } | undefined;
    for (;;) {
      const lease = await patiently(() => this.read());
      const { holderIdentity: holder = "", leaseDurationSeconds: lasts = DURATION_SECONDS } =
        lease?.spec ?? {};
      const version = lease?.metadata?.resourceVersion;
      if (holder !== "" && seen === undefined) {
        tell(`waiting for another run, ${holder}, to end or to give no sign of life`);
      }
      if (holder !== "") await meanwhile();
      if (holder !== "" && seen?.version !== version) seen = { version, at: Date.now() };
      const expired = seen !== undefined && Date.now() - seen.at >= lasts * 1000;
      if (holder === "" || expired) {
        if (await patiently(() => this.take(lease))) return holder === "" && seen !== undefined;
      }
      if (signal.aborted) throw new Error("it was stopped while it waited for another run");
      await setTimeout(POLL_MILLISECONDS);
    }
  }

  /** Takes it from whoever holds it; where there is none, nobody does. */
  async seize(): Promise<void> {
    const take = async () => {
      const lease = await this.read();
      return lease === undefined || (await this.take(lease));
    };
    while (!(await patiently(take))) await setTimeout(POLL_MILLISECONDS);
  }

  /**
   * Holds on to it.
   * @throws ResourceFailed when another run has taken it.
   */
  async keep(id: string): Promise<void> {
    for (;;) {
      const lease = await this.read();
      if (lease?.spec?.holderIdentity !== this.holder) {
        const text = "another run has taken over; this run has stopped, and leaves all as it is";
        throw new ResourceFailed(id, [`${id}: ${text}`]);
      }
      if (Date.now() - this.renewed < RENEW_MILLISECONDS || (await this.take(lease))) return;
    }
  }

  /** Gives it up, so that nobody has to wait. One that cannot be given up expires. */
  async release(): Promise<void> {
    const lease = await this.read().catch(() => undefined);
    if (lease?.spec?.holderIdentity !== this.holder) return;
    await this.take(lease, "").catch(() => false);
  }

  private async read(): Promise<V1Lease | undefined> {
    const { namespace, name } = this;
    const api = this.kubeconfig.makeApiClient(CoordinationV1Api);
    return api.readNamespacedLease({ namespace, name }).catch(absent);
  }

  /** @returns whether it is written: not where it has changed since it was read. */
  private async take(lease: V1Lease | undefined, holder = this.holder): Promise<boolean> {
    const { namespace, name } = this;
    const api = this.kubeconfig.makeApiClient(CoordinationV1Api);
    const now = new V1MicroTime();
    const former = lease?.spec;
    const changes = (former?.holderIdentity ?? "") !== holder;
    const spec = {
      holderIdentity: holder,
      leaseDurationSeconds: DURATION_SECONDS,
      renewTime: now,
      ...(changes
        ? { acquireTime: now, leaseTransitions: (former?.leaseTransitions ?? 0) + 1 }
        : {}),
    };
    try {
      if (lease === undefined) {
        await api.createNamespacedLease({ namespace, body: { metadata: { name }, spec } });
      } else {
        const { resourceVersion } = lease.metadata ?? {};
        const body = { metadata: { resourceVersion }, spec };
        await api.patchNamespacedLease({ namespace, name, body }, MERGE);
      }
      this.renewed = Date.now();
      return true;
    } catch (error) {
      if (error instanceof ApiException && error.code === 409) return false;
      throw error;
    }
  }
}
