import { strict as assert } from "node:assert";
import { abandonedObjects, parseState, pendingCreates, rootOf } from "../../cli/state";
import type { Tree } from "../../release/merge";

const TYPE = "kubernetes:core/v1:ConfigMap";
const URN = `urn:pulumi:qa::baton::${TYPE}::settings`;

const inputs = (name: string, annotations?: Tree) => ({
  apiVersion: "v1",
  kind: "ConfigMap",
  metadata: { name, namespace: "app", ...(annotations && { annotations }) },
});
const AUTONAMED = inputs("settings-1a2b", { "pulumi.com/autonamed": "true" });
const creating = (of: Tree, urn = URN, type = TYPE) => ({
  type: "creating",
  resource: { urn, type, custom: true, inputs: of },
});
const state = (resources: Tree[], operations: unknown[]) =>
  parseState(
    JSON.stringify({ version: 3, deployment: { resources, pending_operations: operations } }),
  );

describe("the state that a killed run has left", () => {
  it("has its creates pending, and the stack itself", () => {
    const urn = "urn:pulumi:qa::baton::pulumi:pulumi:Stack::baton-qa";
    const updating = { ...creating(AUTONAMED), type: "updating" };
    const left = state([{ urn, type: "pulumi:pulumi:Stack" }], [updating, creating(AUTONAMED)]);
    assert.deepEqual(pendingCreates(left), [URN]);
    assert.equal(rootOf(left), urn);
    assert.equal(rootOf(state([], [])), undefined);
  });

  it("abandons the objects under names that no other run knows", () => {
    const left = state([], [creating(AUTONAMED), creating(inputs("web"), "urn:web")]);
    assert.deepEqual(abandonedObjects(left, left), [AUTONAMED]);
  });

  it("abandons what was made in place of an object that was deleted before", () => {
    const former = { urn: URN, type: TYPE, id: "app/web", pendingReplacement: true };
    const left = state([former], [creating(inputs("web"))]);
    assert.deepEqual(abandonedObjects(left, left), [inputs("web")]);
  });

  it("keeps what is recorded by now, and what another run makes", () => {
    const left = state([], [creating(AUTONAMED)]);
    const recorded = { urn: URN, type: TYPE, id: "app/settings-1a2b" };
    assert.deepEqual(abandonedObjects(left, state([recorded], [creating(AUTONAMED)])), []);
    assert.deepEqual(abandonedObjects(state([], []), left), []);
    assert.deepEqual(abandonedObjects(left, state([], [])), []);
  });

  it("keeps what is no object of a cluster", () => {
    const random = creating({ length: 8 }, "urn:random", "random:index:RandomPassword");
    const left = state([], [random]);
    assert.deepEqual(abandonedObjects(left, left), []);
  });
});
