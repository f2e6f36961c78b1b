import type { KubernetesObject } from "@kubernetes/client-node";
import { strict as assert } from "node:assert";
import { parseState, recordCreated } from "../../cli/state";
import { isTree, type Tree } from "../../release/merge";

const URN = "urn:pulumi:qa::baton::kubernetes:core/v1:Service::web";
const INPUTS = { apiVersion: "v1", kind: "Service", metadata: { name: "web", namespace: "app" } };
const LIVE: KubernetesObject = { metadata: { name: "web", namespace: "app" } };

const pending = (type: string, resource: Tree) => ({ type, resource });
const creating = pending("creating", {
  urn: URN,
  type: "kubernetes:core/v1:Service",
  custom: true,
  inputs: INPUTS,
  parent: "urn:parent",
});
const state = (resources: Tree[], operations: unknown[]) =>
  parseState(
    JSON.stringify({ version: 3, deployment: { resources, pending_operations: operations } }),
  );
const has = (live: KubernetesObject | undefined) => () => Promise.resolve(live);

describe("what a killed run had begun to create", () => {
  it("is recorded as the provider would have", async () => {
    const other = { urn: "urn:parent", type: "a:b:C", custom: false };
    const recorded = await recordCreated(state([other], [creating]), has(LIVE));
    assert.deepEqual(recorded, {
      version: 3,
      deployment: {
        resources: [
          other,
          {
            ...creating.resource,
            id: "app/web",
            outputs: { ...INPUTS, __inputs: INPUTS, __initialApiVersion: "v1" },
          },
        ],
        pending_operations: [],
      },
    });
  });

  it("goes on to be applied in the name it was made in", async () => {
    const managedFields = [
      { manager: "kube-controller-manager", operation: "Update" },
      { manager: "pulumi-kubernetes-1a2b3c4d", operation: "Apply" },
    ];
    const live = { metadata: { name: "web", namespace: "app", managedFields } };
    const recorded = await recordCreated(state([], [creating]), has(live));
    const outputs = recorded?.deployment.resources[0]?.["outputs"];
    assert.ok(isTree(outputs));
    assert.equal(outputs["__fieldManager"], "pulumi-kubernetes-1a2b3c4d");
  });

  it("has its name alone for an id where it is of the whole cluster", async () => {
    const recorded = await recordCreated(
      state([], [creating]),
      has({ metadata: { name: "baton-dev" } }),
    );
    assert.equal(recorded?.deployment.resources[0]?.["id"], "baton-dev");
  });

  it("lets what it was to replace be deleted", async () => {
    const former = { urn: URN, type: "kubernetes:core/v1:Service", id: "app/web-1" };
    const recorded = await recordCreated(state([former], [creating]), has(LIVE));
    assert.deepEqual(
      recorded?.deployment.resources.map((one) => [one["id"], one.delete]),
      [
        ["app/web-1", true],
        ["app/web", undefined],
      ],
    );
    const gone = { ...former, pendingReplacement: true };
    const after = await recordCreated(state([gone], [creating]), has(LIVE));
    assert.deepEqual(
      after?.deployment.resources.map((one) => one["id"]),
      ["app/web"],
    );
  });

  it("is left to the next `up` where there is nothing of it", async () => {
    assert.equal(await recordCreated(state([], [creating]), has(undefined)), undefined);
    const updating = pending("updating", creating.resource);
    assert.equal(await recordCreated(state([], [updating]), has(LIVE)), undefined);
    const random = pending("creating", { urn: "urn:r", type: "random:index:RandomPassword" });
    assert.equal(await recordCreated(state([], [random]), has(LIVE)), undefined);
  });
});
