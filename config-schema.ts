import { z } from "zod";
import { QUANTITY } from "./components/internal/quantity";

/*
 * What a stack file may say. Every message completes the sentence "… is X; expected …".
 */

const name = z
  .string()
  .regex(/^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$/, "a DNS label of at most 40 characters, such as web");
const text = z.string({ error: "a text" }).min(1, "a text that is not empty");
const port = z
  .int({ error: "a port number" })
  .min(1, "a port from 1 to 65535")
  .max(65535, "a port from 1 to 65535");
const count = z.int({ error: "a whole number" });
const number = z.number({ error: "a number" });
const seconds = count.min(1, "a number of seconds from 1");
/** In seconds. */
const duration = z
  .string({ error: "a duration, such as 30m, 4h or 3d" })
  .regex(/^[1-9]\d*[smhd]$/, "a duration, such as 30m, 4h or 3d")
  .transform((given) => {
    const units: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600, d: 86_400 };
    return Number(given.slice(0, -1)) * (units[given.slice(-1)] ?? 1);
  });
const email = z.email({ error: "an email address" });
const environment = z.string().regex(/^[a-z][a-z0-9]*$/, "the name of an environment");
const cidr = z.cidrv4({ error: "an IPv4 range, such as 10.20.0.0/16" });
/** Scalars as YAML reads them; Kubernetes wants text. */
const scalar = z
  .union([z.string(), z.number(), z.boolean()], { error: "a text, a number, true or false" })
  .transform(String);
const quantity = z
  .union([z.string(), z.number()], { error: "a Kubernetes quantity, such as 500m or 512Mi" })
  .transform(String)
  .pipe(z.string().regex(QUANTITY, "a Kubernetes quantity, such as 500m or 512Mi"));
/** Of pods: a number, or a percentage of the replicas. */
const share = scalar.pipe(
  z.string().regex(/^\d+%?$/, "a number of pods, or a percentage such as 25%"),
);
const labels = z.record(z.string(), scalar);
const command = z.array(scalar, { error: "a list of words" });
const compute = z.strictObject({ cpu: quantity, memory: quantity });

const resources = z.strictObject({ requests: compute, limits: compute });

const probe = z.strictObject({
  /** HTTP path on `port`; or give `command`. */
  path: text.optional(),
  port: port.optional(),
  command: command.optional(),
  initialDelaySeconds: count.optional(),
  periodSeconds: seconds.optional(),
  timeoutSeconds: seconds.optional(),
  failureThreshold: count.optional(),
});

const toleration = z.strictObject({
  key: text.optional(),
  operator: z.enum(["Exists", "Equal"]).optional(),
  value: scalar.optional(),
  effect: z.enum(["NoSchedule", "PreferNoSchedule", "NoExecute"]).optional(),
});

const tls = z.discriminatedUnion("source", [
  /** A TLS Secret that something else keeps in the namespace. */
  z.strictObject({ source: z.literal("existing"), secret: text }),
  /** The Ingress controller finds it by the host, as AWS's does in ACM. */
  z.strictObject({ source: z.literal("controller") }),
  /** A certificate that cert-manager obtains from this ClusterIssuer. */
  z.strictObject({ source: z.literal("certManager"), issuer: text }),
  /** `baton:tlsCertificate` and `baton:tlsKey`, both PEM, the key set with `--secret`. */
  z.strictObject({ source: z.literal("config") }),
]);

const exposure = z.strictObject({
  /** Which of the cluster's two entrances, as `baton:entrances` names them. */
  scope: z.enum(["internal", "public"]),
  host: text,
  path: text.default("/"),
  /** Who may call, by client address; none means everyone the entrance lets in. */
  sourceRanges: z.array(cidr).optional(),
  /** Ingress only; with a Gateway, the listener holds the certificate. */
  tls: tls.optional(),
  /** Put on the Ingress or HTTPRoute: how an authenticating proxy is switched on. */
  annotations: labels.optional(),
});

