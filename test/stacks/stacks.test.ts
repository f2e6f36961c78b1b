import * as assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { stringify } from "yaml";
import { mergeTrees } from "../../release/merge";
import {
  committedConfig,
  ProgramHarness,
  ROOT,
  STACKS,
  type Registered,
  type Run,
} from "../support/program";
import { release } from "../support/releases";

for (const stack of STACKS) {
  describe(`the ${stack} stack`, () => {
    let harness: ProgramHarness;
    let run: Run;

    before(async () => {
      harness = await ProgramHarness.start();
      run = await harness.run(release(harness, stack));
    });
    after(() => harness.stop());

    it("is what its golden file shows", () => {
      const path = join(ROOT, "test", "golden", `${stack}.yaml`);
      const text = render(run, harness.registry.host);
      if (process.env["UPDATE_GOLDEN"] === "1") writeFileSync(path, text);
      assert.equal(
        text,
        readFileSync(path, "utf8"),
        "run `npm run golden` and read the difference",
      );
    });

    it("gives every resource a component for its parent", () => {
      for (const { type, name, custom, parent } of run.resources) {
        if (!custom || type.startsWith("pulumi:")) continue;
        assert.match(parent, /\$baton:components:\w+::/, `${type} ${name}`);
      }
    });

    it("registers nothing twice, and no name that Kubernetes refuses", () => {
      const keys = run.resources.map(({ type, name, parent }) => `${parent} ${type} ${name}`);
      assert.equal(new Set(keys).size, keys.length);
      for (const { name, inputs } of kubernetes(run)) {
        const length = (metadata(inputs).name ?? `${name}-12345678`).length;
        assert.ok(length <= 63, name);
      }
    });

    it("puts everything into its own namespace", () => {
      for (const { type, name, inputs } of kubernetes(run)) {
        if (type === "kubernetes:core/v1:Namespace") continue;
        assert.equal(metadata(inputs).namespace, stack, `${type} ${name}`);
      }
    });

    it("runs the image by digest, with probes, limits and no more rights than it needs", () => {
      const pods = run.resources.flatMap(podsOf);
      assert.ok(pods.length >= 2);
      for (const { containers, initContainers = [], securityContext, ...pod } of pods) {
        assert.equal(securityContext.runAsNonRoot, true);
        assert.deepEqual(securityContext.seccompProfile, { type: "RuntimeDefault" });
        assert.equal(pod.automountServiceAccountToken, false);
        for (const { name, image, resources, securityContext: rights } of [
          ...containers,
          ...initContainers,
        ]) {
          if (!image.includes("podinfo-tests")) assert.match(image, /@sha256:[0-9a-f]{64}$/, name);
          assert.equal(rights.readOnlyRootFilesystem, true, name);
          assert.equal(rights.allowPrivilegeEscalation, false, name);
          assert.deepEqual(rights.capabilities, { drop: ["ALL"] }, name);
          for (const key of ["requests", "limits"] as const) {
            assert.ok(resources[key].cpu && resources[key].memory, `${name} ${key}`);
          }
        }
      }
      for (const { inputs } of ofType(run, "kubernetes:apps/v1:Deployment")) {
        const [app] = (inputs as { spec: { template: { spec: Pod } } }).spec.template.spec
          .containers;
        assert.ok(app?.startupProbe && app.readinessProbe && app.livenessProbe);
      }
    });

    it("sends no secret in the clear", () => {
      const secrets = ofType(run, "kubernetes:core/v1:Secret");
      assert.ok(secrets.length > 0);
      for (const { secrets: paths } of secrets) assert.deepEqual(paths, ["stringData"]);
      const elsewhere = run.resources.filter(({ type }) => !type.includes("Secret"));
      assert.ok(!JSON.stringify(elsewhere).includes("generated-"), "a generated value");
      assert.ok(!JSON.stringify(run.outputs).includes("generated-"), "in an output");
    });

    it("deploys, then verifies, then earns the tag, in this order", () => {
      const byName = (type: string, name: string) =>
        run.resources.find((one) => one.type === type && one.name === name);
      const job = "kubernetes:batch/v1:Job";
      const suites = committedSuites(stack).map((suite) => `verification-${suite}`);
      assert.deepEqual(
        ofType(run, job)
          .map(({ name }) => name)
          .sort(),
        [...suites].sort(),
      );
      const [first = "", ...rest] = suites;
      assert.ok(byName(job, first)?.dependsOn.includes("web-rollout"));
      assert.ok(byName(job, first)?.dependsOn.includes("namespace-network-default"));
      rest.forEach((suite, index) => {
        assert.ok(byName(job, suite)?.dependsOn.includes(suites[index] ?? ""), suite);
      });
      const tag = byName("promotion:index:EarnedTag", "verification-earned-tag");
      assert.ok(tag);
      const bake = byName("promotion:index:Bake", "verification-bake");
      const { bake: asked } = committedRollout(stack);
      assert.ok(bake);
      const bakes = Number(bake.inputs["seconds"]) > 0;
      assert.equal(bakes, asked !== undefined, "bakes where the stack file says so");
      assert.ok(bake.dependsOn.includes(suites.at(-1) ?? ""));
      assert.ok(tag.dependsOn.includes(bake.name));
      assert.equal(tag.inputs["tag"], run.outputs["earnedTag"]);
      assert.equal(run.resources.at(-1)?.name, "verification-earned-tag", "the last of all");
    });

    it("runs a failed suite again, and never leaves one behind", () => {
      for (const { options, inputs } of ofType(run, "kubernetes:batch/v1:Job")) {
        assert.deepEqual(options.replaceOnChanges, ["#initerror"]);
        assert.equal(options.deleteBeforeReplace, true);
        const { spec } = inputs as { spec: Record<string, unknown> };
        assert.equal(spec["backoffLimit"], 0);
        assert.equal(spec["ttlSecondsAfterFinished"], undefined, "a refresh would run it again");
        assert.equal(options.createTimeout, `${Number(spec["activeDeadlineSeconds"]) + 30}s`);
      }
    });

    it("releases what it adopts from former managers, and explains failed Jobs only", () => {
      const objects = run.resources.filter(({ type }) => type.startsWith("kubernetes:"));
      for (const { type, name, options } of objects) {
        assert.deepEqual(options.hooks.beforeUpdate, ["release-fields"], name);
        const isJob = type === "kubernetes:batch/v1:Job";
        assert.deepEqual(options.hooks.onError, isJob ? ["explain-job"] : [], name);
      }
    });

    it("runs its suites again when what is deployed changes", async () => {
      const verifies = ({ resources }: Run) =>
        resources
          .filter(({ type }) => type === "kubernetes:batch/v1:Job")
          .map(({ inputs }) => JSON.stringify(inputs).match(/"baton\/verifies":"(\w+)"/)?.[1]);
      const same = await harness.run(release(harness, stack));
      assert.deepEqual(verifies(same), verifies(run));
      const config = { settings: { config: { CACHE_TTL_SECONDS: 1234 } } };
      const settings = await harness.run(release(harness, stack, { config }));
      const pod = await harness.run(
        release(harness, stack, { config: { workloads: { web: { preStopSeconds: 9 } } } }),
      );
      assert.notDeepEqual(verifies(settings), verifies(run));
      assert.notDeepEqual(verifies(pod), verifies(run));
    });

    it("makes only its foundation without a tag, and registers all of it in a preview", async () => {
      const { resources, outputs } = await harness.run({ stack });
      const types = new Set(resources.map(({ type }) => type));
      assert.ok(types.has("kubernetes:core/v1:ResourceQuota"));
      assert.ok(!types.has("kubernetes:apps/v1:Deployment"));
      assert.equal(outputs["earnedTag"], undefined);
      const preview = await harness.run(release(harness, stack, { preview: true }));
      const names = ({ resources: all }: Run) =>
        all.map(({ type, name }) => `${type} ${name}`).sort();
      assert.deepEqual(names(preview), names(run), "none is made in an apply");
    });

    it("is not emptied by a tag that went missing", async () => {
      const lastOutputs = { release: { imageTag: "build-44" } };
      assert.match(
        await harness.refusal({ stack, lastOutputs }),
        /baton:imageTag is not set; expected a tag, as build-44 runs here and would be removed/,
      );
    });
  });
}

