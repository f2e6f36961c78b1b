import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Config, DatabaseConfig } from "../config-schema";
import { qualifyImage } from "../registry/reference";
import { slugOf } from "../release/colour";
import type { Release } from "../release/eligibility";
import {
  mergeSchemas,
  type DatabasePlan,
  type SchemaPoint,
  type SchemaRecord,
} from "../release/schema";
import { childOptions, type ChildOptions } from "./internal/child-options";
import { AFTER, lastChange, type DatabaseJob } from "./internal/database-jobs";
import { DATABASE } from "./internal/labels";
import { JOB_USER, jobPod, type JobContainer } from "./internal/pod";
import { SchemaVersion } from "./schema-version";
import type { ContainerSettings } from "./settings";

export interface DatabaseArgs {
  readonly environment: string;
  readonly namespace: string;
  /** The kubeconfig's context; its current one unless given. */
  readonly context: string | undefined;
  readonly serviceAccount: pulumi.Input<string>;
  readonly database: DatabaseConfig;
  readonly registry: Config["registry"];
  readonly release: Release;
  /** What the release means for the database. */
  readonly plan: DatabasePlan;
  /** What there is of former deployments, also failed ones. */
  readonly jobs: readonly DatabaseJob[];
  readonly settings: ContainerSettings;
  /** Where the cluster keeps the database's URL. */
  readonly urlKey: { readonly name: pulumi.Input<string>; readonly key: string };
  readonly labels: Readonly<Record<string, string>>;
  /** Whether `pulumi destroy` is refused until the protection of the backups' claim is lifted. */
  readonly protect: boolean;
}

type PodTemplate = k8s.types.input.core.v1.PodTemplateSpec;
type EnvVar = k8s.types.input.core.v1.EnvVar;
type Env = Readonly<Record<string, pulumi.Input<string>>>;
/** What only some pods have. */
interface PodOptions {
  readonly activeDeadlineSeconds?: number | undefined;
  readonly annotations?: Readonly<Record<string, string>> | undefined;
}
type Step = Pick<DatabaseConfig["migration"], "image" | "command" | "args" | "resources">;

/** Longer than the Job's own deadline, so that the cluster's reason is what the error shows. */
const AWAIT_MARGIN_SECONDS = 30;
/** Between the attempts of a Job, and until the cluster has noticed the end of one. */
const RETRY_SECONDS = 60;
const BACKUPS = "/backups";
/** By this, what a killed migration has left in the database is found. */
const MIGRATION_SESSION = { name: "PGAPPNAME", value: "baton-migration" };
/** Of a release in a Job's name, with room for what Pulumi puts behind it to make that unique. */
const LONGEST_RELEASE = 30;
/** Above any version: there is always something to back up before. */
const ALWAYS = "999999999999999";
const SCRIPTS = "/scripts";
const SCRIPT = "database.sh";

/**
 * What happens to the environment's database ahead of a rollout: a backup, the migration, and the
 * check of what it has made; on the way back, the refusal to return to a release that does not run
 * on it. Beside that its scheduled backups, and the CronJobs that others make Jobs of: the suspended
 * ones, for `kubectl create job --from`, `baton restore` and `baton refresh`.
 *
 * Nothing migrates on the way back, except down where the policy says so, nor where the database is
 * at the release's version or past it.
 */
export class Database extends pulumi.ComponentResource {
  private readonly child: ChildOptions;
  private readonly jobHooks: Pick<pulumi.CustomResourceOptions, "hooks">;
  private readonly claim: pulumi.Input<string>;
  private readonly script: pulumi.Input<string>;
  /** In the names of its Jobs. */
  private readonly release: string;

  /** Whether anything is known of the schema. */
  readonly isRecorded: boolean;
  /** What is known of it, once all of that has succeeded. */
  readonly schema: pulumi.Output<SchemaRecord | undefined>;

  constructor(
    private readonly name: string,
    private readonly args: DatabaseArgs,
    opts?: pulumi.ComponentResourceOptions,
  ) {
    super("baton:components:Database", name, {}, opts);
    this.child = childOptions(this, opts);
    this.jobHooks = opts?.hooks === undefined ? {} : { hooks: opts.hooks };
    this.claim = this.createClaim();
    this.script = new k8s.core.v1.ConfigMap(
      `${name}-script`,
      {
        metadata: { namespace: args.namespace, labels: this.labels() },
        data: { [SCRIPT]: readFileSync(join(__dirname, "internal", SCRIPT), "utf8") },
        immutable: true,
      },
      this.child,
    ).metadata.name;
    this.createCronJobs();
    const { plan, release } = args;
    const from = release.rollbackOf === undefined ? "" : `-from-${release.rollbackOf}`;
    this.release = slugOf(`${release.imageTag}${from}`, LONGEST_RELEASE);
    this.isRecorded = plan.kind !== "none";
    this.schema = this.follow(plan).apply((schema) => schema && recorded(schema, args.database));
    this.registerOutputs({});
  }

