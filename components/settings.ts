import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { childOptions, type ChildOptions } from "./internal/child-options";
import * as random from "@pulumi/random";
import type { Config } from "../config-schema";

export interface SettingsArgs {
  readonly namespace: string;
  readonly settings: Config["settings"];
  /** Values of the secrets whose source is `config`, by key. */
  readonly configSecrets: Readonly<Record<string, pulumi.Output<string>>>;
  /** The tag of the release these settings belong to. */
  readonly imageTag: string;
  readonly labels: Readonly<Record<string, string>>;
}

/** A release's settings, by which they are found again. */
export interface KeptSettings {
  readonly imageTag: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly hasSecret: boolean;
}

/** How a container gets its settings. */
export interface ContainerSettings {
  readonly env: k8s.types.input.core.v1.EnvVar[];
  readonly envFrom: k8s.types.input.core.v1.EnvFromSource[];
  readonly volumes: k8s.types.input.core.v1.Volume[];
  readonly volumeMounts: k8s.types.input.core.v1.VolumeMount[];
}

/**
 * One release's settings: an immutable ConfigMap and an immutable Secret. Their logical names carry
 * the release's tag and their real names are Pulumi's, so the former release's objects stay until
 * a later release has succeeded, and a rollback finds its own again.
 */
export class Settings extends pulumi.ComponentResource {
  private readonly child: ChildOptions;
  private readonly hasSecret: boolean;

  /** What a container must say to have these settings. */
  readonly container: ContainerSettings;
  private readonly ownSecret: pulumi.Input<string> | undefined;

  constructor(
    private readonly name: string,
    private readonly args: SettingsArgs,
    opts?: pulumi.ComponentResourceOptions,
  ) {
    super("baton:components:Settings", name, {}, opts);
    this.child = childOptions(this, opts);
    const { settings, namespace, labels, imageTag } = args;
    const metadata = { namespace, labels };

    const configMap = new k8s.core.v1.ConfigMap(
      `${name}-${imageTag}`,
      { metadata, data: settings.config, immutable: true },
      this.child,
    );

    const owned: Record<string, pulumi.Input<string>> = {};
    for (const [key, secret] of Object.entries(settings.secrets)) {
      if (secret.source === "config") {
        const value = args.configSecrets[key];
        if (value !== undefined) owned[key] = value;
      } else if (secret.source === "random") {
        owned[key] = new random.RandomPassword(
          `${name}-${key}`,
          { length: secret.length, special: false, keepers: { rotation: String(secret.rotation) } },
          this.child,
        ).result;
      }
    }
    const secret =
      Object.keys(owned).length === 0
        ? undefined
        : new k8s.core.v1.Secret(
            `${name}-${imageTag}`,
            { metadata, type: "Opaque", stringData: owned, immutable: true },
            this.child,
          );

    // A state that a provider before 4 has written marks every output of a Secret as secret.
    this.ownSecret = secret && pulumi.unsecret(secret.metadata.name);
    this.hasSecret = secret !== undefined;
    this.container = containerSettings(
      settings,
      configMap.metadata.name,
      this.ownSecret,
      Object.keys(owned),
    );
    this.registerOutputs({ configMap: configMap.metadata.name });
  }

  /** Where the cluster keeps one secret setting; nothing for one that is not declared. */
  keyOf(
    setting: string,
    { secrets }: Config["settings"],
  ): { name: pulumi.Input<string>; key: string } | undefined {
    const secret = secrets[setting];
    if (secret?.source === "existing") return { name: secret.secret, key: secret.key };
    return secret === undefined || this.ownSecret === undefined
      ? undefined
      : { name: this.ownSecret, key: setting };
  }

  /** Leaves a former release's settings as they are, for as long as its pods may be needed. */
  keep({ imageTag, labels, hasSecret }: KeptSettings): void {
    const { name, args, child } = this;
    // Not the whole metadata: what Pulumi has put there of its own may not be said again.
    const metadata = { namespace: args.namespace, labels };
    new k8s.core.v1.ConfigMap(
      `${name}-${imageTag}`,
      { metadata, data: {}, immutable: true },
      // Its values are the former release's, which this `up` does not know.
      { ...child, ignoreChanges: ["data"] },
    );
    if (!hasSecret) return;
    new k8s.core.v1.Secret(
      `${name}-${imageTag}`,
      { metadata, type: "Opaque", stringData: {}, immutable: true },
      // Both, as the cluster keeps under `data` what was declared under `stringData`.
      { ...child, ignoreChanges: ["stringData", "data"] },
    );
  }

  /** What `keep` needs to know of these settings later. */
  get record(): KeptSettings {
    const { imageTag, labels } = this.args;
    return { imageTag, labels, hasSecret: this.hasSecret };
  }
}

function containerSettings(
  { secrets, mountPath }: Config["settings"],
  configMap: pulumi.Input<string>,
  secret: pulumi.Input<string> | undefined,
  owned: readonly string[],
): ContainerSettings {
  const existing = Object.entries(secrets).flatMap(([key, source]) =>
    source.source === "existing" ? [{ name: key, secret: source.secret, key: source.key }] : [],
  );
  if (mountPath === undefined) {
    return {
      envFrom: [
        { configMapRef: { name: configMap } },
        ...(secret === undefined ? [] : [{ secretRef: { name: secret } }]),
      ],
      env: existing.map((reference) => ({
        name: reference.name,
        valueFrom: { secretKeyRef: { name: reference.secret, key: reference.key } },
      })),
      volumes: [],
      volumeMounts: [],
    };
  }
  const item = (key: string, path = key) => ({ key, path });
  const sources: k8s.types.input.core.v1.VolumeProjection[] = [
    { configMap: { name: configMap } },
    ...(secret === undefined
      ? []
      : [{ secret: { name: secret, items: owned.map((key) => item(key)) } }]),
    ...existing.map((reference) => ({
      secret: { name: reference.secret, items: [item(reference.key, reference.name)] },
    })),
  ];
  return {
    env: [],
    envFrom: [],
    volumes: [{ name: "settings", projected: { sources } }],
    volumeMounts: [{ name: "settings", mountPath, readOnly: true }],
  };
}