describe("stage and prod", () => {
  it("differ in nothing but this", () => {
    const flat = (stack: string) => {
      const { defaults, own } = committedConfig(stack);
      return flatten(mergeTrees(defaults, own));
    };
    const [stage, prod] = [flat("stage"), flat("prod")];
    const keys = [...new Set([...Object.keys(stage), ...Object.keys(prod)])].sort();
    const differences = keys
      .filter((key) => stage[key] !== prod[key])
      .map((key) => `${key}: ${stage[key] ?? "–"} → ${prod[key] ?? "–"}`);
    assert.deepEqual(differences, [
      "announce.failures: [qa] → [oncall]",
      "announce.outcomes: [qa] → [dev, release]",
      "announce.requests: – → [dev, release]",
      "approval.required: – → 2",
      "cluster.context: stage → prod",
      "monitoring.level: scrape → alerts",
      "network.egress: [postgres 10.30.0.0/16, redis 10.30.0.0/16, https 0.0.0.0/0] → [postgres 10.40.0.0/16, redis 10.40.0.0/16, https 0.0.0.0/0]",
      "quota.limits.cpu: 8 → 24",
      "quota.limits.memory: 8Gi → 24Gi",
      "quota.pods: 15 → 30",
      "quota.requests.cpu: 4 → 12",
      "quota.requests.memory: 4Gi → 12Gi",
      "rollout.bake: 2m → 15m",
      "scan.refuse: – → critical",
      "settings.config.CACHE_HOST: redis.stage.example.com → redis.prod.example.com",
      "settings.config.DATABASE_HOST: postgres.stage.example.com → postgres.prod.example.com",
      "settings.config.LOG_LEVEL: info → warn",
      "settings.config.PAYMENTS_URL: https://sandbox.payments.example.com → https://payments.example.com",
      "upstream: qa → stage",
      "verification.run: [smoke, regression, end-to-end, load] → [smoke]",
      "versioned: – → true",
      "workloads.web.autoscale.cpuUtilization: – → 70",
      "workloads.web.autoscale.maxReplicas: – → 10",
      "workloads.web.autoscale.minReplicas: – → 5",
      "workloads.web.exposure.host: podinfo.stage.example.com → podinfo.example.com",
      "workloads.web.exposure.sourceRanges: [203.0.113.0/24] → –",
      "workloads.web.replicas: 3 → –",
      "workloads.web.resources.limits.cpu: 500m → 1",
      "workloads.web.resources.limits.memory: 512Mi → 1Gi",
      "workloads.web.resources.requests.cpu: 250m → 500m",
      "workloads.web.resources.requests.memory: 256Mi → 512Mi",
    ]);
  });
});

