import * as assert from "node:assert/strict";
import * as fc from "fast-check";
import {
  exceeds,
  formatOperations,
  groupOperations,
  isUnexpected,
  NOT_READY,
  notRoutine,
  parseOperations,
  type Operation,
} from "../../release/operations";

const urn = (types: string, name: string) => `urn:pulumi:qa::baton::${types}::${name}`;
const operation = (op: string, types: string, name: string, ...paths: string[]): Operation => ({
  op,
  urn: urn(types, name),
  ...(paths.length === 0 ? {} : { paths }),
});

const SETTINGS = "baton:components:Settings$kubernetes:core/v1";
const WORKLOAD = "baton:components:Workload";
const DEPLOYMENT = `${WORKLOAD}$kubernetes:apps/v1:Deployment`;
const SERVICE = `${WORKLOAD}$kubernetes:core/v1:Service`;
const JOB = "baton:components:Verification$kubernetes:batch/v1:Job";
const NAMESPACE = "baton:components:EnvironmentNamespace$kubernetes";
const POLICY = `${NAMESPACE}:networking.k8s.io/v1:NetworkPolicy`;

const LABELS = [
  "metadata.labels.baton/image-tag",
  'metadata.labels["app.kubernetes.io/version"]',
] as const;
const TEMPLATE = "spec.template";
const POD = `${TEMPLATE}.spec`;
const POD_LABELS = LABELS.map((label) => `${TEMPLATE}.${label}`);
const IMAGE = `${POD}.containers[0].image`;

const COLOUR = "baton:components:Colour";

/** What `pulumi preview` says of qa's next release. */
const RELEASE: readonly Operation[] = [
  operation("same", "pulumi:pulumi:Stack", "baton-qa"),
  operation("same", POLICY, "namespace-network-default"),
  operation("update", SERVICE, "web", ...LABELS),
  operation("update", `${WORKLOAD}$kubernetes:policy/v1:PodDisruptionBudget`, "web", ...LABELS),
  operation("create", `${SETTINGS}:ConfigMap`, "settings-dev-45"),
  operation("create", `${SETTINGS}:Secret`, "settings-dev-45"),
  operation(
    "update",
    DEPLOYMENT,
    "web",
    ...LABELS,
    ...POD_LABELS,
    `${POD}.containers[0].envFrom[0].configMapRef.name`,
    `${POD}.containers[0].envFrom[1].secretRef.name`,
    IMAGE,
    `${POD}.initContainers[0].image`,
  ),
  operation("update", `${WORKLOAD}$promotion:index:Rollout`, "web-rollout"),
  operation(
    "update",
    "baton:components:Exposure$kubernetes:networking.k8s.io/v1:Ingress",
    "web",
    ...LABELS,
  ),
  operation(
    "replace",
    JOB,
    "verification-smoke",
    ...LABELS,
    `${TEMPLATE}.metadata.annotations.baton/verifies`,
    ...POD_LABELS,
    `${POD}.containers[0].env[0].value`,
    `${POD}.containers[0].env[2]`,
    IMAGE,
  ),
  operation("create", JOB, "verification-regression"),
  operation("update", "promotion:index:Unshared", "unshared", "deployments", "spec", "traffic"),
  operation(
    "replace",
    "baton:components:Verification$promotion:index:EarnedTag",
    "verification-earned-tag",
    "digest",
    "tag",
  ),
  operation("delete", `${SETTINGS}:Secret`, "settings-dev-44"),
  operation("delete", `${SETTINGS}:ConfigMap`, "settings-dev-44"),
];

const text = fc.string({ unit: "binary", minLength: 1 });
const someOperation: fc.Arbitrary<Operation> = fc
  .record({
    op: fc.constantFrom(
      ...["same", "read", "create", "update", "replace", "delete", "import"],
      ...["create-replacement", "delete-replaced", "remove-pending-replace", "something-new"],
    ),
    types: fc.constantFrom(DEPLOYMENT, SERVICE, JOB, `${SETTINGS}:Secret`),
    name: fc.oneof(fc.constantFrom("web", "worker"), text),
    paths: fc.uniqueArray(fc.oneof(fc.constantFrom(IMAGE, ...LABELS, "data.a, b"), text)),
  })
  .map(({ op, types, name, paths }) => operation(op, types, name, ...paths));
