import * as assert from "node:assert/strict";
import { abort } from "../../cli/abort";
import type { Context } from "../../cli/context";
import { ABORT } from "../../provider/cluster";
import { ROLLOUT } from "../../provider/undo";
import { virtualClock } from "../support/clock";
import { KubernetesServer } from "../support/kubernetes";

const DEPLOYMENTS = "/apis/apps/v1/namespaces/qa/deployments";
const WEB = `${DEPLOYMENTS}/web`;
const BEGUN = JSON.stringify({ spec: "b", template: "b", abort: "", verified: "web-a" });

describe("an abort from elsewhere", () => {
  virtualClock();
  let cluster: KubernetesServer;
  let printed: string[];

  beforeEach(async () => {
    printed = [];
    cluster = await KubernetesServer.start();
    const resources = [{ name: "deployments", kind: "Deployment", namespaced: true }];
    cluster.put("/apis/apps", "v1", { resources });
  });
  afterEach(() => cluster.stop());

  const podsOf = (image: string) => ({ metadata: { labels: { image } } });
  const web = (available: number, annotations: Record<string, string> = {}) => {
    const labels = {
      "app.kubernetes.io/managed-by": "pulumi",
      "app.kubernetes.io/instance": "qa",
    };
    cluster.put(DEPLOYMENTS, "web", {
      metadata: { namespace: "qa", labels, annotations },
      spec: { replicas: 2, template: podsOf("b") },
      status: { replicas: 2, updatedReplicas: 2, availableReplicas: available },
    });
  };
  const run = async () => {
    const context = {
      project: { config: () => Promise.resolve({ cluster: {}, namespace: {} }) },
      ledger: { person: () => Promise.resolve("bob@example.com") },
      showProgress: (_: string, action: () => Promise<unknown>) => action(),
      print: (text: string) => void printed.push(text),
    };
    const report = await abort(context as unknown as Context, "qa", { reason: "not today" });
    assert.equal(report.outcome, "done");
    return printed.join("\n");
  };
  const annotations = () => cluster.get(WEB)?.metadata["annotations"] as Record<string, string>;

  it("is told to whoever deploys", async () => {
    web(1, { [ROLLOUT]: BEGUN });
    cluster.controller = (_, object) => {
      cluster.controller = (_path, one) => one;
      return { ...object, spec: { replicas: 2, template: podsOf("a") } };
    };
    assert.equal(await run(), "qa: the rollout of web stopped; whoever deploys goes back now.");
  });

  it("waits for whoever carries the rollout on where nobody deploys, also once the pods are there", async () => {
    for (const available of [1, 2]) {
      printed = [];
      web(available, { [ROLLOUT]: BEGUN });
      assert.equal(
        await run(),
        "qa: the rollout of web is marked; nobody deploys now. Whoever carries it on will hear.",
      );
      assert.match(annotations()[ABORT] ?? "", /bob@example\.com: not today$/);
    }
  });

  it("claims nothing where it cannot be seen whether somebody has heard", async () => {
    web(1);
    assert.equal(
      await run(),
      "qa: the rollout of web is marked; whoever deploys now goes back, and nobody who begins later.",
    );
  });

  it("is told again to what has changed meanwhile, and claims nothing where that was its end", async () => {
    // Between what is read and the mark, its pods come; and then it is complete.
    const ends = [
      { status: { availableReplicas: 2 } },
      { status: { availableReplicas: 2 }, metadata: { annotations: { [ROLLOUT]: "{}" } } },
    ];
    for (const end of ends) {
      web(1, { [ROLLOUT]: BEGUN });
      cluster.afterList = () => {
        cluster.afterList = () => undefined;
        cluster.patch(WEB, end);
      };
      if (end.metadata === undefined) assert.match(await run(), /the rollout of web is marked/);
      else await assert.rejects(run());
    }
  });

  it("is refused where nothing is rolled out", async () => {
    web(2);
    await assert.rejects(run());
  });
});
