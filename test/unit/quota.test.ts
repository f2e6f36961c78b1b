import * as assert from "node:assert/strict";
import { peakDemand, surgePods } from "../../components/internal/quota-check";
import { mergeTrees } from "../../release/merge";
import { Config } from "../../config-schema";
import { committedConfig, STACKS } from "../support/program";

describe("a rollout's peak", () => {
  it("counts the surge as Kubernetes does: a percentage is rounded up", () => {
    assert.equal(surgePods("25%", 1), 1);
    assert.equal(surgePods("25%", 5), 2);
    assert.equal(surgePods("0%", 5), 0);
    assert.equal(surgePods("3", 5), 3);
  });

  it("is every workload at its largest, its surge and the largest suite", () => {
    const { defaults, own } = committedConfig("prod");
    const suite = { requests: { cpu: "1", memory: "1Gi" }, limits: { cpu: "2", memory: "2Gi" } };
    const changed = { verification: { suites: { smoke: { resources: suite } } } };
    const config = Config.parse(mergeTrees(mergeTrees(defaults, own), changed));
    // Ten pods, three more while rolling, and the suite.
    assert.deepEqual(peakDemand(config), {
      pods: 14,
      "requests.cpu": 13 * 0.5 + 1,
      "requests.memory": 13 * 2 ** 29 + 2 ** 30,
      "limits.cpu": 13 * 1 + 2,
      "limits.memory": 13 * 2 ** 30 + 2 ** 31,
    });
  });

  it("leaves CronJobs without a surge", () => {
    const { defaults, own } = committedConfig("dev");
    const amount = { cpu: "10m", memory: "16Mi" };
    const night = {
      kind: "CronJob",
      schedule: "0 3 * * *",
      resources: { requests: amount, limits: amount },
    };
    const plain = mergeTrees(defaults, own);
    const pods = (config: object) => peakDemand(Config.parse(config)).pods;
    assert.equal(pods(mergeTrees(plain, { workloads: { night } })), pods(plain) + 1);
  });

  it("has room for the first pod of a canary beside two releases, also without a surge", () => {
    const { defaults, own } = committedConfig("prod");
    const rollout = { strategy: "canary", maxSurge: "0", maxUnavailable: "1" };
    const config = Config.parse(mergeTrees(mergeTrees(defaults, own), { rollout }));
    assert.equal(peakDemand(config).pods, 2 * 10 + 1 + 1, "and a suite");
  });

  it("is three releases of a canary where a migration may leave it no steps", () => {
    const { defaults, own } = committedConfig("prod");
    const pods = (more: object) => {
      const plain = mergeTrees(mergeTrees(defaults, own), { verification: { run: [] } });
      const config = Config.parse(mergeTrees(plain, { rollout: { strategy: "canary" }, ...more }));
      return peakDemand(config).pods;
    };
    const database = {
      url: "databaseUrl",
      client: "postgres:18",
      version: "SELECT 1",
      migration: {},
      backup: { volume: { existing: "backups" } },
    };
    const alone = pods({});
    assert.equal(pods({ database }), alone + 10 + 1, "and a step of the database's");
    assert.equal(pods({ database: { ...database, follower: true } }), alone);
  });

  for (const stack of STACKS) {
    it(`fits into the committed quota of ${stack}`, () => {
      const { defaults, own } = committedConfig(stack);
      const config = Config.parse(mergeTrees(defaults, own));
      assert.ok(Object.keys(config.quota).length >= 5, "every dimension is limited");
    });
  }
});
