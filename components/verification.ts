import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { childOptions, type ChildOptions } from "./internal/child-options";
import type { Config, SuiteConfig } from "../config-schema";
import type { Suite } from "../release/change-card";
import type { Release } from "../release/eligibility";
import { qualifyImage } from "../registry/reference";
import { Bake } from "./bake";
import { Canary } from "./canary";
import { EarnedTag } from "./earned-tag";
import { contentHash } from "./internal/hash";
import { VERIFICATION } from "./internal/labels";
import { JOB_USER, suitePod } from "./internal/pod";
import { Unshared, type UnsharedArgs } from "./unshared";

export interface VerificationArgs {
  readonly namespace: string;
  /** The kubeconfig's context, for the command that shows a suite's log; its current one unless given. */
  readonly context: string | undefined;
  readonly serviceAccount: pulumi.Input<string>;
  /** Suites by name, in the order they run. */
  readonly suites: readonly (readonly [string, SuiteConfig])[];
  readonly registry: Config["registry"];
  readonly release: Release;
  /** The release's image by digest. */
  readonly image: string;
  /** Where a suite finds its target. */
  readonly targetUrl: (suite: SuiteConfig) => string | undefined;
  /** Everything that was deployed: when any of it changes, the suites run again. */
  readonly deployed: pulumi.Input<unknown>;
  readonly labels: Readonly<Record<string, string>>;
}

/** Longer than the Job's own deadline, so that the cluster's reason is what the error shows. */
const AWAIT_MARGIN_SECONDS = 30;

/** What a release must show in use before it earns its tag. */
export interface InUse {
  /** The Deployments that are watched. */
  readonly deployments: readonly string[];
  /** In seconds; none where it only must be in its place, with its traffic. */
  readonly bake: number | undefined;
  readonly analysis: Config["rollout"]["analysis"];
  /** Services that lead to one release at a time, and where they led before. */
  readonly switches: readonly Switch[];
  /** Why the traffic of a release that fails does not go back. */
  readonly irreversible: string | undefined;
  /** The former release's Deployments beside these. */
  readonly former: readonly string[];
  /** Those whose releases take each other's place. */
  readonly inPlace: readonly string[];
  /** What must be there before. */
  readonly after: readonly pulumi.Resource[];
}

export interface Switch {
  readonly service: string;
  readonly to: Readonly<Record<string, string>>;
  readonly from?: Readonly<Record<string, string>> | undefined;
  /** The HTTPRoute that leads to the Service, where its weights divide the requests. */
  readonly route?: string | undefined;
}

/** A Service that leads to two releases for a time. */
export interface SharedSwitch extends Switch {
  /** The new release's Deployment and own Service. */
  readonly canary: string;
  /** The Deployment that serves now. */
  readonly stable: string;
  /** What selects both. */
  readonly both: Readonly<Record<string, string>>;
  /** How many pods the release has in the end; at least, where an autoscaler takes it over. */
  readonly replicas: number;
  readonly isAutoscaled: boolean;
}

/** How a release takes its traffic step by step. */
export interface InSteps {
  /** The Deployments that are watched. */
  readonly deployments: readonly string[];
  readonly steps: Config["rollout"]["steps"];
  readonly analysis: Config["rollout"]["analysis"];
  readonly switches: readonly SharedSwitch[];
  /** Those whose releases take each other's place. */
  readonly inPlace: readonly string[];
  /** What must be there before. */
  readonly after: readonly pulumi.Resource[];
}

/** Who holds it, gives a release of the namespace its traffic. */
const LEASE = "baton-canary";

/**
 * Runs the environment's suites against what was just deployed, one Job after another, inside the
 * cluster. A release that has passed all, and then holds up in use, earns its tag: no pass, no tag,
 * no way on.
 */
export class Verification extends pulumi.ComponentResource {
  private readonly child: ChildOptions;
  private readonly ran: pulumi.Output<Suite[]>;
  private readonly verifies: pulumi.Output<string>;
  /** The last of what must have succeeded before the tag. */
  private last: pulumi.Input<pulumi.Resource>[];

  constructor(
    private readonly name: string,
    private readonly args: VerificationArgs,
    opts?: pulumi.ComponentResourceOptions,
  ) {
    super("baton:components:Verification", name, {}, opts);
    this.child = childOptions(this, opts);
    const { release, labels } = args;
    const verifies = contentHash(args.deployed);
    this.verifies = verifies;

    let previous = this.child.dependsOn;
    const ran: pulumi.Output<Suite>[] = [];
    for (const [suiteName, suite] of args.suites) {
      const image =
        suite.image === undefined
          ? args.image
          : qualifyImage(suite.image, args.registry.repository);
      const targetUrl = args.targetUrl(suite);
      const job = new k8s.batch.v1.Job(
        `${name}-${suiteName}`,
        {
          metadata: { namespace: args.namespace, labels: { ...labels, ...VERIFICATION } },
          spec: {
            backoffLimit: 0,
            activeDeadlineSeconds: suite.timeoutSeconds,
            template: {
              metadata: {
                labels: {
                  ...labels,
                  ...VERIFICATION,
                  "app.kubernetes.io/name": `${name}-${suiteName}`,
                },
                annotations: { "baton/verifies": verifies },
              },
              spec: suitePod({
                name: suiteName,
                image,
                command: suite.command,
                args: suite.args,
                env: {
                  RELEASE_TAG: release.imageTag,
                  // Also makes the suite run again where nothing else has changed.
                  ...(release.rollbackOf === undefined ? {} : { ROLLBACK_OF: release.rollbackOf }),
                  ...(targetUrl === undefined ? {} : { TARGET_URL: targetUrl }),
                },
                resources: suite.resources,
                runAsUser: JOB_USER,
                serviceAccount: args.serviceAccount,
              }),
            },
          },
        },
        {
          ...this.child,
          ...(opts?.hooks === undefined ? {} : { hooks: opts.hooks }),
          dependsOn: previous,
          customTimeouts: { create: `${suite.timeoutSeconds + AWAIT_MARGIN_SECONDS}s` },
          // The provider would only look at a failed Job again: the next `up` runs the suite anew.
          replaceOnChanges: ["#initerror"],
          deleteBeforeReplace: true,
        },
      );
      previous = [...this.child.dependsOn, job];
      ran.push(
        pulumi
          .all([job.metadata.name, job.status])
          .apply(([object, status]) => passed(suiteName, object, status, args)),
      );
    }

    this.last = previous;
    this.ran = pulumi.all(ran);
    this.registerOutputs({});
  }