  private follow(plan: DatabasePlan): pulumi.Output<SchemaRecord | undefined> {
    switch (plan.kind) {
      case "forward":
        return this.migrate(plan);
      case "back":
        return this.goBack(plan);
      case "none":
        return pulumi.output(plan.known);
      case "same":
        this.checkPoints(plan);
        return pulumi.output(plan.known);
    }
  }

  /** Whatever becomes of the stack, the backups stay as long as the namespace. */
  private createClaim(): pulumi.Input<string> {
    const { namespace, database, protect } = this.args;
    const { volume } = database.backup;
    if ("existing" in volume) return volume.existing;
    const claim = new k8s.core.v1.PersistentVolumeClaim(
      `${this.name}-backups`,
      {
        metadata: {
          namespace,
          name: `${this.name}-backups`,
          // It may be bound only when the first Job mounts it.
          annotations: { "pulumi.com/skipAwait": "true" },
        },
        spec: {
          accessModes: ["ReadWriteOnce"],
          resources: { requests: { storage: volume.size } },
          ...(volume.storageClass === undefined ? {} : { storageClassName: volume.storageClass }),
        },
      },
      { ...this.child, retainOnDelete: true, protect },
    );
    return claim.metadata.name;
  }

  private createCronJobs(): void {
    const { backup, refresh, migration } = this.args.database;
    const { keep, timeoutSeconds } = backup;
    this.createCronJob("backup", backup.schedule, timeoutSeconds, [
      this.client("backup", ["backup"], { NAME: "", KEEP: String(keep.scheduled) }),
    ]);
    this.createCronJob("restore", undefined, timeoutSeconds, [
      this.client("restore", ["restore"], {
        BACKUP: "",
        OVERWRITE: "",
        KEEP: String(keep.releases),
      }),
    ]);
    if (refresh === undefined) return;
    const { dump, seed } = refresh;
    this.createCronJob("refresh", refresh.schedule, timeoutSeconds + 2 * migration.timeoutSeconds, [
      dump === undefined
        ? this.client("empty", ["empty"], {})
        : this.client("dump", ["refresh"], { BACKUP: dump }),
      this.step("migrate", migration, [MIGRATION_SESSION]),
      ...(seed === undefined ? [] : [this.step("seed", { ...migration, command: seed }, [])]),
    ]);
  }

  /** Forward: what is there is backed up and migrated where it is below the release's version. */
  private migrate({
    schema,
    known,
    refusal,
  }: Extract<DatabasePlan, { kind: "forward" }>): pulumi.Output<SchemaRecord> {
    const { database, release } = this.args;
    const { migration, integrity, backup, policy } = database;
    const { points } = mergeSchemas(schema, known);
    const head = {
      HEAD: String(schema.version),
      NAME: `before-${release.imageTag}`,
      POINTS: formatted(points),
      RELEASE: release.imageTag,
    };
    const reading = this.read(`before-${this.release}`, {
      ...head,
      REFUSE_FROM: refusal === undefined ? "" : String(refusal.from),
      REASON: refusal?.reason ?? "",
    });
    const completions = reading.version.apply((version) => (version < schema.version ? 1 : 0));
    const migrated = this.createJob(`migrate-${this.release}`, {
      containers: [
        this.client("guard", ["guard"], {
          ...head,
          KEEP: String(backup.keep.releases),
          BACKUP: reading.backup,
          RESTORE: policy.restoreHalfApplied ? "yes" : "",
        }),
        this.step("migrate", migration, [MIGRATION_SESSION]),
      ],
      completions,
      // The second attempt only settles what the first one has left.
      backoffLimit: 1,
      podDeadlineSeconds: migration.timeoutSeconds,
      deadlineSeconds: 2 * migration.timeoutSeconds + RETRY_SECONDS,
      dependsOn: [reading],
    });
    // A Job of its own, so that what the migration has said is still what a failure shows.
    const reached = this.createJob(`reached-${this.release}`, {
      containers: [this.client("reached", ["reached"], head)],
      completions,
      deadlineSeconds: backup.timeoutSeconds,
      dependsOn: [migrated],
    });
    if (integrity !== undefined) {
      this.createJob(`integrity-${this.release}`, {
        containers: [this.step("integrity", integrity, [])],
        deadlineSeconds: integrity.timeoutSeconds,
        dependsOn: [reached],
      });
    }
    return pulumi.all([reading.version, reading.backup]).apply(([version, made]) => ({
      ...mergeSchemas({ ...schema, version: Math.max(version, schema.version) }, known),
      backup: made === "" ? known?.backup : made,
    }));
  }

