import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { splitRepository } from "../registry/reference";
import type { Config } from "../config-schema";
import { asksApproval, type StackConfig } from "../config";
import { childOptions, type ChildOptions } from "./internal/child-options";
import { networkPolicies } from "./internal/network-policies";

export interface EnvironmentNamespaceArgs {
  readonly config: StackConfig;
}

/** The minor version whose `restricted` profile is enforced, so that an upgrade changes nothing. */
const POD_SECURITY_VERSION = "v1.34";

const READ = ["get", "list", "watch"];
const WRITE = [...READ, "create", "update", "patch", "delete"];
/** What a release is made of: the deployers' own. */
const RELEASE: Readonly<Record<string, readonly string[]>> = {
  "": ["configmaps", "persistentvolumeclaims", "secrets", "services"],
  apps: ["deployments"],
  autoscaling: ["horizontalpodautoscalers"],
  batch: ["cronjobs", "jobs"],
  "coordination.k8s.io": ["leases"],
  "gateway.envoyproxy.io": ["securitypolicies"],
  "gateway.networking.k8s.io": ["httproutes"],
  "monitoring.coreos.com": ["prometheusrules", "servicemonitors"],
  "networking.k8s.io": ["ingresses"],
  policy: ["poddisruptionbudgets"],
  "traefik.io": ["middlewares"],
};
/** What holds a release, and what comes of it: deployers see it, and cannot loosen it. */
const SURROUNDINGS: Readonly<Record<string, readonly string[]>> = {
  "": [
    ...["events", "limitranges", "namespaces", "pods", "pods/log"],
    ...["resourcequotas", "serviceaccounts"],
  ],
  apps: ["replicasets"],
  "networking.k8s.io": ["networkpolicies"],
  "rbac.authorization.k8s.io": ["rolebindings", "roles"],
};

/**
 * The place an environment's pods live in: a namespace that enforces Pod Security `restricted`,
 * with quota, container defaults, closed network, a service account without a token, the image
 * pull secret and a role for those who deploy.
 */
export class EnvironmentNamespace extends pulumi.ComponentResource {
  private readonly child: ChildOptions;

  /** The namespace's name. */
  readonly namespace: pulumi.Output<string>;
  /** The service account that workloads and suites run as. */
  readonly serviceAccount: pulumi.Output<string>;

  constructor(
    name: string,
    { config }: EnvironmentNamespaceArgs,
    opts?: pulumi.ComponentResourceOptions,
  ) {
    super("baton:components:EnvironmentNamespace", name, {}, opts);
    this.child = childOptions(this, opts);
    const inNamespace = (objectName: string) => ({
      namespace: this.namespace,
      name: objectName,
    });

    const modes = ["enforce", "audit", "warn"];
    const namespace = new k8s.core.v1.Namespace(
      name,
      {
        metadata: {
          name: config.namespaceName,
          labels: {
            "app.kubernetes.io/managed-by": "pulumi",
            "baton/environment": config.environment,
            ...Object.fromEntries(
              modes.flatMap((mode) => [
                [`pod-security.kubernetes.io/${mode}`, "restricted"],
                [`pod-security.kubernetes.io/${mode}-version`, POD_SECURITY_VERSION],
              ]),
            ),
          },
        },
      },
      // `pulumi destroy` runs no program, and so asks for no approvals.
      { ...this.child, protect: asksApproval(config) },
    );
    this.namespace = namespace.metadata.name;

    new k8s.core.v1.ResourceQuota(
      `${name}-quota`,
      { metadata: inNamespace("quota"), spec: { hard: config.quota } },
      this.child,
    );
    new k8s.core.v1.LimitRange(
      `${name}-limits`,
      {
        metadata: inNamespace("container-defaults"),
        spec: { limits: [{ type: "Container", ...config.limitRange }] },
      },
      this.child,
    );
    for (const policy of networkPolicies(config)) {
      new k8s.networking.v1.NetworkPolicy(
        `${name}-network-${policy.name}`,
        { metadata: inNamespace(policy.name), spec: policy.spec },
        this.child,
      );
    }

    const pullSecret = this.createPullSecret(name, config);
    const serviceAccount = new k8s.core.v1.ServiceAccount(
      `${name}-workload`,
      {
        metadata: inNamespace("workload"),
        automountServiceAccountToken: false,
        ...(pullSecret === undefined ? {} : { imagePullSecrets: [{ name: pullSecret }] }),
      },
      this.child,
    );
    this.serviceAccount = serviceAccount.metadata.name;

    if (config.namespace.deployers.length > 0) this.createDeployerRole(name, config.namespace);
    this.registerOutputs({ namespace: this.namespace, serviceAccount: this.serviceAccount });
  }

  /** The name of the Secret that pulls images; `undefined` where the node's own rights suffice. */
  private createPullSecret(
    name: string,
    { registry, configSecrets }: StackConfig,
  ): pulumi.Input<string> | undefined {
    const { pullSecret } = registry;
    if (pullSecret?.source !== "config") return pullSecret?.secret;
    const { host } = splitRepository(registry.repository);
    const { username } = pullSecret;
    const password = configSecrets["registryPassword"] ?? "";
    const auth = pulumi
      .output(password)
      .apply((value) => Buffer.from(`${username}:${value}`).toString("base64"));
    const secret = new k8s.core.v1.Secret(
      `${name}-pull-secret`,
      {
        metadata: { namespace: this.namespace },
        type: "kubernetes.io/dockerconfigjson",
        stringData: {
          ".dockerconfigjson": pulumi.secret(
            pulumi.jsonStringify({ auths: { [host]: { username, password, auth } } }),
          ),
        },
      },
      this.child,
    );
    // A state that a provider before 4 has written marks every output of a Secret as secret.
    return pulumi.unsecret(secret.metadata.name);
  }

  private createDeployerRole(name: string, { deployers }: Config["namespace"]): void {
    const metadata = { namespace: this.namespace, name: "deployer" };
    const role = new k8s.rbac.v1.Role(
      `${name}-deployer`,
      {
        metadata,
        rules: [...rules(RELEASE, WRITE), ...rules(SURROUNDINGS, READ)],
      },
      this.child,
    );
    new k8s.rbac.v1.RoleBinding(
      `${name}-deployers`,
      {
        metadata: { namespace: this.namespace, name: "deployers" },
        roleRef: {
          apiGroup: "rbac.authorization.k8s.io",
          kind: "Role",
          name: role.metadata.name,
        },
        subjects: deployers.map((group) => ({
          apiGroup: "rbac.authorization.k8s.io",
          kind: "Group",
          name: group,
        })),
      },
      this.child,
    );
  }
}

function rules(
  resources: Readonly<Record<string, readonly string[]>>,
  verbs: string[],
): k8s.types.input.rbac.v1.PolicyRule[] {
  return Object.entries(resources).map(([group, names]) => ({
    apiGroups: [group],
    resources: [...names],
    verbs,
  }));
}
