import { execa } from "execa";
import { copyFile, mkdir, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Project } from "../sandbox/engine";
import { CONTEXT, ROOT, SANDBOX } from "../sandbox/folder";

const FOLDER = join(SANDBOX, "bench-empty");
const STACK = "empty";

const PROGRAM = `import * as k8s from "@pulumi/kubernetes";

new k8s.Provider("cluster", { context: "${CONTEXT}" });
`;

/** A program that loads the Kubernetes provider and declares nothing else: the least there is. */
export interface EmptyProject {
  /** @throws ExecaError when it is not unchanged. */
  readonly preview: () => Promise<unknown>;
}

/** Writes the project and brings it up, on the same engine and with the same SDKs as `project`. */
export async function openEmptyProject({ environment }: Project): Promise<EmptyProject> {
  const state = join(FOLDER, "state");
  await mkdir(state, { recursive: true });
  await writeFile(join(FOLDER, "Pulumi.yaml"), "name: bench-empty\nruntime: nodejs\n");
  await writeFile(join(FOLDER, "package.json"), '{ "name": "bench-empty", "private": true }\n');
  await writeFile(join(FOLDER, "index.ts"), PROGRAM);
  await copyFile(join(ROOT, "tsconfig.json"), join(FOLDER, "tsconfig.json"));
  const modules = join(FOLDER, "node_modules");
  await rm(modules, { force: true });
  await symlink(join(ROOT, "node_modules"), modules);

  const pulumi = (...args: string[]) =>
    execa("pulumi", ["--non-interactive", ...args], {
      cwd: FOLDER,
      env: { ...environment, PULUMI_BACKEND_URL: `file://${state}?metadata=skip` },
    });
  await pulumi("stack", "select", "--create", STACK);
  await pulumi("up", "--yes", "--skip-preview", "--stack", STACK);
  return { preview: () => pulumi("preview", "--expect-no-changes", "--stack", STACK) };
}
