/* A Gateway, which Traefik serves, for environments that are called through one. */
import { CoreV1Api, CustomObjectsApi } from "@kubernetes/client-node";
import { TRAEFIK } from "./build";
import { kubeconfigOf } from "./cluster";
import { startController } from "./controller";
import { NETWORK } from "./folder";

const API = { group: "gateway.networking.k8s.io", version: "v1" };
const NAME = "sandbox";
const NAMESPACE = "gateway";
const PORT = 8000;

/** Where it is called. */
export const GATEWAY = `${NETWORK.inside}:${PORT}`;

/** What a stack file says of a cluster whose entrance it is. */
export const ENTRANCES = {
  kind: "HTTPRoute",
  controller: "traefik",
  internal: { name: NAME, namespace: NAMESPACE, cidr: null },
} as const;

/** @returns what ends it, with all routes. */
export async function startGateway(): Promise<() => Promise<void>> {
  const end = await startController({
    part: TRAEFIK,
    program: "traefik",
    args: [
      "--providers.kubernetesgateway",
      `--entrypoints.web.address=${GATEWAY}`,
      "--global.checknewversion=false",
      "--global.sendanonymoususage=false",
    ],
    definitions: { module: "sigs.k8s.io/gateway-api", folder: "config/crd/standard" },
  });
  const kubeconfig = kubeconfigOf({});
  const core = kubeconfig.makeApiClient(CoreV1Api);
  const { items } = await core.listNamespace();
  if (!items.some(({ metadata }) => metadata?.name === NAMESPACE)) {
    await core.createNamespace({ body: { metadata: { name: NAMESPACE } } });
  }
  const objects = kubeconfig.makeApiClient(CustomObjectsApi);
  const object = (kind: string, spec: object) => ({
    apiVersion: `${API.group}/${API.version}`,
    kind,
    metadata: { name: NAME },
    spec,
  });
  await objects.createClusterCustomObject({
    ...API,
    plural: "gatewayclasses",
    body: object("GatewayClass", { controllerName: "traefik.io/gateway-controller" }),
  });
  const allowedRoutes = { namespaces: { from: "All" } };
  await objects.createNamespacedCustomObject({
    ...API,
    namespace: NAMESPACE,
    plural: "gateways",
    body: object("Gateway", {
      gatewayClassName: NAME,
      listeners: [{ name: "web", protocol: "HTTP", port: PORT, allowedRoutes }],
    }),
  });
  return end;
}
