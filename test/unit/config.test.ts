import * as assert from "node:assert/strict";
import * as fc from "fast-check";
import { mergeTrees } from "../../release/merge";
import { PASSWORD, withDatabase } from "../support/database";
import { ProgramHarness, type RunOptions } from "../support/program";

describe("a stack's configuration", () => {
  let harness: ProgramHarness;
  before(async () => (harness = await ProgramHarness.start()));
  after(() => harness.stop());

  /** Runs the program with the qa stack's configuration, changed; gives the refusal's lines. */
  async function problems(
    config: Record<string, unknown>,
    more: Partial<RunOptions> = {},
  ): Promise<string[]> {
    return (await harness.refusal({ stack: "qa", config, ...more })).split("\n");
  }

  it("names the nearest key for one it does not know", async () => {
    assert.deepEqual(await problems({ imageTags: "dev-1" }), [
      "qa: baton:imageTags is not a key of this program; expected imageTag. Did you mean imageTag? Correct or remove it.",
    ]);
    const [line = ""] = await problems({ workloads: { web: { replica: 2 } } });
    assert.match(line, /^qa: baton:workloads\.web\.replica is not a key.*Did you mean replicas\?/);
    const [far = ""] = await problems({ workloads: { web: { bogusness: 2 } } });
    assert.match(far, /expected one of kind, name, /);
  });

  it("says what type a value should have, and what it is", async () => {
    assert.deepEqual(await problems({ workloads: { web: { port: "http" } } }), [
      'qa: baton:workloads.web.port is "http"; expected a port number. Correct it.',
    ]);
    assert.deepEqual(await problems({ quota: "large" }), [
      'qa: baton:quota is "large"; expected a map. Correct it.',
    ]);
    assert.deepEqual(await problems({ monitoring: { level: "loud" } }), [
      'qa: baton:monitoring.level is "loud"; expected one of none, scrape, alerts. Correct it.',
    ]);
    const kind = { SESSION_KEY: { source: "vault" } };
    assert.deepEqual(await problems({ settings: { secrets: kind } }), [
      "qa: baton:settings.secrets.SESSION_KEY.source is not shown, as it may be secret; expected one of config, random, existing. Correct it.",
    ]);
  });

  it("refuses an opening to nowhere in particular", async () => {
    const [line = ""] = await problems({ network: { egress: [{ name: "smtp", port: 25 }] } });
    assert.match(line, /network\.egress\[0\] is ambiguous; expected either cidr or namespace/);
    const except = { name: "mocks", namespace: "mocks", except: ["10.0.0.0/8"], port: 80 };
    const [second = ""] = await problems({ network: { egress: [except] } });
    assert.match(second, /network\.egress\[0\]\.except is 10\.0\.0\.0\/8; expected no value/);
  });

  it("refuses a rollout that could replace no pod", async () => {
    const [line = ""] = await problems({ rollout: { maxSurge: "lots" } });
    assert.match(line, /maxSurge is "lots"; expected a number of pods, or a percentage/);
    const [second = ""] = await problems({ rollout: { maxSurge: "0%", maxUnavailable: 0 } });
    assert.match(second, /maxSurge is 0%; expected more than 0 while maxUnavailable is 0/);
  });

  it("refuses an analysis that would judge nothing", async () => {
    const prometheus = "http://prometheus.example.com:9090";
    const analysis = { prometheus, traffic: null, queries: null };
    const lines = await problems({ rollout: { analysis } });
    assert.deepEqual(lines, [
      "qa: baton:rollout.bake is not set; expected a duration, as baton:rollout.analysis.prometheus is set. Say for how long a release is judged, or set analysis to null.",
      "qa: baton:rollout.analysis.traffic is not set; expected a query and its min, as baton:rollout.analysis.prometheus is set. Say what counts requests.",
      "qa: baton:rollout.analysis.queries is not set; expected at least one query, as baton:rollout.analysis.prometheus is set. Describe one.",
    ]);
    const boundless = { bake: "1m", analysis: { queries: { orders: { query: "up" } } } };
    const [line = ""] = await problems({ rollout: boundless });
    assert.match(line, /analysis\.queries\.orders .*; expected a query with max, min or both/);
    const [secret = ""] = await problems({
      rollout: { bake: "1m", analysis: { prometheus: "http://me:secret@prometheus" } },
    });
    assert.match(secret, /analysis\.prometheus is .*; expected a URL without credentials/);
    assert.doesNotMatch(secret, /me:secret/);
  });

  it("refuses names that mean something else already", async () => {
    const secrets = { version: { source: "config" } };
    const lines = await problems({ settings: { secrets } }, { secrets: { version: "v1.0.0" } });
    assert.match(lines.join("\n"), /settings\.secrets\.version is a key of this program/);
    const resources = {
      requests: { cpu: "10m", memory: "32Mi" },
      limits: { cpu: "10m", memory: "32Mi" },
    };
    const [line = ""] = await problems({ workloads: { default: { resources } } });
    assert.match(line, /workloads\.default is the name of a network policy of the namespace/);
  });

  it("lists every mistake at once", async () => {
    const lines = await problems({
      imageTags: "dev-1",
      upstream: "Dev",
      workloads: { web: { port: 0, resources: { requests: { cpu: "much" } } } },
      verification: { run: ["smoke", "smokey"] },
    });
    for (const part of ["imageTags", "upstream", "web.port", "requests.cpu"]) {
      assert.ok(
        lines.some((line) => line.includes(part)),
        `${part} in\n${lines.join("\n")}`,
      );
    }
    assert.equal(new Set(lines).size, lines.length, "each once");
  });

  it("says where a default stands that is wrong", async () => {
    assert.deepEqual(await problems({ registry: { kind: null } }), [
      "qa: baton:registry.kind is not set; expected one of ecr, oci. Correct it.",
    ]);
    assert.deepEqual(await problems({}, { defaults: { limitRange: 5 } }), [
      "qa: baton:defaults.limitRange (Pulumi.yaml) is 5; expected a map. Correct it.",
    ]);
  });

  it("lists what is wrong with a freeze beside all else", async () => {
    const freeze = [
      { name: "weekend", schedule: "0 16 * * 5", duration: "64h", timeZone: "Europe/Bonn" },
      { name: "holidays", from: "2026-12-24T00:00", until: "2026-12-23T00:00" },
    ];
    const lines = await problems({ freeze, upstream: "qa" });
    assert.deepEqual(
      lines.map((line) => line.split(";")[0]),
      [
        "qa: baton:upstream is qa",
        "qa: baton:freeze[0].timeZone is Europe/Bonn",
        "qa: baton:freeze[1].until is 2026-12-23T00:00",
      ],
    );
  });

  describe("with secrets", () => {
    const declared = { settings: { secrets: { API_TOKEN: { source: "config" } } } };

    it("asks for one that is declared and missing", async () => {
      assert.deepEqual(await problems(declared), [
        "qa: baton:API_TOKEN is not set; expected an encrypted value, as baton:settings.secrets.API_TOKEN says. " +
          "Set it with `pulumi config set --secret API_TOKEN --stack qa`.",
      ]);
    });

    it("refuses one in plain text, and does not repeat it", async () => {
      const [line = ""] = await problems({ ...declared, API_TOKEN: "hunter2" });
      assert.match(line, /^qa: baton:API_TOKEN is in plain text; expected a secret\./);
      assert.ok(!line.includes("hunter2"));
    });

    it("refuses one among the plain settings, by name or by look", async () => {
      for (const config of [
        { DATABASE_PASSWORD: "hunter2" },
        { DATABASE_URL: "postgres://app:hunter2@db/app" },
      ]) {
        const [line = ""] = await problems({ settings: { config } });
        assert.match(
          line,
          /in plain text; expected a secret\. Move it to baton:settings\.secrets\./,
        );
        assert.ok(!line.includes("hunter2"));
      }
    });

    it("refuses one in place of its description, and does not repeat it", async () => {
      const text = (await problems({ settings: { secrets: { API_TOKEN: "hunter2" } } })).join("\n");
      assert.match(text, /baton:settings\.secrets\.API_TOKEN is not shown/);
      assert.ok(!text.includes("hunter2"), text);
    });

    it("refuses an encrypted value inside a structured key", async () => {
      const encrypted = { settings: JSON.stringify({ config: { A: "hunter2" } }) };
      const text = (await problems({ settings: null }, { secrets: encrypted })).join("\n");
      assert.match(text, /baton:settings is partly encrypted; expected plain values/);
      assert.ok(!text.includes("hunter2"), text);
    });

    it("takes one that is declared and encrypted", async () => {
      harness.registry.push("secrets", "dev-1");
      const run = await harness.run({
        stack: "qa",
        config: { ...declared, imageTag: "dev-1" },
        secrets: { API_TOKEN: "hunter2" },
      });
      const secret = run.resources.find(({ type }) => type === "kubernetes:core/v1:Secret");
      assert.equal(
        (secret?.inputs["stringData"] as Record<string, string>)["API_TOKEN"],
        "hunter2",
      );
      assert.deepEqual(secret?.secrets, ["stringData"]);
    });
  });

  describe("whose keys must agree", () => {
    const cases: [string, Record<string, unknown>, RegExp][] = [
      [
        "a pin without a tag",
        { imageDigest: `sha256:${"a".repeat(64)}` },
        /imageDigest .* while baton:imageTag is not set/,
      ],
      ["its own upstream", { upstream: "qa" }, /upstream is qa; expected another environment/],
      [
        "a hotfix while the fast lane is closed",
        { hotfixFrom: "dev", imageTag: "dev-1" },
        /^qa: baton:hotfixFrom is dev; expected no value while baton:approval\.hotfix\.upstream is not set\. Correct it, or remove it to take the upstream's tags\.$/,
      ],
      [
        "a hotfix from elsewhere than the fast lane",
        { hotfixFrom: "perf", imageTag: "perf-1", approval: { hotfix: { upstream: "dev" } } },
        /hotfixFrom is perf; expected dev, as baton:approval\.hotfix\.upstream says/,
      ],
      [
        "a hotfix without a tag",
        { hotfixFrom: "dev", approval: { hotfix: { upstream: "dev" } } },
        /hotfixFrom is dev; expected no value while baton:imageTag is not set/,
      ],
      [
        "a fast lane for what nobody has verified",
        { approval: { hotfix: { upstream: "build" } } },
        /approval\.hotfix\.upstream is build; expected another environment/,
      ],
      [
        "a fast lane from itself",
        { approval: { hotfix: { upstream: "qa" } } },
        /approval\.hotfix\.upstream is qa; expected another environment/,
      ],
      [
        "a freeze that cron would not understand",
        { freeze: [{ name: "weekend", schedule: "friday", duration: "64h" }] },
        /freeze\[0\]\.schedule is friday; expected cron's five fields/,
      ],
      [
        "replicas beside autoscale",
        {
          workloads: { web: { autoscale: { minReplicas: 1, maxReplicas: 2, cpuUtilization: 50 } } },
        },
        /replicas is 2; expected no value beside autoscale/,
      ],
      [
        "a maximum below the minimum",
        {
          workloads: {
            web: {
              replicas: null,
              autoscale: { minReplicas: 3, maxReplicas: 2, cpuUtilization: 50 },
            },
          },
        },
        /maxReplicas is 2; expected at least 3/,
      ],
      [
        "a CronJob without a schedule",
        { workloads: { night: { kind: "CronJob", resources: resources() } } },
        /night\.schedule is not set/,
      ],
      [
        "a schedule on a Deployment",
        { workloads: { web: { schedule: "0 3 * * *" } } },
        /schedule is 0 3 .*no value on a Deployment/,
      ],
      [
        "a probe that is two things",
        { workloads: { web: { probes: { liveness: { command: ["true"] } } } } },
        /probes\.liveness is ambiguous/,
      ],
      [
        "an exposure without an entrance",
        { entrances: { internal: null } },
        /exposure\.scope is internal; expected an entrance/,
      ],
      [
        "a suite nobody described",
        { verification: { run: ["smoke", "fuzz"] } },
        /run is fuzz; expected suites that are described: smoke, /,
      ],
      [
        "no smoke suite",
        { verification: { run: ["regression"] } },
        /run is regression; expected smoke and whatever follows/,
      ],
      [
        "alerts without the operator",
        { monitoring: { level: "alerts" } },
        /level is alerts; expected none or scrape without/,
      ],
      [
        "a quota below the rollout's peak",
        { quota: { pods: 3 } },
        /baton:quota\["pods"\] is 3; expected at least 4/,
      ],
      [
        "a quota below the rollout's memory",
        { quota: { "limits.memory": "512Mi" } },
        /limits\.memory"\] is 512Mi; expected at least 1Gi/,
      ],
    ];
    for (const [name, config, expected] of cases) {
      it(`refuses ${name}`, async () => {
        assert.match((await problems(config)).join("\n"), expected);
      });
    }
  });

  describe("for a hotfix", () => {
    const approval = { hotfix: { upstream: "qa" } };
    const hotfix = { imageTag: "qa-46", version: "v1.4.1", hotfixFrom: "qa" };
    const earned = async (config: Record<string, unknown>) =>
      (await harness.run({ stack: "prod", config: { scan: null, ...config } })).outputs[
        "earnedTag"
      ];

    it("is taken where the policy names its environment", async () => {
      harness.registry.push("build 46", "qa-46");
      assert.equal(await earned({ ...hotfix, approval }), "prod-v1.4.1");
    });

    it("lets a release go back to it, and from it, whatever the policy says by then", async () => {
      harness.registry.push("build 46", "qa-46", "prod-v1.4.1");
      harness.registry.push("build 45", "stage-45", "prod-v1.4.0");
      assert.equal(await earned({ ...hotfix, rollbackOf: "stage-47" }), "prod-v1.4.1");
      const back = { imageTag: "stage-45", version: "v1.4.0", rollbackOf: "qa-46" };
      assert.equal(await earned(back), "prod-v1.4.0");
    });

    it("refuses a way back to what was never verified here", async () => {
      harness.registry.push("build 48", "qa-48");
      const config = { ...hotfix, imageTag: "qa-48", version: "v1.4.2", rollbackOf: "stage-47" };
      assert.match(
        await harness.refusal({ stack: "prod", config }),
        /imageTag is qa-48; expected a release that prod has verified before/,
      );
    });
  });

  it("leaves other namespaces' keys alone", async () => {
    const run = await harness.run({ stack: "qa", otherConfig: { "aws:region": "eu-west-1" } });
    assert.ok(run.resources.length > 0);
  });

  describe("of the database", () => {
    const refused = async (
      database: Record<string, unknown>,
      config: Record<string, unknown> = {},
    ) => {
      const options = withDatabase("dev-7", { config }, database);
      return (await harness.refusal(options)).split("\n");
    };

    it("names the secret setting that holds the URL, and never shows the URL itself", async () => {
      const [line = ""] = await refused({ url: "DATABASE" });
      assert.match(line, /^qa: baton:database\.url is DATABASE; expected the name of a secret set/);
      const [shown = ""] = await refused({ url: `postgresql://app:${PASSWORD}@db/app` });
      assert.match(shown, /database\.url is not shown, as it may be secret/);
    });

    it("refreshes no data that people approve releases for", async () => {
      const refresh = { seed: ["seed"] };
      const [line = ""] = await refused({ refresh }, { approval: { required: 1 } });
      assert.match(line, /database\.refresh is set; expected no value where baton:approval\.requ/);
      assert.match(
        (await refused({ refresh: {} })).join(),
        /refresh is empty; expected dump, seed/,
      );
    });

    it("is not backed up or refreshed here where it follows another", async () => {
      const backup = { volume: { size: "1Gi" }, schedule: "0 3 * * *" };
      const lines = await refused({ follower: true, backup, refresh: { seed: ["seed"] } });
      assert.equal(lines.filter((line) => line.includes("no value for a follower")).length, 2);
    });

    it("allows a migration down only where there is one", async () => {
      const [line = ""] = await refused({ policy: { allowDown: true } });
      assert.match(line, /policy\.allowDown is true; expected baton:database\.migration\.down/);
    });

    it("needs its room in the quota", async () => {
      const resources = { requests: { cpu: 9, memory: "9Gi" }, limits: { cpu: 9, memory: "9Gi" } };
      const lines = await refused({ migration: { command: ["migrate"], resources } });
      assert.equal(lines.filter((line) => line.includes("baton:quota")).length, 4);
    });
  });
});

function resources() {
  const amount = { cpu: "10m", memory: "16Mi" };
  return { requests: amount, limits: amount };
}

describe("merging", () => {
  const tree = fc.letrec<{ tree: Record<string, unknown>; value: unknown }>((tie) => ({
    tree: fc.dictionary(fc.constantFrom("a", "b", "c"), tie("value"), { noNullPrototype: true }),
    value: fc.oneof(
      { maxDepth: 3 },
      fc.integer(),
      fc.array(fc.integer(), { maxLength: 2 }),
      tie("tree"),
    ),
  })).tree;

  it("with nothing changes nothing", () => {
    fc.assert(
      fc.property(tree, (one) => {
        assert.deepEqual(mergeTrees(one, {}), one);
        assert.deepEqual(mergeTrees({}, one), one);
      }),
    );
  });

  it("twice is merging once", () => {
    fc.assert(
      fc.property(tree, tree, (one, two) => {
        const merged = mergeTrees(one, two);
        assert.deepEqual(mergeTrees(merged, two), merged);
      }),
    );
  });

  it("with null removes", () => {
    assert.deepEqual(mergeTrees({ a: { b: 1, c: 2 } }, { a: { b: null } }), { a: { c: 2 } });
  });
});
