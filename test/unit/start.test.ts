import * as assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { isTree, type Tree } from "../../release/merge";
import {
  describeProperty,
  formatStart,
  movedProperties,
  parseStarts,
  startObjects,
  startsOf,
  unapprovedStarts,
  type NextResource,
  type StateResource,
} from "../../release/start";

interface Exported extends StateResource {
  readonly type: string;
  readonly inputs: Tree;
}
type Environment = "dev" | "qa" | "stage" | "prod";

const SECRET = "4dabf18193072939515e22adb298388d";
const FIXTURE = join(__dirname, "../fixtures/former-provider/recorded.json.gz");
const { environments } = JSON.parse(gunzipSync(readFileSync(FIXTURE)).toString()) as {
  environments: Record<
    Environment,
    { state: { deployment: { resources: (Partial<Exported> & { urn: string; type: string })[] } } }
  >;
};

/** A real state, as `pulumi stack export` printed it. */
function exported(environment: Environment): Exported[] {
  const { resources } = environments[environment].state.deployment;
  return resources.map((one) => ({ inputs: {}, outputs: {}, ...one }));
}

/** The same as a program sees it: outputs, with secrets decrypted. */
function seen(state: readonly StateResource[]): StateResource[] {
  const decrypted = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(decrypted);
    if (!isTree(value)) return value;
    if (SECRET in value) return { TOKEN: "aHVudGVyMg==" };
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, decrypted(item)]));
  };
  return state.map(({ urn, outputs }) => ({ urn, outputs: decrypted(outputs) as Tree }));
}

function changed(tree: Tree, change: (text: string) => string): Tree {
  return JSON.parse(change(JSON.stringify(tree))) as Tree;
}

/** A state with a change in the JSON of one resource. */
function withChange<T extends StateResource>(
  state: readonly T[],
  name: RegExp,
  change: (text: string) => string,
): T[] {
  const found = state.filter(({ urn }) => name.test(urn));
  assert.equal(found.length, 1, String(name));
  return state.map((one) =>
    name.test(one.urn) ? { ...one, outputs: changed(one.outputs, change) } : one,
  );
}

const salt = ["id", "prod"] as const;
const digest = (digit: string) => `sha256:${digit.repeat(64)}`;

/** A preview of the release after the one that runs, as it would be of a state like this. */
function nextRelease(state: readonly Exported[], from: string, to: string) {
  const next = new Map<string, NextResource>();
  const operations = state.flatMap(({ urn, type, inputs }) => {
    if (!urn.endsWith(from) || !type.startsWith("kubernetes:")) return [];
    const renamed = (text: string) =>
      text
        .replaceAll(from, to)
        .replace(/@sha256:[0-9a-f]{64}/g, `@${digest("b")}`)
        .replace(/"name":"(settings-[^"]*)-[a-z0-9]{8}"/g, '"name":"$1-12345678"');
    const id = urn.slice(0, -from.length) + to;
    next.set(id, { inputs: changed(inputs, renamed), outputs: {} });
    return [{ op: "create", urn: id }];
  });
  return { operations, next };
}

function namesOf(moved: readonly Parameters<typeof describeProperty>[0][]): string[] {
  return moved.map(describeProperty);
}

