import type { V1ManagedFieldsEntry } from "@kubernetes/client-node";
import * as assert from "node:assert/strict";
import { releasedFrom } from "../../provider/ownership";

const OWN = "pulumi-kubernetes-1a2b3c4d";

function entry(manager: string, fieldsV1: object, more: Partial<V1ManagedFieldsEntry> = {}) {
  return { manager, operation: "Update", apiVersion: "apps/v1", fieldsV1, ...more };
}

describe("the fields of an object that is adopted", () => {
  const spec = { "f:spec": { "f:template": {} } };

  it("are released from each former manager, by names that stay apart", () => {
    const helm = entry("helm", spec);
    const flux = entry("flux", spec, { operation: "Apply" });
    assert.deepEqual(releasedFrom([helm, flux], OWN), [
      entry("before-first-apply-0", spec),
      entry("before-first-apply-1", spec),
    ]);
  });

  it("stay a controller's where they are annotations, finalizers or owners", () => {
    const labels = { "f:labels": { "f:app": {} } };
    const left = { "f:annotations": { "f:mesh/revision": {} }, "f:finalizers": {} };
    const fields = { ...spec, "f:metadata": { ...labels, ...left } };
    assert.deepEqual(releasedFrom([entry("node-fetch", fields)], OWN), [
      entry("before-first-apply-0", { ...spec, "f:metadata": labels }),
      entry("node-fetch", { "f:metadata": left }),
    ]);
  });

  it("stay an autoscaler's, and those of Kubernetes itself", () => {
    const scale = entry("kube-controller-manager", spec, { subresource: "scale" });
    const custom = entry("keda", spec, { subresource: "scale" });
    const volume = entry("kube-controller-manager", { "f:spec": { "f:volumeName": {} } });
    assert.equal(releasedFrom([scale, custom, volume], OWN), undefined);
  });

  it("stay everybody's once this stack has applied the object", () => {
    const own = entry(OWN, spec, { operation: "Apply" });
    assert.equal(releasedFrom([own, entry("helm", spec)], OWN), undefined);
  });

  it("are released from another stack, too", () => {
    const other = entry("pulumi-kubernetes-5e6f7a8b", spec, { operation: "Apply" });
    assert.deepEqual(releasedFrom([other], OWN), [entry("before-first-apply-0", spec)]);
  });
});
