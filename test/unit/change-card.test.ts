import * as assert from "node:assert/strict";
import { formatCard, groupOperations, type ChangeCard } from "../../release/change-card";

const urn = (type: string, name: string) => `urn:pulumi:qa::baton::${type}::${name}`;
const JOB = "baton:components:Verification$kubernetes:batch/v1:Job";

const card: ChangeCard = {
  environment: "prod",
  from: { tag: "stage-44", digest: "sha256:aa", version: "v1.3.0" },
  to: { tag: "stage-45", digest: "sha256:bb", version: "v1.4.0" },
  plan: "0123456789ab",
  requester: "ann@example.com",
  operations: [{ op: "delete", type: "a:b:C", names: ["x", "y"] }],
  missing: ["prod: nobody has approved."],
};

describe("the change card", () => {
  it("groups what a preview would do, deletions and replacements first", () => {
    const groups = groupOperations([
      { op: "same", urn: urn("pulumi:pulumi:Stack", "baton-qa") },
      { op: "create", urn: urn("kubernetes:core/v1:ConfigMap", "settings-dev-45") },
      { op: "create-replacement", urn: urn(JOB, "verification-smoke") },
      { op: "replace", urn: urn(JOB, "verification-smoke") },
      { op: "delete-replaced", urn: urn(JOB, "verification-smoke") },
      { op: "update", urn: urn("kubernetes:apps/v1:Deployment", "web") },
      { op: "delete", urn: urn("kubernetes:core/v1:ConfigMap", "settings-dev-44") },
      { op: "create", urn: urn("kubernetes:core/v1:ConfigMap", "other::name") },
    ]);
    assert.deepEqual(groups, [
      { op: "delete", type: "kubernetes:core/v1:ConfigMap", names: ["settings-dev-44"] },
      { op: "replace", type: "kubernetes:batch/v1:Job", names: ["verification-smoke"] },
      { op: "update", type: "kubernetes:apps/v1:Deployment", names: ["web"] },
      {
        op: "create",
        type: "kubernetes:core/v1:ConfigMap",
        names: ["settings-dev-45", "other::name"],
      },
    ]);
  });

  it("says from what to what, and what is missing", () => {
    assert.equal(
      formatCard(card),
      `prod: stage-44 → stage-45
  digest    sha256:aa → sha256:bb
  version   v1.3.0 → v1.4.0
  plan      0123456789ab
  asked by  ann@example.com
  delete    2 a:b:C: x, y
  missing   prod: nobody has approved.`,
    );
  });

  it("says so where nothing ran before, and where nothing changes", () => {
    const text = formatCard({
      ...card,
      from: {},
      to: { tag: "build-1", digest: "sha256:aa" },
      operations: [],
      missing: [],
    });
    assert.match(text, /^prod: nothing → build-1\n/);
    assert.match(text, /changes {3}none$/);
    assert.doesNotMatch(text, /version|missing/);
    assert.match(formatCard({ ...card, to: card.from }), /sha256:aa \(unchanged\)/);
  });
});
