import { AppsV1Api, PatchStrategy, setHeaderOptions } from "@kubernetes/client-node";
import { setTimeout } from "node:timers/promises";
import { kubeconfigOf } from "../sandbox/cluster";
import { REGISTRY } from "../sandbox/folder";
import { queryPrometheus } from "../sandbox/prometheus";
import { waitForRollout } from "./cluster";

const INTERVAL_MILLISECONDS = 1000;
const MOST_ERRORS_PERCENT = 1;
const FAILURES_IN_A_ROW = 2;

/**
 * What a person does with `kubectl set image`, `kubectl rollout status`, a script that watches, and
 * `kubectl rollout undo`.
 */
export class ByHand {
  private readonly apps = kubeconfigOf({}).makeApiClient(AppsV1Api);

  constructor(
    private readonly namespace: string,
    private readonly name: string,
    /** For how long the script watches a release that is rolled out, in seconds. */
    private readonly watched: number,
  ) {}

  /** @returns whether the release was left in place. */
  async change(version: string): Promise<boolean> {
    const { namespace, name } = this;
    const { spec } = await this.apps.readNamespacedDeployment({ namespace, name });
    const [container] = spec?.template.spec?.containers ?? [];
    await this.setImage(container?.name ?? "", `${REGISTRY}/podinfo:${version}`);
    if (await this.isGood()) return true;
    await this.setImage(container?.name ?? "", container?.image ?? "");
    return false;
  }

  private async setImage(container: string, image: string): Promise<void> {
    const { namespace, name } = this;
    const body = { spec: { template: { spec: { containers: [{ name: container, image }] } } } };
    const options = setHeaderOptions("Content-Type", PatchStrategy.StrategicMergePatch);
    await this.apps.patchNamespacedDeployment({ namespace, name, body }, options);
    await waitForRollout(namespace, name);
  }

  /** Whether the share of errors stays low for as long as Baton would bake. */
  private async isGood(): Promise<boolean> {
    const of = (status: string) =>
      `sum(rate(http_requests_total{namespace="${this.namespace}"${status}}[5s]))`;
    const query = `100 * (${of(',status=~"5.."')} or vector(0)) / ${of("")}`;
    const end = Date.now() + this.watched * 1000;
    let failures = 0;
    while (Date.now() < end) {
      const [sample] = await queryPrometheus(query);
      failures = (sample?.value ?? 0) > MOST_ERRORS_PERCENT ? failures + 1 : 0;
      if (failures === FAILURES_IN_A_ROW) return false;
      await setTimeout(INTERVAL_MILLISECONDS);
    }
    return true;
  }
}
