import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import * as assert from "node:assert/strict";
import { DeclaredObjects } from "../../declared-objects";
import { handOver } from "../../provider/objects";
import type { RecordedResource } from "../../stack-state";
import { KubernetesServer } from "../support/kubernetes";
import { register, type Registered } from "../support/program";

const CONFIG_MAPS = "/api/v1/namespaces/qa/configmaps";
const OWN = { "baton/stack": "baton/qa" };
const KEPT = "urn:pulumi:qa::baton::pulumi:providers:kubernetes::leftovers";

const recordedMap = (name: string): RecordedResource => ({
  type: "kubernetes:core/v1:ConfigMap",
  outputs: { apiVersion: "v1", kind: "ConfigMap", metadata: { name, namespace: "qa" } },
});

describe("the objects that a program declares", () => {
  let cluster: KubernetesServer;
  let resources: Registered[];
  beforeEach(async () => {
    resources = [];
    cluster = await KubernetesServer.start();
    cluster.put("/api", "v1", {
      resources: [
        { kind: "Namespace", name: "namespaces", namespaced: false },
        { kind: "ConfigMap", name: "configmaps", namespaced: true },
      ],
    });
  });
  afterEach(async () => cluster.stop());

  const has = (name: string, annotations: object, others: object = {}) => {
    cluster.put(CONFIG_MAPS, name, { metadata: { annotations, ...others } });
  };
  interface Given {
    readonly recorded?: Readonly<Record<string, RecordedResource>>;
    readonly preview?: boolean;
    readonly isSameRelease?: boolean;
  }
  /** Declares a namespace and the ConfigMaps `settings` and, under a name of Pulumi's own, another. */
  const declare = async ({ recorded = {}, preview = false, isSameRelease = false }: Given = {}) => {
    const program = async () => {
      const objects = new DeclaredObjects(
        { environment: "qa", namespace: "qa", context: undefined, isSameRelease },
        recorded,
      );
      const parent = new Parent("parent", objects.options);
      const namespace = new k8s.core.v1.Namespace(
        "namespace",
        { metadata: { name: "qa" } },
        { parent },
      ).metadata.name;
      const annotations = pulumi.output({ known: "yes" });
      const metadata = { name: "settings", namespace, annotations };
      new k8s.core.v1.ConfigMap("fixed", { metadata, data: { a: "1" } }, { parent });
      new k8s.core.v1.ConfigMap("auto", { metadata: { namespace } }, { parent });
      await objects.check();
      return {};
    };
    await register(program, { stack: "qa", preview }, resources);
  };
  const providerOf = (name: string) => resources.find((one) => one.name === name)?.provider;
  const isDeclared = (name: string) => resources.some((one) => one.name === name);

  it("carry the stack that declares them", async () => {
    await declare();
    const annotations = resources
      .filter(({ type }) => type.startsWith("kubernetes:"))
      .map(({ name, inputs }) => [
        name,
        (inputs["metadata"] as { annotations: object }).annotations,
      ]);
    assert.deepEqual(Object.fromEntries(annotations), {
      namespace: OWN,
      fixed: { known: "yes", ...OWN },
      auto: OWN,
    });
    assert.equal(providerOf("fixed"), "cluster");
    assert.ok(!isDeclared("leftovers"));
  });

  it("are taken over where a killed run has left them", async () => {
    cluster.put("/api/v1/namespaces", "qa", { metadata: { annotations: OWN } });
    const managedFields = [
      { manager: "pulumi-kubernetes", operation: "Update", apiVersion: "v1", fieldsV1: { a: {} } },
    ];
    has("settings", OWN, { managedFields });
    await declare();
    assert.equal(providerOf("namespace"), "leftovers");
    assert.equal(providerOf("fixed"), "leftovers");
    assert.equal(providerOf("auto"), "cluster");
    assert.deepEqual(cluster.get(`${CONFIG_MAPS}/settings`)?.["data"], { a: "1" });
  });

  it("are looked for only where the namespace is there", async () => {
    has("settings", {});
    await declare();
    assert.equal(providerOf("fixed"), "cluster");
  });

  for (const [whose, annotations, said] of [
    ["no stack's", {}, "no stack's"],
    ["another project's", { "baton/stack": "other/qa" }, "stack other/qa's"],
  ] as const) {
    it(`are refused before any is touched where one is ${whose}`, async () => {
      cluster.put("/api/v1/namespaces", "qa", { metadata: { annotations: OWN } });
      has("settings", annotations);
      const before = cluster.get(`${CONFIG_MAPS}/settings`);
      await assert.rejects(declare(), (error: Error) => {
        assert.match(
          error.message,
          /^qa: ConfigMap qa\/settings is .*; expected none of that name/,
        );
        assert.ok(error.message.includes(said), error.message);
        assert.ok(error.message.includes("kubectl annotate configmap settings -n qa"));
        return true;
      });
      assert.deepEqual(
        resources.filter(({ type }) => type.startsWith("kubernetes:")),
        [],
      );
      assert.deepEqual(cluster.get(`${CONFIG_MAPS}/settings`), before);
    });
  }

  it("are previewed all the same, so that they can be imported", async () => {
    cluster.put("/api/v1/namespaces", "qa", { metadata: {} });
    await declare({ preview: true });
    assert.ok(isDeclared("fixed"));
  });

  it("are not looked for where they are recorded", async () => {
    has("settings", {});
    const namespace = {
      type: "kubernetes:core/v1:Namespace",
      outputs: { apiVersion: "v1", kind: "Namespace", metadata: { name: "qa" } },
    };
    await declare({ recorded: { "urn:a": recordedMap("settings"), "urn:b": namespace } });
    assert.equal(providerOf("fixed"), "cluster");
  });

  it("keep their second connection until the next release", async () => {
    const recorded = { [KEPT]: { type: "pulumi:providers:kubernetes", outputs: {} } };
    await declare({ recorded, isSameRelease: true });
    assert.ok(isDeclared("leftovers"));
    resources.length = 0;
    await declare({ recorded });
    assert.ok(!isDeclared("leftovers"));
    resources.length = 0;
    await declare({ recorded, preview: true });
    assert.ok(isDeclared("leftovers"), "no preview shows its end");
  });
});