  /** Back over a point of no return: refused, unless it was never passed or is undone. */
  private goBack({
    version,
    known,
    refusal,
    down,
  }: Extract<DatabasePlan, { kind: "back" }>): pulumi.Output<SchemaRecord> {
    const { database, release, registry } = this.args;
    const { migration } = database;
    let migrated: pulumi.Resource[] = [];
    let isUndone: pulumi.Input<string> = "";
    if (down !== undefined) {
      const name = `before-down-to-${release.imageTag}`;
      const reading = this.read(`before-down-${this.release}`, { HEAD: ALWAYS, NAME: name });
      const step = {
        ...migration,
        image: migration.image ?? `${registry.repository}@${down.digest}`,
        command: migration.down,
      };
      const isCrossed = reading.version.apply((at) => at >= refusal.from);
      const target = { name: "SCHEMA_TARGET", value: String(version) };
      const job = this.createJob(`down-${this.release}`, {
        containers: [this.step("down", step, [MIGRATION_SESSION, target])],
        completions: isCrossed.apply((is) => (is ? 1 : 0)),
        deadlineSeconds: migration.timeoutSeconds,
        dependsOn: [reading],
      });
      migrated = [job];
      isUndone = isCrossed.apply((is) => (is ? "yes" : ""));
    }
    const reading = this.read(
      `schema-${this.release}`,
      {
        ...{ HEAD: "0", NAME: "", REFUSE_FROM: String(refusal.from), REASON: refusal.reason },
        ...{ RELEASE: release.imageTag, RUNS_ON: String(version), UNDONE: isUndone },
      },
      migrated,
    );
    return reading.version.apply((at) => ({ ...known, version: at < 0 ? version : at }));
  }

  /** Neither record nor labels know of a point of no return, but somebody may have gone over one. */
  private checkPoints({ known, version }: Extract<DatabasePlan, { kind: "same" }>): void {
    const { database, release } = this.args;
    this.createJob(`points-${this.release}`, {
      containers: [
        this.client("points", ["points"], {
          ...{ RELEASE: release.imageTag, HEAD: "0" },
          ...(version === undefined
            ? { POINTS: formatted(known.points) }
            : { RUNS_ON: String(version) }),
        }),
      ],
      deadlineSeconds: database.backup.timeoutSeconds,
      dependsOn: [],
    });
  }

  /** Reads the version of the schema, after a backup where it is below HEAD. */
  private read(name: string, env: Env, dependsOn: pulumi.Resource[] = []): SchemaVersion {
    const { namespace, context, database } = this.args;
    const { keep, timeoutSeconds } = database.backup;
    const job = this.createJob(name, {
      containers: [
        this.client("database", ["before"], {
          REFUSE_FROM: "",
          REASON: "",
          RELEASE: "",
          UNDONE: "",
          KEEP: String(keep.releases),
          ...env,
        }),
      ],
      deadlineSeconds: timeoutSeconds,
      dependsOn,
    });
    return new SchemaVersion(
      `${this.name}-version-${name}`,
      { context, namespace, job: job.metadata.name },
      { ...this.child, dependsOn: [...this.child.dependsOn, job] },
    );
  }

  private createJob(
    name: string,
    job: {
      readonly containers: readonly JobContainer[];
      readonly completions?: pulumi.Input<number>;
      readonly backoffLimit?: number;
      readonly podDeadlineSeconds?: number;
      readonly deadlineSeconds: number;
      readonly dependsOn: readonly pulumi.Resource[];
    },
  ): k8s.batch.v1.Job {
    const resource = `${this.name}-${name}`;
    const after = lastChange(this.args.jobs, resource, this.release);
    return new k8s.batch.v1.Job(
      resource,
      {
        metadata: { namespace: this.args.namespace, labels: this.labels() },
        spec: {
          backoffLimit: job.backoffLimit ?? 0,
          activeDeadlineSeconds: job.deadlineSeconds,
          ...(job.completions === undefined ? {} : { completions: job.completions }),
          template: this.template(resource, job.containers, {
            activeDeadlineSeconds: job.podDeadlineSeconds,
            annotations: after === undefined ? undefined : { [AFTER]: after },
          }),
        },
      },
      {
        ...this.child,
        ...this.jobHooks,
        dependsOn: [...this.child.dependsOn, ...job.dependsOn],
        customTimeouts: { create: `${job.deadlineSeconds + AWAIT_MARGIN_SECONDS}s` },
        // The provider would only look at a failed Job again: the next `up` runs it anew.
        replaceOnChanges: ["#initerror"],
        deleteBeforeReplace: true,
      },
    );
  }