const someOperations = fc.array(someOperation, { maxLength: 12 });

describe("the operations of a preview", () => {
  it("are grouped, what no release deletes or replaces first", () => {
    const groups = groupOperations([
      ...RELEASE,
      operation("create-replacement", JOB, "verification-smoke"),
      operation("delete-replaced", JOB, "verification-smoke"),
      operation("replace", SERVICE, "web::internal"),
      operation("delete", DEPLOYMENT, "worker"),
      operation("update", DEPLOYMENT, "api", IMAGE, "spec.replicas"),
      operation("update", DEPLOYMENT, "any"),
      operation("delete-replaced", SERVICE, "left"),
      operation("create-replacement", SERVICE, "half"),
      operation("something-new", SERVICE, "web"),
    ]);
    assert.deepEqual(
      groups.map((group) => {
        const mark = isUnexpected(group) ? ["unexpected"] : group.routine ? [] : ["unusual"];
        return [group.op, group.type, ...group.names, ...group.paths, ...mark].join(" ");
      }),
      [
        "something-new kubernetes:core/v1:Service web unexpected",
        "delete kubernetes:apps/v1:Deployment worker unexpected",
        "delete-replaced kubernetes:core/v1:Service left unexpected",
        "replace kubernetes:core/v1:Service web::internal unexpected",
        "create-replacement kubernetes:core/v1:Service half unexpected",
        "delete kubernetes:core/v1:ConfigMap settings-dev-44",
        "delete kubernetes:core/v1:Secret settings-dev-44",
        "replace kubernetes:batch/v1:Job verification-smoke",
        "replace promotion:index:EarnedTag verification-earned-tag",
        "update kubernetes:apps/v1:Deployment api spec.replicas unusual",
        "update kubernetes:apps/v1:Deployment any unusual",
        "update kubernetes:apps/v1:Deployment web",
        "update kubernetes:core/v1:Service web",
        "update kubernetes:networking.k8s.io/v1:Ingress web",
        "update kubernetes:policy/v1:PodDisruptionBudget web",
        "update promotion:index:Rollout web-rollout",
        "update promotion:index:Unshared unshared",
        "create kubernetes:batch/v1:Job verification-regression",
        "create kubernetes:core/v1:ConfigMap settings-dev-45",
        "create kubernetes:core/v1:Secret settings-dev-45",
      ],
    );
  });

  describe("as lines", () => {
    it("say what is changed, and no more", () => {
      assert.deepEqual(
        formatOperations([
          operation("same", SERVICE, "web"),
          operation("update", SERVICE, "web", ...LABELS),
          operation("replace", JOB, "verification-smoke", IMAGE),
        ]),
        [
          `update ${SERVICE} web ${LABELS.join(",")}`,
          "replace baton:components:Verification$kubernetes:batch/v1:Job verification-smoke",
        ],
      );
    });

    it("are read back with all that the bound needs", () => {
      fc.assert(
        fc.property(someOperations, (operations) => {
          const lines = formatOperations(operations);
          const read = parseOperations(lines);
          assert.deepEqual(formatOperations(read), lines);
          assert.deepEqual(exceeds(read, operations), []);
          assert.deepEqual(exceeds(operations, read), []);
        }),
      );
    });

    it("survive as values of a message's trailers", () => {
      fc.assert(
        fc.property(someOperations, (operations) => {
          const lines = formatOperations(operations);
          const message = `Subject\n\n${lines.map((line) => `Baton-Operation: ${line}\n`).join("")}`;
          const found = [...message.matchAll(/^Baton-Operation: (.*)$/gm)];
          assert.deepEqual(
            found.map(([, line = ""]) => line.trim()),
            lines,
          );
        }),
      );
    });

    it("approve nothing where they are not whole", () => {
      assert.deepEqual(parseOperations(["", "update", `update ${SERVICE}`]), []);
      assert.equal(parseOperations([`update ${SERVICE} 100%`]).length, 1);
    });
  });

  describe("beside the approved ones", () => {
    const labels = operation("update", SERVICE, "web", ...LABELS);
    const table: [string, Operation[], Operation, boolean][] = [
      ["the same", [labels], labels, true],
      ["fewer properties", [labels], operation("update", SERVICE, "web", LABELS[0]), true],
      [
        "one property more",
        [labels],
        operation("update", SERVICE, "web", ...LABELS, "spec.type"),
        false,
      ],
      [
        "another element of a list",
        [operation("update", DEPLOYMENT, "web", IMAGE)],
        operation("update", DEPLOYMENT, "web", IMAGE.replace("[0]", "[1]")),
        false,
      ],
      ["nobody says which properties", [labels], operation("update", SERVICE, "web"), false],
      ["it did not say so before", [operation("update", SERVICE, "web")], labels, true],
      ["another try", [labels], operation("update", SERVICE, "web", NOT_READY), true],
      ["another resource", [labels], operation("update", SERVICE, "worker", ...LABELS), false],
      ["another type", [labels], operation("update", DEPLOYMENT, "web", ...LABELS), false],
      ["no approval", [], operation("create", SERVICE, "web"), false],
      ["nothing", [], operation("same", SERVICE, "web"), true],
      ["a refresh", [], operation("refresh", SERVICE, "web"), true],
      ["an update replaces", [labels], operation("replace", SERVICE, "web"), false],
      ["an update deletes", [labels], operation("delete", SERVICE, "web"), false],
      ["an update creates", [labels], operation("create", SERVICE, "web"), false],
      [
        "a creation deletes",
        [operation("create", SERVICE, "web")],
        operation("delete", SERVICE, "web"),
        false,
      ],
      ...["create", "update", "replace", "create-replacement", "delete-replaced"].flatMap((op) =>
        ["create", "replace"].map((approved): [string, Operation[], Operation, boolean] => [
          `${approved} carried on with ${op}`,
          [operation(approved, JOB, "smoke")],
          operation(op, JOB, "smoke"),
          true,
        ]),
      ),
      ...["delete", "replace"].map((approved): [string, Operation[], Operation, boolean] => [
        `${approved} deletes`,
        [operation(approved, JOB, "smoke")],
        operation("delete", JOB, "smoke"),
        true,
      ]),
      [
        "what is left of a replacement is removed",
        [operation("delete-replaced", JOB, "smoke")],
        operation("replace", JOB, "smoke"),
        false,
      ],
      ["an import", [labels], operation("import", SERVICE, "web"), false],
      ...["create", "update", "replace"].map((op): [string, Operation[], Operation, boolean] => [
        `half of a replacement carried on with ${op}`,
        [operation("create-replacement", JOB, "smoke")],
        operation(op, JOB, "smoke"),
        false,
      ]),
    ];
    for (const [title, approved, now, covered] of table) {
      it(`${covered ? "stay within" : "exceed"} them: ${title}`, () => {
        assert.deepEqual(exceeds(approved, [now]), covered ? [] : [now]);
      });
    }

    it("cover nothing that no group shows", () => {
      fc.assert(
        fc.property(someOperations, someOperations, (approved, now) => {
          const shown = groupOperations(approved).flatMap(({ names }) => names);
          const covered = now.filter((one) => exceeds(approved, [one]).length === 0);
          for (const { op, urn: of } of covered) {
            const name = of.split("::").slice(3).join("::");
            assert.ok(["same", "read"].includes(op) || shown.includes(name), `${op} ${name}`);
          }
        }),
      );
    });

    it("never exceed themselves, nor in another stack", () => {
      fc.assert(
        fc.property(someOperations, (operations) => {
          assert.deepEqual(exceeds(operations, operations), []);
          const elsewhere = operations.map((one) => ({
            ...one,
            urn: one.urn.replace("urn:pulumi:qa::baton", "urn:pulumi:stage::other"),
          }));
          assert.deepEqual(exceeds(operations, elsewhere), []);
        }),
      );
    });

    it("exceed them no more when there are fewer, or more was approved", () => {
      fc.assert(
        fc.property(someOperations, someOperations, someOperations, (approved, now, others) => {
          const all = exceeds(approved, [...now, ...others]);
          for (const one of exceeds(approved, now)) assert.ok(all.includes(one));
          const fewer = exceeds([...approved, ...others], now);
          for (const one of fewer) assert.ok(exceeds(approved, now).includes(one));
        }),
      );
    });
  });

  describe("are routine", () => {
    it("when they are what every release does", () => {
      assert.deepEqual(notRoutine(RELEASE), []);
      // One colour comes, the Service is switched, and the one before the last goes.
      const switched = 'spec.selector["app.kubernetes.io/name"]';
      const beside = [
        operation("create", `${COLOUR}$kubernetes:apps/v1:Deployment`, "web-dev-46"),
        operation("update", SERVICE, "web", ...LABELS, switched),
        operation("delete", `${COLOUR}$kubernetes:apps/v1:Deployment`, "web-dev-44"),
      ];
      assert.deepEqual(notRoutine(beside), []);
      const other = operation("update", SERVICE, "web", "spec.selector.tier");
      assert.deepEqual(notRoutine([other]), [other]);
      const rolled = operation("delete", DEPLOYMENT, "web");
      assert.deepEqual(notRoutine([rolled]), [rolled]);
    });

    const routine: Operation[] = [
      operation(
        "update",
        `${WORKLOAD}$kubernetes:batch/v1:CronJob`,
        "report",
        ...LABELS,
        "spec.jobTemplate.spec.template.spec.containers[0].image",
      ),
      operation(
        "update",
        DEPLOYMENT,
        "web",
        `${POD}.volumes[0].projected.sources[0].configMap.name`,
        `${POD}.volumes[0].projected.sources[1].secret.name`,
      ),
      operation("update", SERVICE, "web", NOT_READY),
      operation("replace", JOB, "verification-smoke", NOT_READY),
      operation(
        "update",
        "baton:components:Monitoring$kubernetes:monitoring.coreos.com/v1:ServiceMonitor",
        "monitoring-web",
        'metadata.labels["baton/image-tag"]',
      ),
      operation("refresh", SERVICE, "web"),
    ];
    for (const one of routine) {
      it(`with ${one.op} ${one.urn.split("::").slice(2).join(" ")}`, () => {
        assert.deepEqual(notRoutine([one]), []);
      });
    }

    const unusual: [string, Operation][] = [
      ["a deleted workload", operation("delete", DEPLOYMENT, "worker")],
      ["a new workload", operation("create", DEPLOYMENT, "worker")],
      ["a replaced Service", operation("replace", SERVICE, "web", ...LABELS)],
      ["an adopted Service", operation("import", SERVICE, "web")],
      ["a suite that is gone", operation("delete", JOB, "verification-load")],
      ["another Job", operation("replace", `${WORKLOAD}$kubernetes:batch/v1:Job`, "other")],
      ["more replicas", operation("update", DEPLOYMENT, "web", IMAGE, "spec.replicas")],
      [
        "a pod's rights",
        operation("update", DEPLOYMENT, "web", `${POD}.containers[0].securityContext.privileged`),
      ],
      ["another variable", operation("update", DEPLOYMENT, "web", `${POD}.containers[0].env[0]`)],
      ["another label", operation("update", SERVICE, "web", "metadata.labels.team")],
      [
        "a label beside the release's",
        operation("update", SERVICE, "web", ...LABELS, "metadata.labels.team"),
      ],
      ["an image elsewhere", operation("update", SERVICE, "web", IMAGE)],
      ["who knows what", operation("update", DEPLOYMENT, "web")],
      ["the whole of its metadata", operation("update", SERVICE, "web", "metadata")],
      ["a network policy's label", operation("update", POLICY, "default", ...LABELS)],
      [
        "a role's label",
        operation("update", `${NAMESPACE}:rbac.authorization.k8s.io/v1:Role`, "r", ...LABELS),
      ],
      [
        "a binding",
        operation("create", `${NAMESPACE}:rbac.authorization.k8s.io/v1:RoleBinding`, "deployers"),
      ],
      [
        "a service account's label",
        operation("update", `${NAMESPACE}:core/v1:ServiceAccount`, "workload", ...LABELS),
      ],
      [
        "a secret that is made anew",
        operation(
          "replace",
          "baton:components:Settings$random:index/randomPassword:RandomPassword",
          "settings-KEY",
          "keepers",
        ),
      ],
      ["another cluster", operation("update", "pulumi:providers:kubernetes", "cluster", "context")],
      ["what Pulumi learns to do", operation("something-new", SERVICE, "web", ...LABELS)],
    ];
    for (const [title, one] of unusual) {
      it(`but not with ${title}`, () => {
        assert.deepEqual(notRoutine([...RELEASE, one]), [one]);
      });
    }
  });
});
