import { access, readdir } from "node:fs/promises";
import { delimiter, join } from "node:path";

/** The repository's root. */
export const ROOT = join(__dirname, "..");
/** Everything the sandbox makes; deleting it is always safe while the sandbox is down. */
export const SANDBOX = join(ROOT, ".sandbox");

export const BIN = join(SANDBOX, "bin");
export const LOGS = join(SANDBOX, "logs");
/** The node's own data: etcd, containers, images, certificates. */
export const NODE = join(SANDBOX, "node");
/** The process that holds the node together; while it lives, the node does. */
export const NODE_PID = join(SANDBOX, "node.pid");
export const KUBECONFIG = join(SANDBOX, "kubeconfig");
export const CONTEXT = "sandbox";
/** Debian packages, unpacked rather than installed: they would start services of their own. */
export const DEBIAN = join(SANDBOX, "debian");

/** The node's network: one end of a cable outside, the other inside. */
export const NETWORK = {
  namespace: "baton-sandbox",
  outsideInterface: "baton0",
  insideInterface: "baton1",
  outside: "10.213.0.1",
  inside: "10.213.0.2",
  prefix: 30,
  services: "10.96.0.0/16",
  apiServerService: "10.96.0.1",
  pods: "10.244.0.0/24",
} as const;

export const REGISTRY = `${NETWORK.inside}:5000`;
/** Another region's, which only dr uses. */
export const DR_REGISTRY = `${NETWORK.inside}:5001`;
/** Where kubelet keeps its control groups, below each controller's root. */
export const CGROUP = "baton-sandbox";

export async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

/** The shared libraries of the packages unpacked in `root`, as `LD_LIBRARY_PATH` takes them. */
export async function libraries(root: string): Promise<string> {
  const folders = [join(root, "lib"), join(root, "usr/lib")];
  const found = await Promise.all(
    folders.map(async (folder) =>
      (await readdir(folder))
        .filter((name) => name.endsWith("-linux-gnu"))
        .map((name) => join(folder, name)),
    ),
  );
  return found.flat().join(delimiter);
}
