import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { childOptions, type ChildOptions } from "./internal/child-options";
import type { EntranceConfig, EntrancesConfig, ExposureConfig, TlsConfig } from "../config-schema";

export interface ExposureArgs {
  readonly namespace: string;
  /** The Service that is exposed, on its port 80. */
  readonly service: string;
  readonly exposure: ExposureConfig;
  readonly entrances: EntrancesConfig;
  readonly configSecrets: Readonly<Record<string, pulumi.Output<string>>>;
  readonly labels: Readonly<Record<string, string>>;
}

const SERVICE_PORT = 80;

/**
 * Lets callers from outside reach a Service through one of the cluster's entrances: an Ingress, or
 * an HTTPRoute on a Gateway. Source ranges are said in the words of the entrance's controller;
 * an authenticating proxy is switched on by the annotations the stack file gives.
 */
export class Exposure extends pulumi.ComponentResource {
  private readonly child: ChildOptions;

  constructor(name: string, args: ExposureArgs, opts?: pulumi.ComponentResourceOptions) {
    super("baton:components:Exposure", name, {}, opts);
    this.child = childOptions(this, opts);
    const entrance = args.entrances[args.exposure.scope];
    if (entrance === undefined) {
      throw new pulumi.ResourceError(`no ${args.exposure.scope} entrance is configured`, this);
    }
    if (args.entrances.kind === "Ingress") this.createIngress(name, args, entrance);
    else this.createRoute(name, args, entrance);
    this.registerOutputs({});
  }

  private createIngress(name: string, args: ExposureArgs, entrance: EntranceConfig): void {
    const { exposure, entrances, namespace, service, labels } = args;
    const { tls, sourceRanges = [] } = exposure;
    const tlsSecret = tls === undefined ? undefined : this.tlsSecret(name, tls, args);
    const byController: Record<string, Record<string, string>> = {
      alb: {
        "alb.ingress.kubernetes.io/scheme":
          exposure.scope === "public" ? "internet-facing" : "internal",
        "alb.ingress.kubernetes.io/target-type": "ip",
        ...joined("alb.ingress.kubernetes.io/inbound-cidrs", sourceRanges),
      },
      nginx: joined("nginx.ingress.kubernetes.io/whitelist-source-range", sourceRanges),
    };
    const middleware =
      entrances.controller === "traefik" && sourceRanges.length > 0
        ? this.createTraefikAllowList(name, args, sourceRanges)
        : undefined;
    new k8s.networking.v1.Ingress(
      name,
      {
        metadata: {
          namespace,
          name,
          labels,
          annotations: {
            ...byController[entrances.controller],
            ...(tls?.source === "certManager"
              ? { "cert-manager.io/cluster-issuer": tls.issuer }
              : {}),
            ...(middleware === undefined
              ? {}
              : {
                  "traefik.ingress.kubernetes.io/router.middlewares": pulumi.interpolate`${namespace}-${middleware}@kubernetescrd`,
                }),
            ...exposure.annotations,
          },
        },
        spec: {
          ingressClassName: entrance.name,
          ...(tls === undefined
            ? {}
            : {
                tls: [
                  {
                    hosts: [exposure.host],
                    ...(tlsSecret === undefined ? {} : { secretName: tlsSecret }),
                  },
                ],
              }),
          rules: [
            {
              host: exposure.host,
              http: {
                paths: [
                  {
                    path: exposure.path,
                    pathType: "Prefix",
                    backend: { service: { name: service, port: { number: SERVICE_PORT } } },
                  },
                ],
              },
            },
          ],
        },
      },
      this.child,
    );
  }

  private createRoute(name: string, args: ExposureArgs, entrance: EntranceConfig): void {
    const { exposure, entrances, namespace, service, labels } = args;
    const { sourceRanges = [] } = exposure;
    const middleware =
      entrances.controller === "traefik" && sourceRanges.length > 0
        ? this.createTraefikAllowList(name, args, sourceRanges)
        : undefined;
    const filter = {
      type: "ExtensionRef",
      extensionRef: { group: "traefik.io", kind: "Middleware", name: middleware },
    };
    new k8s.apiextensions.CustomResource(
      name,
      {
        apiVersion: "gateway.networking.k8s.io/v1",
        kind: "HTTPRoute",
        metadata: {
          namespace,
          name,
          labels,
          annotations: { ...exposure.annotations },
        },
        spec: {
          parentRefs: [{ name: entrance.name, namespace: entrance.namespace }],
          hostnames: [exposure.host],
          rules: [
            {
              matches: [{ path: { type: "PathPrefix", value: exposure.path } }],
              ...(middleware === undefined ? {} : { filters: [filter] }),
              backendRefs: [{ name: service, port: SERVICE_PORT }],
            },
          ],
        },
      },
      this.child,
    );
    if (entrances.controller === "envoyGateway" && sourceRanges.length > 0) {
      // https://gateway.envoyproxy.io/docs/tasks/security/restrict-ip-access/
      new k8s.apiextensions.CustomResource(
        `${name}-source-ranges`,
        {
          apiVersion: "gateway.envoyproxy.io/v1alpha1",
          kind: "SecurityPolicy",
          metadata: { namespace, name, labels },
          spec: {
            targetRefs: [{ group: "gateway.networking.k8s.io", kind: "HTTPRoute", name }],
            authorization: {
              defaultAction: "Deny",
              rules: [{ action: "Allow", principal: { clientCIDRs: sourceRanges } }],
            },
          },
        },
        this.child,
      );
    }
  }

  /** https://doc.traefik.io/traefik/middlewares/http/ipallowlist/ */
  private createTraefikAllowList(
    name: string,
    { namespace, labels }: ExposureArgs,
    sourceRange: readonly string[],
  ): pulumi.Output<string> {
    const middleware = new k8s.apiextensions.CustomResource(
      `${name}-source-ranges`,
      {
        apiVersion: "traefik.io/v1alpha1",
        kind: "Middleware",
        metadata: { namespace, name: `${name}-source-ranges`, labels },
        spec: { ipAllowList: { sourceRange } },
      },
      this.child,
    );
    return middleware.metadata.name;
  }

  /** The name of the Secret that holds the certificate, unless the controller has its own store. */
  private tlsSecret(
    name: string,
    tls: TlsConfig,
    args: ExposureArgs,
  ): pulumi.Input<string> | undefined {
    if (tls.source === "controller") return undefined;
    if (tls.source === "existing") return tls.secret;
    if (tls.source === "certManager") return `${name}-tls`;
    const { tlsCertificate = "", tlsKey = "" } = args.configSecrets;
    const secret = new k8s.core.v1.Secret(
      `${name}-tls`,
      {
        metadata: { namespace: args.namespace, labels: args.labels },
        type: "kubernetes.io/tls",
        stringData: { "tls.crt": tlsCertificate, "tls.key": tlsKey },
        immutable: true,
      },
      this.child,
    );
    return pulumi.unsecret(secret.metadata.name);
  }
}

function joined(annotation: string, ranges: readonly string[]): Record<string, string> {
  return ranges.length === 0 ? {} : { [annotation]: ranges.join(",") };
}