class Parent extends pulumi.ComponentResource {
  constructor(name: string, opts: pulumi.ComponentResourceOptions) {
    super("test:Parent", name, {}, opts);
  }
}

describe("the fields of an object", () => {
  const to = { manager: "one", operation: "Apply", apiVersion: "v1" };
  const fields = (...names: string[]) => Object.fromEntries(names.map((name) => [name, {}]));
  const manager = (name: string, others: object) => ({
    ...{ manager: name, operation: "Update", apiVersion: "v1" },
    ...others,
  });

  it("go to one manager from all that are given up", () => {
    const other = manager("other", { fieldsV1: fields("f:z") });
    const dead = manager("dead", { fieldsV1: { "f:spec": fields("f:a", "f:b") } });
    const again = manager("dead-2", { fieldsV1: { "f:spec": fields("f:b", "f:c") } });
    const managers = handOver([dead, other, again], (one) => /^dead/.test(one.manager ?? ""), to);
    assert.deepEqual(managers, [
      other,
      {
        ...to,
        fieldsType: "FieldsV1",
        fieldsV1: { "f:spec": fields("f:a", "f:b", "f:c") },
      },
    ]);
  });

  it("of a subresource, or of another version, stay", () => {
    const scale = manager("dead", { subresource: "scale", fieldsV1: fields("f:a") });
    const old = manager("dead", { apiVersion: "v1beta1", fieldsV1: fields("f:a") });
    assert.deepEqual(
      handOver([scale, old], () => true, to),
      [scale, old],
    );
  });
});
