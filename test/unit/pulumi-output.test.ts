import * as assert from "node:assert/strict";
import { diagnostics, hasTouched, PreviewOutput, reasonsOf } from "../../cli/pulumi";

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

describe("why a preview failed", () => {
  const error = (message: string, urn = "") => ({ severity: "error", message, urn });
  const urn =
    "urn:pulumi:qa::baton::baton:components:EnvironmentNamespace$kubernetes:core/v1:ResourceQuota::namespace-quota";
  const head =
    'error: Preview failed: 1 error occurred:\n\t* the Kubernetes API server reported that "qa/quota" failed to fully initialize or become live: ';

  it("is said once by environment, object and field where the cluster refuses it", () => {
    const field = 'spec.hard[request.cpu]: Invalid value: "request.cpu": must be';
    const invalid = `ResourceQuota "quota" is invalid: [${field} a standard resource type or fully qualified, ${field} a standard resource for quota, spec.scopes: Required value]\n\n\n`;
    assert.deepEqual(
      reasonsOf([error(`${head}${invalid}`, urn), error("error: preview failed\n")]),
      [
        `qa: the cluster refuses ResourceQuota quota: ${field} a standard resource type or fully qualified; spec.scopes: Required value`,
      ],
    );
    const one = `Deployment.apps "web" is invalid: spec.replicas: Invalid value: -1: must be greater than 0`;
    assert.deepEqual(reasonsOf([error(`${head}${one}`, urn)]), [
      "qa: the cluster refuses Deployment web: spec.replicas: Invalid value: -1: must be greater than 0",
    ]);
  });

  it("is said in Pulumi's words otherwise", () => {
    const refused = "error: qa: baton:imageTag is dev-9";
    assert.deepEqual(reasonsOf([error(refused), { ...error("hm"), severity: "info" }]), [refused]);
  });
});

describe("what Pulumi's preview prints", () => {
  /** As in pkg/backend/display/json.go; what is not read is left out. */
  const step = (fields: object) => ({
    op: "update",
    urn: "urn:pulumi:qa::baton::a:b:C::web",
    ...fields,
  });
  const paths = (fields: object) => PreviewOutput.parse({ steps: [step(fields)] }).steps[0]?.paths;
  const change = { kind: "update", inputDiff: true };

  it("says which properties change", () => {
    const detailedDiff = {
      "spec.template.spec.containers[0].image": change,
      "metadata.labels": change,
    };
    assert.deepEqual(paths({ detailedDiff, diffReasons: ["metadata", "spec"] }), [
      "metadata.labels",
      "spec.template.spec.containers[0].image",
    ]);
  });

  it("names what it knows of where the provider gives no details", () => {
    const reasons = { diffReasons: ["tag"], replaceReasons: ["digest", "tag"] };
    assert.deepEqual(paths({ op: "replace", detailedDiff: null, ...reasons }), ["digest", "tag"]);
    assert.equal(paths({ detailedDiff: null }), undefined);
    assert.equal(paths({ detailedDiff: {} }), undefined);
  });

  it("tells another wait for what did not get ready from a change without details", () => {
    const failed = { inputs: { a: 1 }, initErrors: ["web: not ready"] };
    assert.deepEqual(paths({ oldState: failed, newState: { inputs: { a: 1 } } }), ["#initerror"]);
    assert.equal(paths({ oldState: failed, newState: { inputs: { a: 2 } } }), undefined);
    const ready = { inputs: { a: 1 } };
    assert.equal(paths({ oldState: ready, newState: ready }), undefined);
  });

  it("keeps values and generated names to itself", () => {
    const { steps } = PreviewOutput.parse({
      config: { "baton:KEY": "plain" },
      steps: [step({ detailedDiff: null, newState: { inputs: { password: "hunter2" } } })],
    });
    assert.deepEqual(steps, [step({})]);
  });

  it("leaves out what a component does not have", () => {
    const state = { urn: "urn:pulumi:qa::baton::a:b:C::web", custom: false, type: "a:b:C" };
    const same = { op: "same", detailedDiff: null, oldState: state, newState: state };
    assert.equal(paths(same), undefined);
    assert.equal(paths({ op: "create", detailedDiff: null, newState: state }), undefined);
  });

  it("may say nothing", () => {
    const nothing = { steps: [], next: new Map(), diagnostics: [] };
    assert.deepEqual(PreviewOutput.parse({}), nothing);
  });
});