const workload = z.strictObject({
  kind: z.enum(["Deployment", "CronJob"]).default("Deployment"),
  /** The object's name, where it is not the workload's own key. */
  name: name.optional(),
  /** The pods' selector, where an adopted Deployment has another one. */
  selector: labels.optional(),
  command: command.optional(),
  args: command.optional(),
  /** The container's port; makes a Service. */
  port: port.optional(),
  /** When a CronJob runs, in cron's five fields. */
  schedule: text.optional(),
  replicas: count.min(1, "a whole number from 1").optional(),
  autoscale: z
    .strictObject({
      minReplicas: count.min(1, "a whole number from 1"),
      maxReplicas: count.min(1, "a whole number from 1"),
      /** Average CPU, in percent of the request. */
      cpuUtilization: count.min(1, "a percentage").max(100, "a percentage"),
    })
    .optional(),
  resources,
  probes: z
    .strictObject({
      startup: probe.optional(),
      readiness: probe.optional(),
      liveness: probe.optional(),
    })
    .default({}),
  /** Run to their end before the container starts, from the same image. */
  initContainers: z
    .array(z.strictObject({ name, command: command.optional(), args: command.optional() }))
    .default([]),
  /** Folders the process may write to; all else is read-only. */
  writablePaths: z.array(text).default([]),
  runAsUser: count.min(1, "a user id from 1: containers do not run as root").default(65532),
  /** Wait before SIGTERM, so that the endpoints are gone from the proxies first. */
  preStopSeconds: count.min(0, "a number of seconds from 0").default(5),
  terminationGracePeriodSeconds: seconds.default(30),
  nodeSelector: labels.optional(),
  tolerations: z.array(toleration).optional(),
  topologySpread: z
    .strictObject({
      topologyKey: text,
      whenUnsatisfiable: z.enum(["DoNotSchedule", "ScheduleAnyway"]),
    })
    .optional(),
  metrics: z.strictObject({ path: text, port: port.optional() }).optional(),
  exposure: exposure.optional(),
});

const suite = z.strictObject({
  /** The release's own image unless given; a name without a registry is in `baton:registry`'s. */
  image: text.optional(),
  command: command.optional(),
  args: command.optional(),
  /** The workload under test: its Service's URL is in TARGET_URL. */
  target: name.optional(),
  /** Call the target through its exposure instead of its Service. */
  through: z.enum(["service", "exposure"]).default("service"),
  timeoutSeconds: seconds.default(120),
  resources: resources.default({
    requests: { cpu: "50m", memory: "64Mi" },
    limits: { cpu: "500m", memory: "256Mi" },
  }),
});

/** What runs to its end in a Job of the database's. */
const step = {
  /** The release's own image unless given; a name without a registry is in `baton:registry`'s. */
  image: text.optional(),
  command: command.optional(),
  args: command.optional(),
  timeoutSeconds: seconds.default(300),
  resources: resources.default({
    requests: { cpu: "50m", memory: "64Mi" },
    limits: { cpu: "500m", memory: "256Mi" },
  }),
};

/** The environment's PostgreSQL. */
const database = z.strictObject({
  /** The secret setting that holds its URL. */
  url: text,
  /** An image with psql, pg_dump and pg_restore, no older than the server, and a shell. */
  client: text,
  /** SQL that gives the version of the schema, one whole number. */
  version: text,
  /** Whether another environment's database feeds it: nothing here changes it then. */
  follower: z.boolean({ error: "true or false" }).default(false),
  migration: z.strictObject({
    ...step,
    /** From the release being left, back to the version SCHEMA_TARGET; see `policy.allowDown`. */
    down: command.optional(),
  }),
  /** Runs after each migration. */
  integrity: z.strictObject(step).optional(),
  backup: z.strictObject({
    /** Where the backups are: a claim that is made, or one that something else keeps. */
    volume: z.union(
      [
        z.strictObject({ size: quantity, storageClass: text.optional() }),
        z.strictObject({ existing: text }),
      ],
      { error: "size and storageClass, or existing" },
    ),
    /** How many of the newest before releases, and of the scheduled ones. */
    keep: z
      .strictObject({
        releases: count.min(2, "a whole number from 2").default(10),
        scheduled: count.min(1, "a whole number from 1").default(7),
      })
      .prefault({}),
    /** When, beside those before migrations, in cron's five fields. */
    schedule: text.optional(),
    timeoutSeconds: seconds.default(900),
    resources: step.resources,
  }),
  /** Other data in place of what is there; never where people approve what is deployed. */
  refresh: z
    .strictObject({
      /** A backup of the volume, such as an anonymised one; else the database starts empty. */
      dump: text.optional(),
      /** Runs after the migration, and fills it. */
      seed: command.optional(),
      /** In cron's five fields; on demand only unless given. */
      schedule: text.optional(),
    })
    .optional(),
  policy: z
    .strictObject({
      /** Whether a migration that was applied in part is undone by its backup. */
      restoreHalfApplied: z.boolean({ error: "true or false" }).default(false),
      /** Whether the way back may run `migration.down`. */
      allowDown: z.boolean({ error: "true or false" }).default(false),
    })
    .prefault({}),
});

