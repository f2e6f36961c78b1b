import { rm } from "node:fs/promises";
import { join } from "node:path";
import { openRegistry } from "../registry/registry";
import { deleteNamespaces, kubeconfigOf } from "../sandbox/cluster";
import { Project } from "../sandbox/engine";
import { REGISTRY, SANDBOX } from "../sandbox/folder";
import { pushBuild, pushTests, targetsOf } from "../sandbox/images";
import { walkPath } from "../sandbox/path";
import { create, PATIENCE, pull, waitForRollout } from "./cluster";
import { compare } from "./figure";
import { readSteps, type Step } from "./objects";
import type { Report } from "./report";
import { seconds } from "./stopwatch";

const PROJECT = "bench";
/** Of every namespace this measure makes. */
const PREFIX = "bench-";
/** Before the tags that are put without Pulumi: Baton's own are taken by then. */
const TAG_PREFIX = "applied-";

/**
 * Times a build's way through all environments from nothing, by Baton and then by applying the
 * very same objects with no more than the waits that the order demands.
 */
export async function measurePath(report: Report): Promise<void> {
  const { show } = report;
  // Tags never move, so each run is a build of its own.
  const build = Math.floor(Date.now() / 1000);
  const tag = `build-${build}`;
  const cleanUp = { title: "remove bench environments", task: clean };
  try {
    await show([
      cleanUp,
      { title: `push ${tag}`, task: () => pushBuild(build, targetsOf({})) },
      { title: "push the suites", task: () => pushTests(targetsOf({})) },
      {
        title: `pull ${tag}`,
        task: () => pull(`${PREFIX}pull`, `${REGISTRY}/podinfo:${tag}`, ["/bin/podcli", "version"]),
      },
    ]);
    const project = await Project.open(PROJECT, { namespacePrefix: PREFIX });
    const byBaton = await seconds(() => show(walkPath(project, tag, `v0.0.${build}`)));

    const environments = new Map<string, Step[]>();
    for (const name of project.path) environments.set(name, await readSteps(project, name));
    await show([cleanUp]);
    const applied = await seconds(() =>
      show(
        [...environments].map(([name, steps]) => ({
          title: `${name} without Pulumi`,
          task: async () => {
            for (const step of steps) await apply(step);
          },
        })),
      ),
    );
    report.add(
      compare({
        measure: `${environments.size} environments from nothing`,
        unit: "s",
        baton: byBaton,
        comparedWith: "the same objects without Pulumi",
        compared: applied,
      }),
    );
  } finally {
    await show([cleanUp]);
  }
}

async function apply(step: Step): Promise<void> {
  switch (step.kind) {
    case "object":
      return create(step.object);
    case "rollout":
      return waitForRollout(step.rollout.namespace, step.rollout.deployment);
    case "tag":
      return openRegistry(step.tag).tag(step.tag.digest, `${TAG_PREFIX}${step.tag.tag}`);
  }
}

/**
 * All that an environment has in the cluster is in its namespace; the stacks go with their states.
 * That needs nothing of a former run, which may have been killed half way.
 */
async function clean(): Promise<void> {
  await deleteNamespaces(kubeconfigOf({}), PREFIX, PATIENCE);
  await rm(join(SANDBOX, PROJECT), { recursive: true, force: true });
}
