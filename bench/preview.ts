import { ExecaError } from "execa";
import { Project } from "../sandbox/engine";
import { openEmptyProject, type EmptyProject } from "./empty-project";
import { compare, type Limit } from "./figure";
import type { Report } from "./report";
import { quantile } from "./statistics";
import { seconds } from "./stopwatch";

const STACK = "prod";
const LIMIT: Limit = { of: "ratio", aim: 1.3, most: 1.5 };

/**
 * Times the preview of a whole unchanged environment against that of an empty program, in turn, so
 * that whatever else the machine does falls on both alike.
 * @throws Error when the sandbox's prod runs no release, or not the one its stack file says.
 */
export async function measurePreview(report: Report, rounds: number): Promise<void> {
  const project = await Project.open("project", {});
  if ((await project.outputs(STACK))["release"] === undefined) {
    throw new Error(`stack ${STACK} runs no release; run \`npm run sandbox\` first`);
  }
  const preview = () => project.pulumi("preview", "--expect-no-changes", "--stack", STACK);
  let empty: EmptyProject | undefined;
  const baton: number[] = [];
  const least: number[] = [];
  await report.show([
    {
      title: "empty program",
      task: async () => {
        empty = await openEmptyProject(project);
      },
    },
    {
      title: "previews",
      task: async (_, task) => {
        // The first of each only warms the caches.
        for (let round = 0; round <= rounds; round++) {
          task.title = `previews: ${round === 0 ? "warm-up" : `round ${round} of ${rounds}`}`;
          const times = [await timed(preview), await timed(() => empty?.preview())] as const;
          if (round === 0) continue;
          baton.push(times[0]);
          least.push(times[1]);
        }
        task.title = `previews: ${rounds} of each`;
      },
    },
  ]);
  const figure = (name: string, share: number) =>
    compare({
      measure: `unchanged preview of ${STACK}, ${name}`,
      unit: "s",
      baton: quantile(baton, share),
      comparedWith: "empty program",
      compared: quantile(least, share),
      limit: LIMIT,
    });
  report.add(figure("median", 0.5), figure("lower quartile", 0.25));
}

async function timed(preview: () => PromiseLike<unknown> | undefined): Promise<number> {
  try {
    return await seconds(async () => preview());
  } catch (error) {
    if (!(error instanceof ExecaError)) throw error;
    throw new Error(
      `a preview failed or found changes:\n${String(error.stdout)}${String(error.stderr)}`,
    );
  }
}
