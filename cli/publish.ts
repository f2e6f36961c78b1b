import { execa } from "execa";
import { Refusal } from "../ledger/refusal";
import { openRegistry } from "../registry/registry";
import { checkBuild } from "../release/flow";
import { REVISION } from "../registry/images";
import type { Context, Report } from "./context";

export interface PublishOptions {
  /** The image on this machine, by its name there. */
  readonly image: string;
}

/**
 * `baton publish TAG --image NAME`: pushes a build under its number, once. One that is there is
 * left as it is: of the same revision it is this build, and takes its name on this machine; of
 * another it is refused.
 */
export async function publish(
  { project, print, showProgress }: Context,
  tag: string,
  { image }: PublishOptions,
): Promise<Report> {
  const registry = await buildsRegistry(project);
  const repository = openRegistry(registry);
  const format = `{{ index .Config.Labels "${REVISION}" }}`;
  const revision = await docker("image", "inspect", "--format", format, image);
  if (!/^[0-9a-f]{40,64}$/.test(revision)) {
    throw new Refusal({
      where: image,
      property: `its label ${REVISION}`,
      value: revision === "" || revision === "<no value>" ? "not set" : revision,
      expected: "the commit it was built of",
      fix: `Build it with \`--label ${REVISION}=$(git rev-parse HEAD)\``,
    });
  }
  const existing = await repository.resolve(tag);
  const checked = checkBuild(
    tag,
    revision,
    existing === undefined
      ? undefined
      : { revision: (await repository.labels(existing))[REVISION] },
  );
  if ("problems" in checked) throw new Refusal(checked.problems);
  const pushed = checked.ok === "push";
  const name = `${registry.repository}:${tag}`;
  if (pushed) {
    await docker("tag", image, name);
    await showProgress(`push ${name}`, () => docker("push", "--quiet", name));
  } else {
    // What is said of the image from here on is said of the one that others get.
    await showProgress(`pull ${name}`, () => docker("pull", "--quiet", name));
    await docker("tag", name, image);
  }
  const digest = existing ?? (await repository.resolve(tag));
  if (digest === undefined) {
    throw new Error(`${tag}: the registry does not have it after the push. Push it again.`);
  }
  print(
    pushed
      ? `${tag}: pushed as ${digest}.`
      : `${tag}: there already, built of the same revision (${digest}).`,
  );
  return { outcome: "done", tag, digest, revision, pushed };
}

/** Where the environment that takes builds finds them. */
async function buildsRegistry(project: Context["project"]) {
  for (const environment of await project.path()) {
    const { upstream, registry } = await project.config(environment);
    if (upstream === undefined) return registry;
  }
  throw new Error("publish: no environment takes builds. Add one without baton:upstream.");
}

/** What docker prints. */
async function docker(...args: string[]): Promise<string> {
  const run = await execa("docker", args, { reject: false });
  if (run.code === "ENOENT") {
    throw new Error("docker: the command is missing; expected it on PATH. Install it.");
  }
  if (!run.failed) return run.stdout.trim();
  throw new Error(`docker ${args[0] ?? ""}: ${run.stderr.trim() || (run.shortMessage ?? "")}`);
}
