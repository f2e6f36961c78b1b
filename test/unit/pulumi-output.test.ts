import * as assert from "node:assert/strict";
import { diagnostics, hasTouched } from "../../cli/pulumi";

const REFUSED = `Updating (qa):

@ updating....
    pulumi:pulumi:Stack baton-qa running
    pulumi:pulumi:Stack baton-qa running error: qa: baton:imageTag is dev-9
    pulumi:pulumi:Stack baton-qa **failed** 1 error
Diagnostics:
  pulumi:pulumi:Stack (baton-qa):
    error: qa: baton:imageTag is dev-9; nothing was updated
Resources:
    9 unchanged
`;

describe("what Pulumi prints", () => {
  it("says whether any resource was touched", () => {
    assert.equal(hasTouched(REFUSED.split("\n")), false);
    assert.equal(hasTouched([]), false);
    assert.equal(hasTouched([" ~  kubernetes:apps/v1:Deployment web updating (0s)"]), true);
    assert.equal(hasTouched([" +  kubernetes:batch/v1:Job smoke created (3s)"]), true);
  });

  it("says why it failed", () => {
    assert.match(diagnostics(REFUSED), /^Diagnostics:\n[^]*nothing was updated$/);
  });
});