const repository = z
  .string()
  .regex(
    /^[a-z0-9.-]+(:\d+)?(\/[a-z0-9]+([._-]+[a-z0-9]+)*)+$/,
    "a registry's host and the image's name, such as registry.example.com/podinfo",
  );

/** Where the value of a secret comes from. */
const secret = z.discriminatedUnion("source", [
  /** Pulumi's encrypted config: `pulumi config set --secret NAME`. */
  z.strictObject({ source: z.literal("config") }),
  /** Generated once; another `rotation` generates another one. */
  z.strictObject({
    source: z.literal("random"),
    length: count.min(16, "a length from 16").max(256, "a length up to 256").default(32),
    rotation: count.default(1),
  }),
  /** A Secret that something else keeps in the namespace, such as External Secrets. */
  z.strictObject({ source: z.literal("existing"), secret: text, key: text }),
]);

const entrance = z.strictObject({
  /** The Ingress class, or the Gateway's name. */
  name: text,
  /** Where its proxies run as pods: a Gateway's own namespace, or an Ingress controller's. */
  namespace: text.optional(),
  /** Where its proxies call from, if they are no pods, such as a load balancer's subnets. */
  cidr: cidr.optional(),
});

const egress = z.strictObject({
  /** What is there; for people. */
  name,
  /** Addresses; or give `namespace`. */
  cidr: cidr.optional(),
  /** Addresses of `cidr` that stay closed. */
  except: z.array(cidr).optional(),
  /** Pods of this namespace. */
  namespace: text.optional(),
  port,
});

const approval = z.strictObject({
  /** How many people. */
  required: count.min(0, "a whole number from 0").default(0),
  /** Whether the word of whoever made the request does not count. */
  notOwnRequest: z.boolean({ error: "true or false" }).default(true),
  /** Whose word counts; everyone's unless given. */
  from: z.array(email).optional(),
  /** How long a word counts; for good unless given. */
  expiresAfter: duration.optional(),
  /** Whether only a signed word counts. */
  signed: z.boolean({ error: "true or false" }).default(false),
  /** Beside Pulumi.yaml: who signs with which key, as `git config gpg.ssh.allowedSignersFile`. */
  allowedSigners: text.default("allowed-signers"),
  /** A release that changes nothing but what every release does needs nobody's word. */
  unattended: z
    .strictObject({
      /** Keys of `settings.config` that may differ, too. */
      settings: z.array(text).default([]),
    })
    .optional(),
  /** In place of `required` and `from`, for what crosses a point of no return of the database. */
  irreversible: z
    .strictObject({
      required: count.min(1, "a whole number from 1"),
      from: z.array(email).optional(),
    })
    .optional(),
  /** The fast lane of `baton request --hotfix`; closed unless given. */
  hotfix: z
    .strictObject({
      /** Whose earned tags it takes; the upstream's unless given. */
      upstream: environment.optional(),
      /** In place of `required`. */
      required: count.min(0, "a whole number from 0").default(1),
      /** How long such a request may be deployed. */
      expiresAfter: duration.prefault("4h"),
    })
    .optional(),
});

const answer = z.enum(["hold", "goBack"]);