  /** Suspended where it has no schedule: others make Jobs of it. */
  private createCronJob(
    name: string,
    schedule: string | undefined,
    deadlineSeconds: number,
    containers: readonly JobContainer[],
  ): void {
    const objectName = `${this.name}-${name}`;
    new k8s.batch.v1.CronJob(
      objectName,
      {
        metadata: { namespace: this.args.namespace, name: objectName, labels: this.labels() },
        spec: {
          suspend: schedule === undefined,
          schedule: schedule ?? "0 0 1 1 *",
          concurrencyPolicy: "Forbid",
          jobTemplate: {
            spec: {
              backoffLimit: 0,
              activeDeadlineSeconds: deadlineSeconds,
              template: this.template(objectName, containers),
            },
          },
        },
      },
      this.child,
    );
  }

  private labels(): Record<string, string> {
    return { ...this.args.labels, ...DATABASE };
  }

  private template(
    name: string,
    containers: readonly JobContainer[],
    { activeDeadlineSeconds, annotations }: PodOptions = {},
  ): PodTemplate {
    const { serviceAccount, settings } = this.args;
    return {
      metadata: {
        labels: { ...this.labels(), "app.kubernetes.io/name": name },
        ...(annotations === undefined ? {} : { annotations }),
      },
      spec: jobPod({
        containers,
        volumes: [
          ...settings.volumes,
          { name: "backups", persistentVolumeClaim: { claimName: this.claim } },
          { name: "scripts", configMap: { name: this.script } },
          { name: "tmp", emptyDir: {} },
        ],
        ...(activeDeadlineSeconds === undefined ? {} : { activeDeadlineSeconds }),
        runAsUser: JOB_USER,
        serviceAccount,
      }),
    };
  }

  /** Runs `internal/database.sh`. */
  private client(name: string, words: readonly string[], env: Env): JobContainer {
    const { database, environment, registry, urlKey } = this.args;
    const { name: secret, key } = urlKey;
    return {
      name,
      image: qualifyImage(database.client, registry.repository),
      command: ["/bin/sh", `${SCRIPTS}/${SCRIPT}`],
      args: [...words],
      env: [
        { name: "DATABASE_URL", valueFrom: { secretKeyRef: { name: secret, key } } },
        { name: "JOB", valueFrom: { fieldRef: { fieldPath: "metadata.labels['job-name']" } } },
        ...Object.entries({
          URL_KEY: database.url,
          VERSION_QUERY: database.version,
          ENVIRONMENT: environment,
          BACKUPS,
          ...env,
        }).map(([variable, value]) => ({ name: variable, value })),
      ],
      volumeMounts: [
        { name: "backups", mountPath: BACKUPS },
        { name: "scripts", mountPath: SCRIPTS, readOnly: true },
        { name: "tmp", mountPath: "/tmp" },
      ],
      resources: database.backup.resources,
    };
  }

  /** Runs what the release, or an image of its own, brings; with the release's settings. */
  private step(
    name: string,
    { image, command, args, resources }: Step,
    env: readonly EnvVar[],
  ): JobContainer {
    const { registry, release, settings } = this.args;
    return {
      name,
      image:
        image === undefined
          ? `${registry.repository}@${release.digest}`
          : qualifyImage(image, registry.repository),
      command,
      args,
      env: [...settings.env, { name: "RELEASE_TAG", value: release.imageTag }, ...env],
      envFrom: settings.envFrom,
      volumeMounts: [...settings.volumeMounts, { name: "tmp", mountPath: "/tmp" }],
      resources,
    };
  }
}

/** What the next release finds: what allows its way back is this configuration, no former one. */
function recorded(
  { version, points, backup }: SchemaRecord,
  { policy }: DatabaseConfig,
): SchemaRecord {
  return {
    version,
    points,
    ...(backup === undefined ? {} : { backup }),
    ...(policy.allowDown ? { allowDown: true } : {}),
  };
}

/** `5=contract 7=irreversible`. */
function formatted(points: readonly SchemaPoint[]): string {
  return points.map(({ version, kind }) => `${version}=${kind}`).join(" ");
}
