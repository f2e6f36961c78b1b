/*
 * A controller beside the cluster, with definitions of its own: built when it is first needed, and
 * there only for as long as somebody needs it.
 */
import {
  ApiextensionsV1Api,
  loadAllYaml,
  type KubernetesObject,
  type V1CustomResourceDefinition,
} from "@kubernetes/client-node";
import { execa } from "execa";
import { createWriteStream } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { isPlaced, moduleFolder, placePart, type Part } from "./build";
import { kubeconfigOf, until } from "./cluster";
import { BIN, KUBECONFIG, LOGS, NETWORK } from "./folder";
import { Parts } from "./parts";

/** How long the cluster may take to accept definitions or to drop them, in seconds. */
const PATIENCE = 60;

export interface Controller {
  readonly part: Part;
  /** One of the part's programs, and what it is started with. */
  readonly program: string;
  readonly args: readonly string[];
  /** Where its definitions are: in a module that the part is built from. */
  readonly definitions: { readonly module: string; readonly folder: string };
}

/**
 * Starts a controller in the node's network.
 * @returns what ends it, and removes its definitions and all objects of their kinds.
 */
export async function startController(controller: Controller): Promise<() => Promise<void>> {
  const { part, program, args } = controller;
  const parts = await Parts.open();
  if (!(await isPlaced(part, parts))) await placePart(part, parts);
  const definitions = await readDefinitions(controller);
  const api = kubeconfigOf({}).makeApiClient(ApiextensionsV1Api);
  // A former one's, which was killed.
  await removeDefinitions(api, definitions);
  for (const definition of definitions) await createDefinition(api, definition);
  const run = execa("ip", ["netns", "exec", NETWORK.namespace, join(BIN, program), ...args], {
    env: { KUBECONFIG },
    all: true,
    reject: false,
  });
  run.all.pipe(createWriteStream(join(LOGS, `${program}.log`)));
  return async () => {
    run.kill();
    await run;
    await removeDefinitions(api, definitions);
  };
}

async function createDefinition(
  api: ApiextensionsV1Api,
  body: V1CustomResourceDefinition,
): Promise<void> {
  const { metadata } = await api.createCustomResourceDefinition({ body });
  const name = metadata?.name ?? "";
  const established = async () => {
    const { status } = await api.readCustomResourceDefinition({ name });
    return status?.conditions?.some((one) => one.type === "Established") ?? false;
  };
  await until(`the definition of ${name}`, established, PATIENCE);
}

async function removeDefinitions(
  api: ApiextensionsV1Api,
  definitions: readonly V1CustomResourceDefinition[],
): Promise<void> {
  const names = new Set(definitions.map(({ metadata }) => metadata?.name));
  const present = async () => {
    const { items } = await api.listCustomResourceDefinition();
    return items.filter(({ metadata }) => names.has(metadata?.name));
  };
  for (const { metadata } of await present()) {
    await api.deleteCustomResourceDefinition({ name: metadata?.name ?? "" });
  }
  await until(
    "the end of former definitions",
    async () => (await present()).length === 0,
    PATIENCE,
  );
}

async function readDefinitions({
  part,
  definitions,
}: Controller): Promise<V1CustomResourceDefinition[]> {
  const folder = join(await moduleFolder(part, definitions.module), definitions.folder);
  const files = (await readdir(folder)).filter((name) => name.endsWith(".yaml"));
  const texts = await Promise.all(files.map((name) => readFile(join(folder, name), "utf8")));
  return texts
    .flatMap((text) => loadAllYaml(text) as KubernetesObject[])
    .filter(({ kind }) => kind === "CustomResourceDefinition") as V1CustomResourceDefinition[];
}