describe("what a request starts from", () => {
  const COLOURS = { qa: ["dev-2", "dev-3"], stage: ["qa-2", "qa-3"] } as const;
  const planned = (environment: "qa" | "stage") => {
    const state = exported(environment);
    const [from, to] = COLOURS[environment];
    const preview = nextRelease(state, from, to);
    const releases = {
      target: { tag: to, digest: digest("b") },
      former: { tag: from, digest: digest("a") },
    };
    return { state, preview, releases, starts: startsOf(preview, state, releases, salt) };
  };

  it("is the counterpart in the former release, of what each release makes anew", () => {
    const { starts } = planned("qa");
    const found = starts.map(({ types, name, of, properties }) => [
      `${types.split("/").at(-1) ?? ""} ${name} ${of}`,
      properties
        .map(({ path, isHidden }) => `${path}${isHidden ? " (hidden)" : ""}`)
        .filter((path) => !path.startsWith("data.") || path === "data.LOG_LEVEL"),
    ]);
    assert.deepEqual(Object.fromEntries(found), {
      "v1:Secret settings-dev-3 settings-dev-2": ["data (hidden)"],
      "v1:ConfigMap settings-dev-3 settings-dev-2": ["data", "data.LOG_LEVEL"],
      "v1:Deployment web-dev-3 web-dev-2": ["spec.template.spec.containers[0].image"],
    });
  });

  it("is the same to the tool and to a program, of real states", () => {
    for (const environment of ["qa", "stage"] as const) {
      const { state, starts } = planned(environment);
      const written = parseStarts(starts.map(formatStart));
      assert.deepEqual(written, starts);
      for (const view of [state, seen(state)]) {
        assert.deepEqual(movedProperties(written, view, salt, []), []);
      }
      const moved = withChange(state, /ConfigMap::settings-(dev|qa)-2$/, (text) =>
        text.replaceAll(/"LOG_LEVEL":"[a-z]*"/g, '"LOG_LEVEL":"trace"'),
      );
      const [name] = COLOURS[environment];
      for (const view of [moved, seen(moved)]) {
        const said = namesOf(movedProperties(written, view, salt, []));
        assert.deepEqual(said, [`ConfigMap settings-${name} data.LOG_LEVEL`]);
      }
    }
  });

  it("is no number of pods that is left to an autoscaler, and no status", () => {
    const { state, preview, releases, starts } = planned("stage");
    const moved = withChange(state, /apps\/v1:Deployment::web-qa-2$/, (text) =>
      text.replaceAll(/"(replicas|readyReplicas|observedGeneration)":\d+/g, '"$1":31'),
    );
    assert.deepEqual(movedProperties(starts, moved, salt, []), []);
    const again = startsOf(preview, moved, releases, salt);
    assert.deepEqual(unapprovedStarts(starts, again, moved, salt), []);
  });

  it("is another one where the counterpart has become what the release would take back", () => {
    const { state, preview, releases, starts } = planned("qa");
    const moved = state.map((one) =>
      /apps\/v1:Deployment::web-dev-2$/.test(one.urn)
        ? {
            ...one,
            ...Object.fromEntries(
              (["inputs", "outputs"] as const).map((key) => [
                key,
                changed(one[key], (text) => text.replaceAll('"replicas":2', '"replicas":8')),
              ]),
            ),
          }
        : one,
    );
    const again = startsOf(preview, moved, releases, salt);
    const said = namesOf(unapprovedStarts(starts, again, moved, salt));
    assert.deepEqual(said, ["Deployment web-dev-2 spec.replicas"]);
  });

  const WEB = /Workload\$kubernetes:apps\/v1:Deployment::web$/;
  /** A preview that changes properties of prod's Deployment. */
  const updated = (
    state: readonly Exported[],
    change: (text: string) => string,
    paths: string[],
  ) => {
    const web = state.find(({ urn }) => WEB.test(urn)) ?? assert.fail("no Deployment");
    const outputs = changed(web.outputs, change);
    return {
      operations: [{ op: "update", urn: web.urn, paths }],
      next: new Map([[web.urn, { inputs: changed(web.inputs, change), outputs }]]),
    };
  };
  const releases = {
    target: { tag: "stage-3", digest: digest("b") },
    former: { tag: "stage-2", digest: digest("a") },
  };
  const scale = (text: string) => text.replaceAll('"replicas":1', '"replicas":3');

  it("is carried on with where all that the request brings is there", () => {
    const state = exported("prod");
    const preview = updated(state, scale, ["spec.replicas"]);
    const starts = startsOf(preview, state, releases, salt);
    assert.equal(starts.length, 1);
    const views = { 3: [], 8: ["Deployment web spec.replicas"] };
    for (const [replicas, moved] of Object.entries(views)) {
      const by = withChange(state, WEB, (text) =>
        text.replaceAll('"replicas":1', `"replicas":${replicas}`),
      );
      for (const view of [by, seen(by)]) {
        assert.deepEqual(namesOf(movedProperties(starts, view, salt, [])), moved);
      }
    }
  });

  it("is salted by the request and its environment", () => {
    const state = exported("prod");
    const preview = updated(state, scale, ["spec.replicas"]);
    const lines = [salt, ["other", "prod"], ["id", "dr"]] as const;
    const all = lines.flatMap((one) => startsOf(preview, state, releases, one));
    const hashes = all.flatMap(({ properties }) => properties.map(({ hash }) => hash));
    assert.equal(new Set(hashes).size, 3);
    assert.equal(new Set(all.map(({ target }) => target)).size, 3);
  });

  it("has no names that Pulumi makes up, and no labels that each release changes", () => {
    const state = exported("prod");
    const paths = [
      "#initerror",
      'metadata.labels["baton/image-tag"]',
      'spec.template.metadata.labels["app.kubernetes.io/version"]',
      "spec.template.spec.containers[0].envFrom[0].configMapRef.name",
      "status.readyReplicas",
    ];
    assert.deepEqual(startsOf(updated(state, scale, paths), state, releases, salt), []);
  });

  it("is of the tool alone where the next value is not known yet", () => {
    const state = exported("prod");
    const unknown = "04da6b54-80e4-46f7-96ec-b56ff0331ba9";
    const preview = updated(
      state,
      (text) =>
        text.replaceAll(/"serviceAccountName":"[a-z]+"/g, `"serviceAccountName":"${unknown}"`),
      ["spec.template.spec.serviceAccountName"],
    );
    const [start] = startsOf(preview, state, releases, salt);
    assert.deepEqual(
      [start?.target, start?.properties.map(({ isHidden }) => isHidden)],
      [undefined, [true]],
    );
  });

  it("is bound by larger parts where very many properties change", () => {
    const state = exported("prod");
    const keys = Array.from(
      { length: 50 },
      (_, index) => `spec.template.spec.nodeSelector.k${index}`,
    );
    const [start] = startsOf(
      updated(state, scale, ["spec.replicas", ...keys]),
      state,
      releases,
      salt,
    );
    assert.deepEqual(
      start?.properties.map(({ path }) => path),
      ["spec.replicas", "spec.template.spec.nodeSelector"],
    );
  });

  it("says which properties the cluster has otherwise than the state", () => {
    const state = exported("prod");
    const preview = updated(state, scale, ["spec.replicas"]);
    const starts = startsOf(preview, state, releases, salt);
    const [object] = startObjects(starts, state, preview.next);
    const live = (replicas: number) => ({ spec: { replicas }, status: { replicas: 9 } });
    const said = [1, 3, 8].map((replicas) => namesOf(object?.movedIn(live(replicas)) ?? []));
    assert.deepEqual(said, [[], [], ["Deployment web spec.replicas"]]);
  });

  it("leaves to the cluster by what a canary that was killed has shifted traffic and pods", () => {
    const { state, preview, starts } = planned("qa");
    const compared = startObjects(starts, state, preview.next).map(({ types, name }) => [
      types.split(":").at(-1),
      name,
    ]);
    assert.deepEqual(compared, [["ConfigMap", "settings-dev-2"]]);
    const service = /Workload\$kubernetes:core\/v1:Service::web$/;
    const { urn, inputs, outputs } = state.find((one) => service.test(one.urn)) ?? assert.fail();
    const next = { inputs, outputs: changed(outputs, (text) => text.replaceAll("dev-2", "dev-3")) };
    const paths = ['spec.selector["app.kubernetes.io/name"]'];
    const shift = { operations: [{ op: "update", urn, paths }], next: new Map([[urn, next]]) };
    const shifted = startsOf(shift, state, releases, salt);
    assert.equal(shifted.length, 1);
    assert.deepEqual(startObjects(shifted, state, shift.next), []);
  });

  it("takes no line that is not whole", () => {
    assert.deepEqual(parseStarts(["", "kubernetes:apps/v1:Deployment web", "a b = - "]), []);
    const [start] = parseStarts(["a b = - spec.replicas=short,spec.paused=no"]);
    assert.deepEqual(start?.properties, []);
  });
});