interface Container {
  readonly name: string;
  readonly image: string;
  readonly resources: Record<"requests" | "limits", { cpu?: string; memory?: string }>;
  readonly securityContext: Record<string, unknown>;
  readonly startupProbe?: unknown;
  readonly readinessProbe?: unknown;
  readonly livenessProbe?: unknown;
}

interface Pod {
  readonly containers: readonly Container[];
  readonly initContainers?: readonly Container[];
  readonly securityContext: Record<string, unknown>;
  readonly automountServiceAccountToken: boolean;
}

function podsOf({ type, inputs }: Registered): Pod[] {
  const { spec } = inputs as { spec?: { template?: { spec: Pod } } };
  return /:(Deployment|Job)$/.test(type) && spec?.template ? [spec.template.spec] : [];
}

function ofType({ resources }: Run, type: string): Registered[] {
  return resources.filter((resource) => resource.type === type);
}

function kubernetes({ resources }: Run): Registered[] {
  return resources.filter(({ type }) => type.startsWith("kubernetes:"));
}

function metadata(inputs: Registered["inputs"]): { name?: string; namespace?: string } {
  return inputs["metadata"] as { name?: string; namespace?: string };
}

function committedSuites(stack: string): string[] {
  const { own } = committedConfig(stack);
  return (own["verification"] as { run: string[] }).run;
}

function committedRollout(stack: string): { bake?: string } {
  return committedConfig(stack).own["rollout"] ?? {};
}

/** Every resource of a run as people read it: by type and name, without what a test run makes up. */
function render({ resources, outputs }: Run, registryHost: string): string {
  const shown = resources
    .filter(({ custom, type }) => custom && !type.startsWith("pulumi:pulumi:"))
    .map(({ type, name, inputs, secrets }) => ({
      [`${type} ${name}`]: mask(inputs, secrets),
    }))
    .sort((a, b) => (Object.keys(a)[0] ?? "").localeCompare(Object.keys(b)[0] ?? "", "en"));
  const document = { resources: Object.assign({}, ...shown) as object, outputs };
  return stringify(document, { lineWidth: 0, aliasDuplicateObjects: false })
    .replaceAll(registryHost, "registry.example.com")
    .replace(/("baton\/verifies"|baton\/verifies): "?\w+"?/g, "baton/verifies: (hash)")
    .replace(/^( +(?:spec|template)): "?[0-9a-f]{16}"?$/gm, "$1: (hash)")
    .replace(/( job\/.*)-[0-9a-f]{8}$/gm, "$1-(hash)");
}

function mask(inputs: Registered["inputs"], secrets: readonly string[]): object {
  return Object.fromEntries(
    Object.entries(inputs).map(([key, value]) => [
      key,
      secrets.includes(key) && typeof value === "object" && value !== null
        ? Object.fromEntries(Object.keys(value).map((name) => [name, "[secret]"]))
        : value,
    ]),
  );
}

function flatten(tree: unknown, path = ""): Record<string, string> {
  if (Array.isArray(tree)) {
    const items = tree.map((item: unknown) =>
      typeof item === "object" && item !== null && "name" in item && "cidr" in item
        ? `${String(item.name)} ${String(item.cidr)}`
        : String(item),
    );
    return { [path]: `[${items.join(", ")}]` };
  }
  if (typeof tree !== "object" || tree === null) return { [path]: String(tree) };
  return Object.assign(
    {},
    ...Object.entries(tree).map(([key, value]) =>
      flatten(value, path === "" ? key : `${path}.${key}`),
    ),
  ) as Record<string, string>;
}
