/*
 * The node's Ingress controller, as small as one can be: it routes by host and path, and writes its
 * address into each Ingress. TLS, source ranges and authentication are a real controller's.
 */
import { NetworkingV1Api, CoreV1Api, type V1Ingress } from "@kubernetes/client-node";
import { createServer, request } from "node:http";
import { setTimeout } from "node:timers/promises";
import { kubeconfigOf } from "./cluster";
import { NETWORK } from "./folder";

const POLL_MILLISECONDS = 500;

interface Route {
  readonly host: string;
  readonly path: string;
  /** The Service's address. */
  readonly address: string;
  readonly port: number;
}

const kubeconfig = kubeconfigOf({});
const networking = kubeconfig.makeApiClient(NetworkingV1Api);
const core = kubeconfig.makeApiClient(CoreV1Api);
let routes: Route[] = [];

async function refresh(): Promise<void> {
  const ingresses = (await networking.listIngressForAllNamespaces()).items;
  routes = (await Promise.all(ingresses.map(routesOf))).flat();
  for (const ingress of ingresses) {
    if (ingress.status?.loadBalancer?.ingress?.[0]?.ip === NETWORK.inside) continue;
    const { name = "", namespace = "" } = ingress.metadata ?? {};
    ingress.status = { loadBalancer: { ingress: [{ ip: NETWORK.inside }] } };
    await networking.replaceNamespacedIngressStatus({ name, namespace, body: ingress });
  }
}

async function routesOf(ingress: V1Ingress): Promise<Route[]> {
  const namespace = ingress.metadata?.namespace ?? "";
  const found: Route[] = [];
  for (const { host = "", http } of ingress.spec?.rules ?? []) {
    for (const { path = "/", backend } of http?.paths ?? []) {
      const { name, port } = backend.service ?? {};
      if (name === undefined || port?.number === undefined) continue;
      const service = await core.readNamespacedService({ namespace, name }).catch(() => undefined);
      const address = service?.spec?.clusterIP;
      if (address !== undefined) found.push({ host, path, address, port: port.number });
    }
  }
  return found;
}

const server = createServer((incoming, outgoing) => {
  const host = incoming.headers.host?.split(":")[0];
  const route = routes.find(
    (candidate) => candidate.host === host && incoming.url?.startsWith(candidate.path),
  );
  if (route === undefined) {
    outgoing.writeHead(404).end("no Ingress for this host and path\n");
    return;
  }
  const { method, url: path, headers } = incoming;
  const onward = request(
    { host: route.address, port: route.port, method, path, headers },
    (answer) => {
      outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
      answer.pipe(outgoing);
    },
  );
  onward.on("error", (error) => {
    outgoing.writeHead(502).end(`${error.message}\n`);
  });
  incoming.pipe(onward);
});
server.listen(80, NETWORK.inside);

void (async () => {
  for (;;) {
    // A cluster that is away for a moment, or an Ingress that changed under us: the next round.
    await refresh().catch((error: unknown) => console.error(error));
    await setTimeout(POLL_MILLISECONDS);
  }
})();