/** What a release's metrics must be while it bakes. */
const analysis = z.strictObject({
  /** Where whoever deploys reaches Prometheus; without it, only the pods are watched. */
  prometheus: z
    .string({ error: "a URL" })
    .regex(
      /^https?:\/\/[^\s@]+$/,
      "a URL without credentials, such as https://prometheus.example.com",
    )
    .optional(),
  /** How often it is asked. */
  interval: duration.prefault("10s"),
  /** What $(WINDOW) stands for in queries. */
  window: duration.prefault("1m"),
  /** So many samples beyond a limit, one after another, and the release has failed. */
  failuresInARow: count.min(1, "a whole number from 1").default(2),
  /** How many requests a window has, and how many it needs for its values to count. */
  traffic: z.strictObject({ query: text, min: number.min(1, "a number from 1") }).optional(),
  queries: z
    .record(
      name,
      z
        .strictObject({
          /** PromQL that gives one number. */
          query: text,
          unit: text.optional(),
          max: number.optional(),
          min: number.optional(),
          /** At most so many times what the former release's value was. */
          maxTimesStable: number.min(1, "a number from 1").optional(),
        })
        .refine(
          ({ max, min }) => max !== undefined || min !== undefined,
          "a query with max, min or both",
        ),
    )
    .default({}),
  /** What to do while Prometheus does not answer: wait for it, or fail. */
  whenUnavailable: answer.default("hold"),
  /** What to do while a window has too few requests: wait for more, or fail. */
  whenTooLittleTraffic: answer.default("hold"),
});

/** When nothing may go forward; the way back is always open. */
const freeze = z
  .strictObject({
    name: text,
    /** When it begins, in cron's five fields; with `duration`. */
    schedule: text.optional(),
    duration: duration.optional(),
    /** Or once, from and until a local time such as 2026-12-24T00:00. */
    from: text.optional(),
    until: text.optional(),
    /** An IANA name, such as Europe/Berlin. */
    timeZone: text.default("UTC"),
  })
  .refine(
    ({ schedule, duration, from, until }) =>
      (schedule === undefined) === (duration === undefined) &&
      (from === undefined) === (until === undefined) &&
      (schedule === undefined) !== (from === undefined),
    "schedule and duration, or from and until",
  );

/** A day; Pulumi hands an unquoted one on as `2026-12-24 00:00:00 +0000 UTC`. */
const day = z
  .string({ error: "a day, such as 2026-12-24" })
  .regex(/^\d{4}-\d\d-\d\d( 00:00:00 \+0000 UTC)?$/, "a day, such as 2026-12-24")
  .transform((given) => given.slice(0, 10))
  .refine((given) => !Number.isNaN(Date.parse(given)), "a day that there is, such as 2026-12-24");

/** Which findings of a scanner stop a release. */
const scan = z.strictObject({
  /** Who scans: ECR, or the build, which attaches its report. ECR unless given, where it can. */
  source: z.enum(["ecr", "report"]).optional(),
  /** Findings of this severity, and worse. */
  refuse: z.enum(["low", "medium", "high", "critical"]),
  /** What may pass all the same, until its day. */
  exceptions: z
    .array(z.strictObject({ id: text, reason: text, expires: day }), { error: "a list" })
    .default([]),
});