  /** What has passed the suites. */
  get passed(): pulumi.Input<pulumi.Resource>[] {
    return this.last;
  }

  /** Gives the release its traffic step by step, after the suites. */
  canary({ deployments, steps, analysis, switches, inPlace, after }: InSteps): void {
    const { namespace, context, deployed } = this.args;
    const shares = { namespace, context, deployed, deployments, steps, analysis, switches };
    const gate = new Canary(
      `${this.name}-canary`,
      {
        ...canaryArgs(shares),
        ...(inPlace.length === 0 ? {} : { inPlace: inPlace.join(",") }),
      },
      { ...this.child, dependsOn: [...this.last, ...after] },
    );
    this.last = [...this.child.dependsOn, gate];
  }

  /** Watches the release in use, before the tag. */
  bake(inUse: InUse): void {
    const { deployments, bake = 0, analysis, switches, irreversible, former, inPlace } = inUse;
    const { namespace, context } = this.args;
    if (deployments.length === 0) return;
    const gate = new Bake(
      `${this.name}-bake`,
      {
        context,
        namespace,
        deployments: deployments.join(","),
        spec: this.verifies,
        seconds: bake,
        analysis: asText(analysis),
        ...(switches.length === 0 ? {} : { traffic: JSON.stringify(switches), lease: LEASE }),
        ...(irreversible === undefined ? {} : { irreversible }),
        ...(former.length === 0 ? {} : { former: former.join(",") }),
        ...(inPlace.length === 0 ? {} : { inPlace: inPlace.join(",") }),
      },
      { ...this.child, dependsOn: [...this.last, ...inUse.after] },
    );
    this.last = [...this.child.dependsOn, gate];
  }

  /** Gives the release its tag, when all before has succeeded; known together with how it did. */
  earnTag(): { earnedTag: pulumi.Output<string>; suites: pulumi.Output<Suite[]> } {
    const { registry, release } = this.args;
    const { tag } = new EarnedTag(
      `${this.name}-earned-tag`,
      { registry, digest: release.digest, tag: release.earnedTag },
      { ...this.child, dependsOn: this.last },
    );
    return {
      earnedTag: tag,
      suites: pulumi.all([this.ran, tag]).apply(([suites]) => suites),
    };
  }
}

/** Where a release's pods would be led to before it is verified: by a share that another one has left. */
export interface Shares {
  readonly namespace: string;
  readonly context: string | undefined;
  /** As the verification's and its canary's. */
  readonly deployed: pulumi.Input<unknown>;
  readonly deployments: readonly string[];
  readonly steps: Config["rollout"]["steps"];
  readonly analysis: Config["rollout"]["analysis"];
  readonly switches: readonly (Switch & Pick<SharedSwitch, "both">)[];
}

/** Takes the share of a canary that was killed, unless it is this release's. */
export function unshare(
  name: string,
  shares: Shares,
  opts: pulumi.CustomResourceOptions,
): Unshared {
  return new Unshared(name, canaryArgs(shares), opts);
}

/** What tells one canary from another. */
function canaryArgs(shares: Shares): UnsharedArgs {
  const { namespace, context, deployed, deployments, steps, analysis, switches } = shares;
  return {
    context,
    namespace,
    deployments: deployments.join(","),
    spec: contentHash(deployed),
    steps: JSON.stringify(steps),
    analysis: asText(analysis),
    traffic: JSON.stringify(switches),
    lease: LEASE,
  };
}

/** Plain text, as are all inputs of the provider. */
function asText(analysis: Config["rollout"]["analysis"]): string {
  return analysis?.prometheus === undefined ? "" : JSON.stringify(analysis);
}

/** What a Job that has succeeded says of its suite. */
function passed(
  name: string,
  job: string,
  status: k8s.types.output.batch.v1.JobStatus | undefined,
  { namespace, context }: VerificationArgs,
): Suite {
  const { startTime, completionTime } = status ?? {};
  const seconds =
    startTime && completionTime
      ? { seconds: (Date.parse(completionTime) - Date.parse(startTime)) / 1000 }
      : {};
  const where = context === undefined ? [] : ["--context", context];
  const log = ["kubectl logs", ...where, "-n", namespace, `job/${job}`].join(" ");
  return { name, result: "passed", ...seconds, log };
}