const arn = z.string().regex(/^arn:aws[a-z-]*:/, "an ARN, such as arn:aws:s3:::example");
const region = z.string().regex(/^[a-z]{2}(-[a-z]+)+-\d$/, "a region of AWS, such as eu-central-1");
/** A branch of the repository on GitHub; a tag or a pull request cannot be named. */
const branch = z
  .string()
  .regex(/^(?!refs\/|\*)[^\s~^:?[\\{}$]+$/, "a branch, such as main or release/*");

/** Roles in AWS. */
const roles = z.strictObject({
  github: z.strictObject({
    repository: z
      .string()
      .regex(/^[A-Za-z0-9-]+\/[A-Za-z0-9._-]+$/, "OWNER/NAME, such as example/podinfo"),
    /** The account's OpenID Connect provider for GitHub, by its ARN; made unless given. */
    provider: arn.optional(),
  }),
  /** Jobs that push images, by the branches that they run on. */
  build: z.strictObject({
    branches: z.array(branch, { error: "a list of branches" }).min(1, "at least one branch"),
  }),
  /** Jobs that deploy, and those that preview, by environment. */
  deploy: z
    .record(
      environment,
      z.strictObject({
        /** The environment's protected branch. */
        branch: branch.default("main"),
        /** The environment that it takes releases from. */
        upstream: environment.optional(),
        /** The environments that are asked for and previewed together with it. */
        followers: z.array(environment, { error: "a list of environments" }).default([]),
        /** The key of the stack's secrets, by its ARN: no other environment has it. */
        kmsKey: arn.optional(),
        /** The region of the registry that it takes images from: the repository's own unless given. */
        region: region.optional(),
        /** The EKS cluster's ARN. */
        cluster: arn.optional(),
      }),
    )
    .default({}),
  /** Where Pulumi keeps its state, if that is S3. */
  state: z.strictObject({ bucket: arn }).optional(),
  /** Names of the roles that clusters' nodes have, in this account. */
  pull: z.array(text).default([]),
});

/** Keys that say which release a stack runs: the only ones that a promotion changes. */
export const MOVING_KEYS = [
  "imageTag",
  "imageDigest",
  "version",
  "rollbackOf",
  "hotfixFrom",
] as const;

export const Config = z.strictObject({
  // What moves when a release is promoted.
  imageTag: text.optional(),
  imageDigest: z
    .string()
    .regex(/^sha256:[0-9a-f]{64}$/, "sha256: and 64 hexadecimal digits")
    .optional(),
  version: text.optional(),
  rollbackOf: text.optional(),
  /** The environment whose earned tag a hotfix takes in place of the upstream's. */
  hotfixFrom: environment.optional(),

  // What describes the environment.
  upstream: environment.optional(),
  versioned: z.boolean({ error: "true or false" }).default(false),
  /** Whether it is asked for, approved, deployed and taken back together with its upstream. */
  follows: z.boolean({ error: "true or false" }).default(false),

  // What must hold before a release may move; the tool's gates.
  /** Whose word a deployment needs. */
  approval: approval.prefault({}),
  freeze: z.array(freeze).default([]),
  /** How long the upstream must have run a release. */
  soak: duration.optional(),
  /** Its findings are not looked at unless given. */
  scan: scan.optional(),
  /** Whose word this environment's releases need before they may move on, by its name (uat, qa). */
  signOffs: z.record(name, z.array(email)).default({}),
  /** Who runs `pulumi up` when a request is complete: the tool, or Pulumi Deployments by a git tag. */
  deployedBy: z.enum(["tool", "pulumi-deployments"]).default("tool"),
  /** Which of `slack.channels` hear of what. */
  announce: z
    .strictObject({
      builds: z.array(name).default([]),
      requests: z.array(name).default([]),
      outcomes: z.array(name).default([]),
      /** A way back, too. */
      failures: z.array(name).default([]),
    })
    .prefault({}),

  owns: z.array(z.enum(["repository", "roles", "slackChannels"])).default([]),
  registry: z.strictObject({
    kind: z.enum(["ecr", "oci"]),
    repository,
    plainHttp: z.boolean({ error: "true or false" }).optional(),
    /** How releases get here, where this is another registry than the upstream's. */
    replica: z
      .strictObject({
        /** How long a deployment waits for one to arrive. */
        timeout: duration.prefault("5m"),
        /** Where a deployment copies it from; without it, the registries see to that themselves. */
        mirrorOf: z
          .strictObject({
            repository,
            plainHttp: z.boolean({ error: "true or false" }).optional(),
          })
          .optional(),
      })
      .optional(),
    pullSecret: z
      .discriminatedUnion("source", [
        /** A docker-registry Secret that something else keeps in the namespace. */
        z.strictObject({ source: z.literal("existing"), secret: text }),
        /** `baton:registryPassword`, set with `--secret`. */
        z.strictObject({ source: z.literal("config"), username: text }),
      ])
      .optional(),
    /** The key that ECR encrypts with, by its ARN; AWS's own unless given. */
    kmsKey: arn.optional(),
    /** Regions that ECR copies every image to, each with a key of its own. */
    replication: z
      .array(z.strictObject({ region, kmsKey: arn.optional() }), { error: "a list" })
      .default([]),
    /** Other accounts whose clusters pull. */
    pullAccounts: z
      .array(
        z
          .string({ error: "an account's 12 digits, in quotes" })
          .regex(/^\d{12}$/, "an account's 12 digits, in quotes"),
      )
      .default([]),
    /** ECR's own, on push; or Inspector's, which goes on for good and costs. */
    scanning: z.enum(["basic", "enhanced"]).default("basic"),
    /** Which images ECR keeps, by the giver of their tags. */
    lifecycle: z
      .strictObject({
        /** Whatever one of these has earned is never expired. */
        keepAll: z.array(text),
        /** Of the others, so many of the newest; where an image has several tags, the first counts. */
        keepNewest: z.record(
          text,
          count.min(5, "at least 5, so that there is something to go back to"),
        ),
      })
      .optional(),
  }),
  /** Made by the stack that owns them. */
  roles: roles.optional(),
  cluster: z
    .strictObject({
      /** A context of the kubeconfig that kubectl would use too; its current one unless given. */
      context: text.optional(),
    })
    .default({}),
  namespace: z
    .strictObject({
      /** The environment's name unless given. */
      name: name.optional(),
      /** Groups that may deploy into the namespace. */
      deployers: z.array(text).default([]),
    })
    .default({ deployers: [] }),
  /** ResourceQuota's `hard`. */
  quota: z.record(z.string(), quantity),
  /** What a container gets that says nothing itself. */
  limitRange: z.strictObject({ defaultRequest: compute, default: compute }),
  network: z
    .strictObject({
      /** Where Prometheus runs. */
      prometheusNamespace: text.optional(),
      /** What the workloads may call besides DNS and each other. */
      egress: z.array(egress).default([]),
    })
    .default({ egress: [] }),
  entrances: z
    .strictObject({
      kind: z.enum(["Ingress", "HTTPRoute"]),
      controller: z.enum(["alb", "nginx", "envoyGateway", "traefik"]),
      internal: entrance.optional(),
      public: entrance.optional(),
    })
    .optional(),
  settings: z
    .strictObject({
      config: z.record(z.string(), scalar).default({}),
      secrets: z.record(z.string(), secret).default({}),
      /** Mount every setting as a file of this folder instead of an environment variable. */
      mountPath: text.optional(),
    })
    .default({ config: {}, secrets: {} }),
  workloads: z.record(name, workload),
  database: database.optional(),
  rollout: z
    .strictObject({
      strategy: z.enum(["rolling", "blueGreen", "canary"]).default("rolling"),
      /** A canary's, up to the whole traffic, in which it bakes. */
      steps: z
        .array(
          z.strictObject({
            /** In percent of the requests. */
            weight: count.min(1, "a percentage from 1 to 99").max(99, "a percentage from 1 to 99"),
            /** For how long the release must have been good with it. */
            duration,
          }),
          { error: "a list of steps, each with a weight and a duration" },
        )
        .min(1, "at least one step")
        .prefault([
          { weight: 10, duration: "5m" },
          { weight: 50, duration: "5m" },
        ]),
      maxSurge: share.default("25%"),
      maxUnavailable: share.default("0"),
      /** Without progress for this long, the rollout has failed. */
      progressDeadlineSeconds: seconds.default(300),
      /** For how long a release must hold up in use before it earns its tag; not at all unless given. */
      bake: duration.optional(),
      analysis: analysis.optional(),
    })
    .prefault({}),
  verification: z.strictObject({
    suites: z.record(name, suite),
    /** Which suites run here, in this order. */
    run: z.array(name),
  }),
  monitoring: z
    .strictObject({
      level: z.enum(["none", "scrape", "alerts"]),
      /** ServiceMonitor and PrometheusRule instead of annotations. */
      prometheusOperator: z.boolean({ error: "true or false" }).default(false),
    })
    .default({ level: "none", prometheusOperator: false }),
  slack: z
    .strictObject({
      channels: z.record(
        name,
        z.strictObject({
          name: text,
          topic: text,
          private: z.boolean({ error: "true or false" }).default(false),
        }),
      ),
    })
    .optional(),
});

export type Config = z.infer<typeof Config>;
export type WorkloadConfig = z.infer<typeof workload>;
export type ProbeConfig = z.infer<typeof probe>;
export type ExposureConfig = z.infer<typeof exposure>;
export type EntrancesConfig = NonNullable<Config["entrances"]>;
export type SuiteConfig = z.infer<typeof suite>;
export type DatabaseConfig = z.infer<typeof database>;
export type SecretConfig = z.infer<typeof secret>;
export type ResourcesConfig = z.infer<typeof resources>;
export type EntranceConfig = z.infer<typeof entrance>;
export type AnalysisConfig = z.infer<typeof analysis>;
export type TlsConfig = z.infer<typeof tls>;
